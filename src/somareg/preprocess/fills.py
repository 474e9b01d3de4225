"""Regions of one exact value that are no ground: undeclared fills, gaps, frames and overlays.

Ground that two sensors see has no outline that both draw to the very pixel. Where regions of one value have the same
outline in both images, on the pixel grid or on the georeference, the outline was drawn by a program: a cut to one area
of interest, gaps of a scanner, a graticule. Matching such outlines finds the pixel grid and not the ground. One image
alone tells less: a region with straight edges that reaches the frame is taken for a fill, and so is a solid one in a
SAR image, whose speckle never rests at a value. Dark water, which is ragged, is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.geometry import AffineTransform
from somareg.preprocess.regions import Regions, blurred_regions_of, is_solid, outline_of, regions_of, straight_share
from somareg.preprocess.rulings import without_rulings
from somareg.types import BoolArray, FloatArray, Modality, Raster, Transform

OUTLINE_PX = 16  # length of the shortest outline whose agreement says anything
SAME_OUTLINE = 0.5  # share of a region's outline that the other image must draw as well, to the pixel
NEAR_OUTLINE, NEAR_PX = 0.8, 64  # the same within a pixel
NAMED_SHARE = 0.05  # of a fill that a value must hold to be named
COVERED = 0.9  # share of one image's fill that rests at a value in the other one as well
AWAY_PX = 7.0  # that edges are moved to see what agrees by chance
RIM_PX = 2  # values beside an outline are often blended with it
FILL_SHARE = 0.005  # of the image that a region must hold to be a fill by its shape alone
TOLD_SHARE = 0.05  # of the image that holds one value and is kept, from which that is told
LARGE_SHARE = 0.02  # the same for a solid one in a SAR image
LEAST_LEFT = 2000  # pixels, fewer than which cannot be matched
NEGLIGIBLE = 0.001  # share of an image that may stay in it without a word
STRAIGHT_SHARE = 0.8  # of an outline


@dataclass(frozen=True, eq=False)
class Fills:
    """What is no ground in an image.

    Attributes:
        mask: (H, W) True there.
        values: how many pixels hold each value that counts, by its text.
        kept: the same of large regions that may be ground.
    """

    mask: BoolArray
    values: dict[str, int]
    kept: dict[str, int] = field(default_factory=dict)

    @classmethod
    def none(cls, like: BoolArray) -> Fills:
        """Of an image of the same size that has none."""
        return cls(np.zeros(like.shape, bool), {})

    def joined(self, other: Fills) -> Fills:
        """Both."""
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
    """What is no ground in the moving image and in the reference, of what their masks call valid.

    Args:
        moving, reference: the bands that are matched.
        places: maps, reference pixels -> moving pixels, on which a program may have drawn in both: the georeference,
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
    """Of regions that hold nearly all of the other image's fill, the part of it.

    Dark ground and a fill beside it are one region when both are about as dark.
    """
    if not regions.values or not other.mask.any():
        return Fills.none(mask)
    filled = _brought(other.mask, mask.shape, to_other) & mask
    own = filled & (regions.labels > 0)
    if own.sum() < COVERED * max(filled.sum(), 1) or own.sum() < COVERED * other.mask.sum() / 2:
        return Fills.none(mask)
    counts = np.bincount(regions.labels[own], minlength=len(regions.values) + 1)
    return Fills(_with_rim(own) & mask, {regions.values[i - 1]: int(n) for i, n in enumerate(counts) if n and i})


def _brought(mask: BoolArray, shape: tuple[int, ...], to_other: Transform) -> BoolArray:
    """Another image's mask on this one's pixels, False beyond it; `to_other` leads from these to those."""
    inside, at = _met(to_other, shape, mask.shape)
    out = np.zeros(shape[:2], bool)
    out[inside] = mask[at]
    return out


