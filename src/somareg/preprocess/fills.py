"""Regions of one exact value that show no ground: undeclared fills, gaps, frames and overlays.

Two sensors never draw an outline of the ground to the very same pixel. Where regions of one value have the same outline
in both images, on the pixel grid or by the georeference, a program drew it: a cut to one area of interest, gaps of a
scanner, a graticule. Matching such outlines finds the pixel grid instead of the ground. One image alone is weaker
evidence: a region with straight edges that reaches the frame is taken for a fill, and so is a solid one in a SAR image,
because speckle is never constant. Dark water has a ragged outline and is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.preprocess.pixelwise import brought, met
from somareg.preprocess.regions import Regions, blurred_regions_of, is_solid, outline_of, regions_of, straight_share
from somareg.types import BoolArray, FloatArray, Modality, Raster, Transform

OUTLINE_PX = 16  # shortest outline whose agreement is evidence
SAME_OUTLINE = 0.5  # least share of a region's outline that the other image must share to the pixel
NEAR_OUTLINE, NEAR_PX = 0.8, 64  # the same within a pixel
NAMED_SHARE = 0.05  # least share of a fill for a value to be named
COVERED = 0.9  # least share of one image's fill that must be constant in the other one as well
AWAY_PX = 7.0  # displacements of edges that measure agreement by chance
RIM_PX = 2  # values beside an outline are often blended with it
FILL_SHARE = 0.005  # least share of the image for a region to be a fill by its shape alone
TOLD_SHARE = 0.05  # least share of the image at one kept value that is worth a note
LARGE_SHARE = 0.02  # least share of a SAR image for a solid region to be a fill
LEAST_LEFT = 2000  # least pixels that can be matched
NEGLIGIBLE = 0.001  # share of an image below which its fills are ignored
STRAIGHT_SHARE = 0.8  # of an outline


@dataclass(frozen=True, eq=False)
class Fills:
    """Pixels of an image that show no ground.

    Attributes:
        mask: (H, W) True there.
        values: number of pixels of each fill value, by its text.
        kept: the same for large regions that may be ground.
    """

    mask: BoolArray
    values: dict[str, int]
    kept: dict[str, int] = field(default_factory=dict)

    @classmethod
    def none(cls, like: BoolArray) -> Fills:
        """An image of the same size without fills."""
        return cls(np.zeros(like.shape, bool), {})

    def joined(self, other: Fills) -> Fills:
        """The union of two fills of one image."""
        values = {
            value: self.values.get(value, 0) + other.values.get(value, 0) for value in (*self.values, *other.values)
        }
        counts = sum(values.values()) * NAMED_SHARE
        named = {value: count for value, count in values.items() if count >= counts}
        return Fills(self.mask | other.mask, named, {**other.kept, **self.kept})


def find_fills(
    moving: Raster,
    reference: Raster,
    places: Sequence[Transform],
    modalities: tuple[Modality, Modality],
) -> tuple[Fills, Fills]:
    """Find the valid pixels of the moving image and of the reference that show no ground.

    Args:
        moving, reference: the bands that are matched.
        places: maps, reference pixels -> moving pixels, by which a program may have drawn in both: the georeference,
            and pixel on pixel.
        modalities: of moving and reference.
    """
    fills_there, fills_here = Fills.none(moving.mask), Fills.none(reference.mask)
    for look in (regions_of, blurred_regions_of):
        away, near = moving.mask & ~fills_there.mask, reference.mask & ~fills_here.mask
        there, here = look(moving.data, away), look(reference.data, near)
        is_exact = look is regions_of
        own_here, own_there = _drawn(here, modalities[1], is_exact), _drawn(there, modalities[0], is_exact)
        for to_moving in places:
            fixed_here, fixed_there = _fixed(here, there, near, away, to_moving)
            own_here, own_there = own_here | fixed_here, own_there | fixed_there
        new_there, new_here = _fills(there, own_there, away), _fills(here, own_here, near)
        for to_moving in places:
            new_there = new_there.joined(_covering(there, new_here, away, to_moving.inverse))
            new_here = new_here.joined(_covering(here, new_there, near, to_moving))
        fills_there, fills_here = fills_there.joined(new_there), fills_here.joined(new_here)
    return fills_there, fills_here


def _covering(regions: Regions, other: Fills, mask: BoolArray, to_other: Transform) -> Fills:
    """The part of the other image's fill in regions that contain nearly all of it.

    Dark ground and a fill beside it are one region when both are about as dark.
    """
    if not regions.values or not other.mask.any():
        return Fills.none(mask)
    filled = brought(other.mask, mask.shape, to_other) & mask
    own = filled & (regions.labels > 0)
    if own.sum() < COVERED * max(filled.sum(), 1) or own.sum() < COVERED * other.mask.sum() / 2:
        return Fills.none(mask)
    counts = np.bincount(regions.labels[own], minlength=len(regions.values) + 1)
    return Fills(_with_rim(own) & mask, {regions.values[i - 1]: int(n) for i, n in enumerate(counts) if n and i})


def _with_rim(mask: BoolArray) -> BoolArray:
    side = 2 * RIM_PX + 1
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0)


def without_fills(
    moving: Raster,
    reference: Raster,
    places: Sequence[Transform],
    modalities: tuple[Modality, Modality],
    *,
    is_part: bool = False,
) -> tuple[Raster, Raster, tuple[str, ...]]:
    """Mask pixels that show no ground in the moving image and the reference, with notes.

    An image that consists almost only of fills stays as it is: the verdict then says that nothing was matched.

    Args:
        moving, reference, places, modalities: see `find_fills`.
        is_part: the images are parts of larger ones; a part may lie in a fill as a whole and is then masked.
    """
    there, here = find_fills(moving, reference, places, modalities)
    images, notes = [], []
    for image, fill, role in ((moving, there, "moving"), (reference, here, "reference")):
        left = image.mask & ~fill.mask
        if fill.mask.any() and (is_part or np.count_nonzero(left) >= LEAST_LEFT):
            image = replace(image, mask=left, band_masks=None)
            notes.append(_note(fill, role))
        notes += [
            f"{role}: {count / fill.mask.size:.0%} of the pixels hold exactly {value} and were taken for ground; if "
            f"they are no data: --{role}-nodata {value.split(',')[0]}"
            for value, count in fill.kept.items()
            if value not in fill.values
        ]
        images.append(image)
    return images[0], images[1], tuple(notes)


def _note(fill: Fills, role: str) -> str:
    ranked = sorted(fill.values, key=lambda value: -fill.values[value])
    share = fill.mask.mean()
    named = " or ".join(ranked[:3])
    return (
        f"{role}: {share:.1%} of the pixels hold {named} (or lie beside it) in shapes that are no ground: a fill, "
        f"gaps or an overlay that was not declared; left out. To declare them: --{role}-nodata "
        f"{ranked[0].split(',')[0]}, or --{role}-mask FILE"
    )


def _fixed(
    here: Regions,
    there: Regions,
    mask: BoolArray,
    away: BoolArray,
    to_moving: Transform,
) -> tuple[BoolArray, BoolArray]:
    """Regions of the reference and of the moving image (bool per label) whose outlines coincide."""
    fixed = np.zeros(len(here.values) + 1, bool), np.zeros(len(there.values) + 1, bool)
    if not (here.values or there.values) or not (here.values or not mask.all()) or not (there.values or not away.all()):
        return fixed  # without outlines in both images nothing can coincide
    inside, at = met(to_moving, mask.shape, away.shape)
    brought, lost = np.zeros(mask.shape, np.int32), np.zeros(mask.shape, bool)
    brought[inside], lost[inside] = there.labels[at], ~away[at]
    is_same_grid = mask.shape == away.shape and inside.all() and np.array_equal(at, np.nonzero(inside))
    # Invalid pixels count as well: one image may declare a fill that the other does not.
    edges_here = outline_of(here.labels) | outline_of(~mask) | outline_of(mask)
    edges_there = (outline_of(brought) | outline_of(lost) | outline_of(~lost)) & inside
    for labels, edges, result in ((here.labels, edges_there, fixed[0]), (brought, edges_here, fixed[1])):
        if is_same_grid:
            result |= _agree(labels, edges, inside, len(result), OUTLINE_PX, SAME_OUTLINE)
        # Blending with neighbours, or another pixel size, moves an outline by a pixel.
        near = cv2.dilate(edges.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        result |= _agree(labels, near, inside, len(result), NEAR_PX, NEAR_OUTLINE)
    return fixed


def _agree(
    labels: NDArray[np.int32], edges: BoolArray, inside: BoolArray, size: int, least: int, least_share: float
) -> BoolArray:
    """Regions (bool per label) of which `least_share` of the outline lies on the given edges; never one whose outline
    is shorter than `least`, or that agrees as well with shifted edges, that is by chance.
    """
    outline = outline_of(labels) & inside
    rows, columns = np.nonzero(outline)
    own = labels[rows, columns]
    length = np.bincount(own, minlength=size)

    def share(dx: int, dy: int) -> FloatArray:
        y, x = rows + dy, columns + dx
        inside = (y >= 0) & (y < edges.shape[0]) & (x >= 0) & (x < edges.shape[1])
        inside[inside] = edges[y[inside], x[inside]]
        return np.asarray(np.bincount(own, inside, minlength=size) / np.maximum(length, 1))

    at = share(0, 0)
    agree = (length >= least) & (at >= least_share)
    if not agree.any():  # as for most images
        return agree
    around = [(round(AWAY_PX * math.cos(a)), round(AWAY_PX * math.sin(a))) for a in np.arange(8) * math.pi / 4 + 0.5]
    chance = np.median([share(dx, dy) for dx, dy in around], axis=0)
    return np.asarray(agree & (at >= 1.5 * chance + 0.1))


def _drawn(regions: Regions, modality: Modality, is_exact: bool) -> BoolArray:
    """Regions (bool per label) that one image alone shows to be no ground.

    Saturated roofs and clouds have straight edges too, and dark rivers are blurred regions: so a fill must reach round
    a corner of the frame, a blurred one round two corners.
    """
    is_drawn = np.zeros(len(regions.values) + 1, bool)
    labels = regions.labels
    areas = np.bincount(labels.ravel(), minlength=len(is_drawn))
    sides = [np.isin(np.arange(len(is_drawn)), line) for line in (labels[0], labels[-1], labels[:, 0], labels[:, -1])]
    touched = np.sum(sides, axis=0)
    corners = np.sum([np.arange(len(is_drawn)) == labels[y, x] for y in (0, -1) for x in (0, -1)], axis=0)
    for label in range(1, len(is_drawn)):
        if areas[label] < FILL_SHARE * labels.size:
            continue
        own = (labels == label).astype(np.uint8)
        reaches = touched[label] >= 2 if is_exact else corners[label] >= 2
        if reaches and straight_share(own, 1.0 if is_exact else 2.5) >= STRAIGHT_SHARE:
            is_drawn[label] = True
        elif is_exact and modality == "sar" and areas[label] >= LARGE_SHARE * labels.size:
            is_drawn[label] = is_solid(own)
    return is_drawn


def _fills(regions: Regions, chosen: BoolArray, mask: BoolArray) -> Fills:
    """The chosen regions (by label) and the rim beside them."""
    own = chosen[regions.labels]
    values, kept = _by_value(regions, chosen), _by_value(regions, ~chosen)
    large = {value: count for value, count in kept.items() if count >= TOLD_SHARE * own.size}
    if sum(values.values()) < NEGLIGIBLE * own.size:
        return Fills(np.zeros(own.shape, bool), {}, large)
    return Fills(_with_rim(own) & mask, values, large)


def _by_value(regions: Regions, chosen: BoolArray) -> dict[str, int]:
    """Number of pixels of the chosen regions (by label) at each value."""
    areas = np.bincount(regions.labels.ravel(), minlength=len(chosen))
    counts: dict[str, int] = {}
    for value, area, is_chosen in zip(regions.values, areas[1:], chosen[1:], strict=True):
        counts[value] = counts.get(value, 0) + int(area) * bool(is_chosen)
    return {value: count for value, count in counts.items() if count}
