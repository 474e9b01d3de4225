"""Small pictures of the places to look at: edges of one image in colour over the other one, as aligned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.geometry import AffineTransform
from somareg.geometry.lattice import jacobian_at
from somareg.geometry.resample import footprint_of, resample
from somareg.report.previews import limits_of, picture_of, shown_values
from somareg.report.words import edges_from
from somareg.types import BoolArray, Closeup, FloatArray, Modality, Place, Raster, Transform

SIDE = 96
"""Pixels of a picture along each side."""

EDGE = (255, 61, 139)
"""Colour of edges: told apart from vegetation, soil, water and grey, also by colour-blind readers."""

_MARGIN = 12  # around a picture, so that its rim has edges like its middle
_SMOOTH_PX = {"sar": 2.0}  # against speckle
_SMOOTH_OTHER_PX = 1.2
_STRONG, _WEAK = 0.92, 0.84  # quantiles of the gradient at which edges begin, and go on
_DIMMED = 0.85


@dataclass(frozen=True, eq=False)
class Sight:
    """Both images as they were matched.

    Attributes:
        reference, moving: their pixels.
        to_moving: pixels of `reference` -> pixels of `moving`.
        to_reference: pixels of the whole reference -> pixels of `reference`.
        modalities: of moving and reference.
    """

    reference: Raster
    moving: Raster
    to_moving: Transform
    to_reference: AffineTransform
    modalities: tuple[Modality, Modality]


def make_closeups(sight: Sight, places: Sequence[Place]) -> tuple[Closeup, ...]:
    """A picture of each place; of pixels in memory, no file is read.

    Args:
        sight: both images.
        places: in pixels of the whole reference.
    """
    if not places:
        return ()
    moving, reference = (
        _Side(raster, limits_of(shown_values(raster), raster.mask, kind), kind)
        for raster, kind in zip((sight.moving, sight.reference), sight.modalities, strict=True)
    )
    step = float(np.sqrt(abs(np.linalg.det(sight.to_reference.inverse.matrix[:, :2]))))
    return tuple(Closeup(place, _picture(sight, moving, reference, place), step) for place in places)


@dataclass(frozen=True, eq=False)
class _Side:
    """One image with its black and white points."""

    raster: Raster
    limits: FloatArray
    kind: Modality

    def at(self, points: FloatArray, footprint: tuple[float, float]) -> tuple[NDArray[np.uint8], BoolArray]:
        """Its picture and mask (h, w) at its pixels (h, w, 2)."""
        data, mask = resample(
            shown_values(self.raster),
            self.raster.mask,
            points,
            kernel="bilinear",
            footprint=footprint,
            out_dtype=np.float32,
        )
        return picture_of(data, mask, self.limits), mask


def _picture(sight: Sight, moving: _Side, reference: _Side, place: Place) -> NDArray[np.uint8]:
    # Near the rim the picture moves inwards, so that it is not half empty.
    lowest, highest = SIDE // 2, np.array(sight.reference.mask.shape[::-1]) - SIDE // 2
    middle = np.rint(sight.to_reference(np.array([[place.x, place.y]])))[0]
    middle = np.where(highest > lowest, np.clip(middle, lowest, highest), middle)
    side = SIDE + 2 * _MARGIN
    y, x = np.mgrid[0:side, 0:side].astype(float) - (side // 2)
    points = np.stack([x, y], axis=-1) + middle
    there = sight.to_moving(points.reshape(-1, 2)).reshape(points.shape)
    footprint = footprint_of(jacobian_at(sight.to_moving, (float(middle[0]), float(middle[1]))))
    shown = {"moving": moving.at(there, footprint), "reference": reference.at(points, (1.0, 1.0))}
    # Speckle hides what lies beneath its edges, so SAR gives the edges; without SAR, the moving image.
    above = edges_from(*sight.modalities)
    below = "reference" if above == "moving" else "moving"
    kind = sight.modalities[above == "reference"]
    lines = edges(*shown[above], _SMOOTH_PX.get(kind, _SMOOTH_OTHER_PX)) & shown[below][1]
    base = shown[below][0]
    picture = (_DIMMED * (np.repeat(base[..., None], 3, axis=2) if base.ndim == 2 else base)).astype(np.uint8)
    picture[lines] = EDGE
    inner = slice(_MARGIN, _MARGIN + SIDE)
    return np.ascontiguousarray(picture[inner, inner])


def edges(picture: NDArray[np.uint8], mask: BoolArray, smooth_px: float) -> BoolArray:
    """Lines (h, w), one pixel wide, where a picture (h, w) or (h, w, 3) changes most.

    Args:
        picture: any image.
        mask: (h, w) True where it shows something; its rim is no edge.
        smooth_px: standard deviation of the Gaussian that goes before.
    """
    grey = picture.mean(axis=2) if picture.ndim == 3 else picture
    weight = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), smooth_px)
    smooth = cv2.GaussianBlur(np.where(mask, grey, 0).astype(np.float32), (0, 0), smooth_px)
    smooth = np.where(weight > 0.05, smooth / np.maximum(weight, 0.05), 0)
    dx, dy = (cv2.Sobel(smooth, cv2.CV_32F, *axis, ksize=3) for axis in ((1, 0), (0, 1)))
    inside = np.asarray(weight > 0.98)
    size = np.hypot(dx, dy)[inside]
    strong, weak = np.quantile(size, (_STRONG, _WEAK)) if size.size else (0.0, 0.0)
    if strong < 1e-3:
        return np.zeros(mask.shape, bool)
    unit = 1000.0 / strong  # whole numbers, fine enough
    whole = [np.clip(unit * slope, -30000, 30000).astype(np.int16) for slope in (dx, dy)]
    found = cv2.Canny(whole[0], whole[1], unit * float(weak), 1000.0, L2gradient=True)
    return np.asarray((found > 0) & inside)
