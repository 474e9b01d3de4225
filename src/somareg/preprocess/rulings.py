"""Ruled rows and columns at the same place in both images: graticules, frames and seams without an exact value.

Lossy compression, transparency and resampling leave no region of one value. But what is drawn along a whole row stays
along the row: its pixels differ from those a few rows away by about the same amount all along. Ground hardly follows
the pixel grid so far, and not in both images at the same row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from somareg.preprocess.pixelwise import Greys, overlap, whole_shift, without
from somareg.preprocess.subsample import subsample
from somareg.types import BoolArray, FloatArray, Raster, Transform

REACH_PX = 3  # distance in rows to the rows that a row is compared with
ALIKE = 0.7  # least share of a ruled row that differs in one direction by more than the deviation of all differences
OUTSTANDING = 6.0  # the same in deviations of the shares of all rows
FRAME_SHARE = 0.15  # share of the image: a seam closer to the edge is the inner edge of a frame
RIM_PX = 3  # rows beside a ruled one that it is blended with
ENOUGH = 0.5  # of a row that must be valid


def without_rulings(
    moving: Raster, reference: Raster, places: Sequence[Transform], greys: Greys
) -> tuple[Raster, Raster, tuple[str, ...]]:
    """Mask lines that are ruled through both images, with notes.

    Args:
        moving, reference: the bands that are matched.
        places: maps, reference pixels -> moving pixels; only shifts by whole pixels are used.
        greys: of both.
    """
    notes = []
    for place in places:
        shift = whole_shift(place)
        if shift is None:
            continue
        near, away = overlap(reference.mask.shape, moving.mask.shape, shift)
        ruled = rulings(greys.reference[near], greys.moving[away], (reference.mask[near], moving.mask[away]))
        if ruled.any():
            reference, moving = without(reference, near, ruled), without(moving, away, ruled)
            notes.append(
                f"{ruled.mean():.1%} of both images are rows and columns drawn through both at one place (a graticule, "
                "a frame, a seam); left out"
            )
    return moving, reference, tuple(notes)


def rulings(first: NDArray[np.float32], second: NDArray[np.float32], masks: tuple[BoolArray, BoolArray]) -> BoolArray:
    """Pixels (H, W) of ruled rows and columns that two images share, their rims, and frames outside of them.

    Args:
        first, second: (H, W) grey values, pixel on pixel.
        masks: valid pixels of each.
    """
    shape = masks[0].shape
    ruled = np.zeros(shape, bool)
    for axis in (0, 1):
        one, two = (
            (np.moveaxis(image, axis, 0), np.moveaxis(mask, axis, 0))
            for image, mask in zip((first, second), masks, strict=True)
        )
        lines = _ruled(*one)
        if not lines.any():
            continue
        lines &= _grown(_ruled(*two), 1)  # a line shows in its own row, a seam between two rows: one row of tolerance
        length = shape[axis]
        rows = np.zeros(length, bool)
        for row in np.flatnonzero(lines):
            rows[max(0, row - RIM_PX) : row + RIM_PX + 1] = True
            if row < FRAME_SHARE * length:
                rows[:row] = True
            elif row >= (1 - FRAME_SHARE) * length:
                rows[row:] = True
        along = [slice(None), slice(None)]
        along[axis] = rows  # type: ignore[call-overload]
        ruled[tuple(along)] = True
    return ruled


def _ruled(image: FloatArray, mask: BoolArray) -> BoolArray:
    """(H,), True for rows that differ from those around them by about the same amount all along: a line or a step."""
    height = len(image)
    ruled = np.zeros(height, bool)
    if height <= 4 * REACH_PX:
        return ruled
    middle, above, below = (
        image[s] for s in (slice(REACH_PX, -REACH_PX), slice(0, -2 * REACH_PX), slice(2 * REACH_PX, None))
    )
    valid = mask[REACH_PX:-REACH_PX] & mask[: -2 * REACH_PX] & mask[2 * REACH_PX :]
    for difference in (middle - (above + below) / 2, below - above):
        if not valid.any():
            break
        deviation = 1.4826 * float(np.median(np.abs(subsample(difference[None], valid)))) + 1e-9
        rises, falls = ((valid & (sign * difference > deviation)).sum(1) for sign in (1, -1))
        count = valid.sum(1)
        alike = np.abs(rises - falls) / np.maximum(count, 1)
        alike[count < ENOUGH * valid.shape[1]] = 0.0
        spread = 1.4826 * float(np.median(np.abs(alike - np.median(alike)))) + 1e-9
        ruled[REACH_PX:-REACH_PX] |= (alike > ALIKE) & (alike - np.median(alike) > OUTSTANDING * spread)
    return ruled


def _grown(rows: BoolArray, by: int) -> BoolArray:
    return np.convolve(rows, np.ones(2 * by + 1), "same") > 0.5