def _met(
    to_other: Transform, shape: tuple[int, ...], other: tuple[int, ...]
) -> tuple[BoolArray, tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Which pixels (H, W) of a shape fall on another image of shape `other`, and on which of its rows and columns."""
    height, width = shape[:2]
    if isinstance(to_other, AffineTransform) and not (to_other.matrix[0, 1] or to_other.matrix[1, 0]):
        # Columns stay columns and rows stay rows: one line of each tells all.
        line = np.arange(max(height, width), dtype=float)
        x, y = _nearest(to_other(np.stack([line, line], axis=-1)))
        x, y = np.broadcast_arrays(x[None, :width], y[:height, None])
    else:
        rows, columns = np.indices((height, width), dtype=float)
        x, y = _nearest(to_other(np.stack([columns.ravel(), rows.ravel()], axis=-1))).reshape(2, height, width)
    inside = np.asarray((x >= 0) & (x < other[1]) & (y >= 0) & (y < other[0]))
    return inside, (y[inside], x[inside])


def _nearest(points: FloatArray) -> NDArray[np.intp]:
    """(2, N) columns and rows of points (N, 2); -1 of what leads nowhere."""
    return np.rint(np.nan_to_num(points, nan=-1.0, posinf=-1.0, neginf=-1.0)).astype(np.intp).T


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
    """Moving and reference whose masks leave out what is no ground, and notes that say so.

    An image that holds hardly anything else stays as it is: the verdict says that nothing was found in it.

    Args:
        moving, reference, places, modalities: see `find_fills`.
        is_part: of larger images, which may lie in a fill as a whole; it is left out then.
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
    moving, reference = images
    moving, reference, ruled = without_rulings(moving, reference, places)
    return moving, reference, (*notes, *ruled)


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
    """Which regions of the reference and of the moving image (by label, 0 for none) both images draw at one place."""
    fixed = np.zeros(len(here.values) + 1, bool), np.zeros(len(there.values) + 1, bool)
    if not (here.values or there.values) or not (here.values or not mask.all()) or not (there.values or not away.all()):
        return fixed  # outlines of one image alone meet nothing
    inside, at = _met(to_moving, mask.shape, away.shape)
    brought, lost = np.zeros(mask.shape, np.int32), np.zeros(mask.shape, bool)
    brought[inside], lost[inside] = there.labels[at], ~away[at]
    is_same_grid = mask.shape == away.shape and inside.all() and np.array_equal(at, np.nonzero(inside))
    # What is not valid counts as well: one image may declare what the other does not.
    edges_here = outline_of(here.labels) | outline_of(~mask) | outline_of(mask)
    edges_there = (outline_of(brought) | outline_of(lost) | outline_of(~lost)) & inside
    for labels, edges, result in ((here.labels, edges_there, fixed[0]), (brought, edges_here, fixed[1])):
        if is_same_grid:
            result |= _agreeing(labels, edges, inside, len(result), OUTLINE_PX) >= SAME_OUTLINE
        # Blended with what lies beside it, or on pixels of another size, an outline moves by a pixel.
        near = cv2.dilate(edges.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        result |= _agreeing(labels, near, inside, len(result), NEAR_PX) >= NEAR_OUTLINE
    return fixed


def _agreeing(labels: NDArray[np.int32], edges: BoolArray, inside: BoolArray, size: int, least: int) -> FloatArray:
    """Share of the outline of each region (by label) that lies on given edges, 0-1; 0 where the outline is shorter than
    `least` and where it does so by chance, as when the edges are moved away.
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
    return np.where((length >= least) & (at >= 1.5 * chance + 0.1), at, 0.0)


def _drawn(regions: Regions, modality: Modality, is_exact: bool) -> BoolArray:
    """Which regions (by label) one image alone shows to be no ground.

    Roofs and clouds that saturate have straight edges too, and dark rivers are blurred ones: a fill reaches round a
    corner of the frame, a blurred one round two.
    """
    drawn = np.zeros(len(regions.values) + 1, bool)
    labels = regions.labels
    areas = np.bincount(labels.ravel(), minlength=len(drawn))
    sides = [np.isin(np.arange(len(drawn)), line) for line in (labels[0], labels[-1], labels[:, 0], labels[:, -1])]
    touched = np.sum(sides, axis=0)
    corners = np.sum([np.arange(len(drawn)) == labels[y, x] for y in (0, -1) for x in (0, -1)], axis=0)
    for label in range(1, len(drawn)):
        if areas[label] < FILL_SHARE * labels.size:
            continue
        own = (labels == label).astype(np.uint8)
        reaches = touched[label] >= 2 if is_exact else corners[label] >= 2
        if reaches and straight_share(own, 1.0 if is_exact else 2.5) >= STRAIGHT_SHARE:
            drawn[label] = True
        elif is_exact and modality == "sar" and areas[label] >= LARGE_SHARE * labels.size:
            drawn[label] = is_solid(own)
    return drawn


def _fills(regions: Regions, chosen: BoolArray, mask: BoolArray) -> Fills:
    """The chosen regions (by label) and the rim beside them."""
    own = chosen[regions.labels]
    values, kept = _by_value(regions, chosen), _by_value(regions, ~chosen)
    large = {value: count for value, count in kept.items() if count >= TOLD_SHARE * own.size}
    if sum(values.values()) < NEGLIGIBLE * own.size:
        return Fills(np.zeros(own.shape, bool), {}, large)
    return Fills(_with_rim(own) & mask, values, large)


def _by_value(regions: Regions, chosen: BoolArray) -> dict[str, int]:
    """How many pixels of the chosen regions (by label) hold each value."""
    areas = np.bincount(regions.labels.ravel(), minlength=len(chosen))
    counts: dict[str, int] = {}
    for value, area, is_chosen in zip(regions.values, areas[1:], chosen[1:], strict=True):
        counts[value] = counts.get(value, 0) + int(area) * bool(is_chosen)
    return {value: count for value, count in counts.items() if count}
