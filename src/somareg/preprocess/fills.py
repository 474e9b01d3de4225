"""Regions of one exact value that are no ground: fills, gaps, frames and overlays that nobody declared.

Ground that two sensors see has no outline that both draw to the very pixel. Where regions of one value have the same
outline in both images, on the pixel grid or on the georeference, the outline was drawn by a program: a cut to one area
of interest, gaps of a scanner, a graticule. Matching such outlines finds the pixel grid and not the ground. One image
alone tells less: a region with straight edges that reaches the frame is taken for a fill, and so is a solid one in a
SAR image, whose speckle never rests at a value. Dark water, which is ragged, is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.preprocess.regions import Regions, is_solid, outline_of, regions_of, straight_share
from somareg.types import BoolArray, FloatArray, Modality, Raster

Place = Callable[[FloatArray], FloatArray]

OUTLINE_PX = 16  # length of the shortest outline whose agreement says anything
SAME_OUTLINE = 0.5  # share of a region's outline that the other image must draw as well, to the pixel
NEAR_OUTLINE = 0.8  # the same within a pixel
AWAY_PX = 7.0  # that edges are moved to see what agrees by chance
RIM_PX = 2  # values beside an outline are often blended with it
FILL_SHARE = 0.003  # of the image that a region must hold to be a fill by its shape alone
LARGE_SHARE = 0.02  # the same for a region inside the image
NEGLIGIBLE = 0.001  # share of an image that may stay in it without a word
STRAIGHT_SHARE = 0.8  # of an outline


@dataclass(frozen=True, eq=False)
class Fills:
    """What is no ground in an image.

    Attributes:
        mask: (H, W) True there.
        values: how many pixels hold each value, by its text.
    """

    mask: BoolArray
    values: dict[str, int]


def find_fills(
    moving: Raster,
    reference: Raster,
    places: Sequence[Place],
    modalities: tuple[Modality, Modality],
) -> tuple[Fills, Fills]:
    """What is no ground in the moving image and in the reference, of what their masks call valid.

    Args:
        moving, reference: the bands that are matched.
        places: maps, reference pixels -> moving pixels, on which a program may have drawn in both: the georeference,
            and pixel on pixel.
        modalities: of moving and reference.
    """
    there, here = regions_of(moving.data, moving.mask), regions_of(reference.data, reference.mask)
    own_here, own_there = _drawn(here, modalities[1]), _drawn(there, modalities[0])
    for to_moving in places:
        fixed_here, fixed_there = _fixed(here, there, reference.mask, moving.mask, to_moving)
        own_here, own_there = own_here | fixed_here, own_there | fixed_there
    return _fills(there, own_there, moving.mask), _fills(here, own_here, reference.mask)


def without_fills(
    moving: Raster,
    reference: Raster,
    places: Sequence[Place],
    modalities: tuple[Modality, Modality],
) -> tuple[Raster, Raster, tuple[str, ...]]:
    """Moving and reference whose masks leave out what is no ground, and notes that say so; see `find_fills`."""
    fills = find_fills(moving, reference, places, modalities)
    images, notes = [], []
    for image, fill, role in zip((moving, reference), fills, ("moving", "reference"), strict=True):
        if fill.mask.any():
            image = replace(image, mask=image.mask & ~fill.mask, band_masks=None)
            notes.append(_note(fill, role))
        images.append(image)
    return images[0], images[1], tuple(notes)


def _note(fill: Fills, role: str) -> str:
    ranked = sorted(fill.values, key=lambda value: -fill.values[value])
    share = sum(fill.values.values()) / fill.mask.size
    named = " or ".join(ranked[:3])
    return (
        f"{role}: {share:.1%} of the pixels hold exactly {named} in shapes that are no ground (a fill, gaps or an "
        f"overlay that was not declared); left out. To declare them: --{role}-nodata {ranked[0].split(',')[0]}, or "
        f"--{role}-mask FILE"
    )


def _fixed(
    here: Regions,
    there: Regions,
    mask: BoolArray,
    away: BoolArray,
    to_moving: Place,
) -> tuple[BoolArray, BoolArray]:
    """Which regions of the reference and of the moving image (by label, 0 for none) both images draw at one place."""
    fixed = np.zeros(len(here.values) + 1, bool), np.zeros(len(there.values) + 1, bool)
    if not (here.values or there.values) or not (here.values or not mask.all()) or not (there.values or not away.all()):
        return fixed  # outlines of one image alone meet nothing
    height, width = mask.shape
    columns, rows = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
    target = to_moving(np.stack([columns.ravel(), rows.ravel()], axis=-1))
    x, y = (np.rint(np.nan_to_num(v, nan=-1.0, posinf=-1.0, neginf=-1.0)).astype(np.int64) for v in target.T)
    inside = ((x >= 0) & (x < away.shape[1]) & (y >= 0) & (y < away.shape[0])).reshape(height, width)
    place = inside.ravel()
    brought = np.zeros(mask.size, np.int32)
    brought[place] = there.labels[y[place], x[place]]
    brought = brought.reshape(height, width)
    lost = np.zeros(mask.size, bool)
    lost[place] = ~away[y[place], x[place]]
    lost = lost.reshape(height, width)
    is_same_grid = mask.shape == away.shape and bool(
        np.array_equal(x, columns.ravel()) and np.array_equal(y, rows.ravel())
    )
    # What is not valid counts as well: one image may declare what the other does not.
    edges_here = outline_of(here.labels) | (outline_of(~mask) | _beside(~mask))
    edges_there = (outline_of(brought) | outline_of(lost) | _beside(lost)) & inside
    for labels, edges, result in ((here.labels, edges_there, fixed[0]), (brought, edges_here, fixed[1])):
        if is_same_grid:
            result |= _agreeing(labels, edges, inside, len(result)) >= SAME_OUTLINE
        # Blended with what lies beside it, or on pixels of another size, an outline moves by a pixel.
        near = cv2.dilate(edges.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        result |= _agreeing(labels, near, inside, len(result)) >= NEAR_OUTLINE
    return fixed


def _beside(mask: BoolArray) -> BoolArray:
    """(H, W) pixels beside a region."""
    return outline_of(~mask)


def _agreeing(labels: NDArray[np.int32], edges: BoolArray, inside: BoolArray, size: int) -> FloatArray:
    """Share of the outline of each region (by label) that lies on given edges, 0-1; 0 where it does so by chance, as
    when the edges are moved away.
    """
    outline = outline_of(labels) & inside
    rows, columns = np.nonzero(outline)
    own = labels[rows, columns]
    length = np.bincount(own, minlength=size)

    def share(dx: int, dy: int) -> FloatArray:
        y, x = rows + dy, columns + dx
        met = (y >= 0) & (y < edges.shape[0]) & (x >= 0) & (x < edges.shape[1])
        met[met] = edges[y[met], x[met]]
        return np.asarray(np.bincount(own, met, minlength=size) / np.maximum(length, 1))

    around = [(round(AWAY_PX * math.cos(a)), round(AWAY_PX * math.sin(a))) for a in np.arange(8) * math.pi / 4 + 0.5]
    chance = np.median([share(dx, dy) for dx, dy in around], axis=0)
    at = share(0, 0)
    return np.where((length >= OUTLINE_PX) & (at >= 1.5 * chance + 0.1), at, 0.0)


def _drawn(regions: Regions, modality: Modality) -> BoolArray:
    """Which regions (by label) one image alone shows to be no ground."""
    drawn = np.zeros(len(regions.values) + 1, bool)
    labels = regions.labels
    areas = np.bincount(labels.ravel(), minlength=len(drawn))
    frame = np.zeros(len(drawn), bool)
    for line in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        frame[line] = True
    for label in range(1, len(drawn)):
        share = areas[label] / labels.size
        if share < (FILL_SHARE if frame[label] else LARGE_SHARE):
            continue
        own = (labels == label).astype(np.uint8)
        straight = frame[label] and straight_share(own) >= STRAIGHT_SHARE
        drawn[label] = straight or (modality == "sar" and is_solid(own))
    return drawn


def _fills(regions: Regions, chosen: BoolArray, mask: BoolArray) -> Fills:
    """The chosen regions (by label) and the rim beside them."""
    own = chosen[regions.labels]
    areas = np.bincount(regions.labels.ravel(), minlength=len(chosen))
    values: dict[str, int] = {}
    for label in np.flatnonzero(chosen):
        values[regions.values[label - 1]] = values.get(regions.values[label - 1], 0) + int(areas[label])
    if sum(values.values()) < NEGLIGIBLE * own.size:
        return Fills(np.zeros_like(own), {})
    side = 2 * RIM_PX + 1
    return Fills(cv2.dilate(own.astype(np.uint8), np.ones((side, side), np.uint8)).astype(bool) & mask, values)
