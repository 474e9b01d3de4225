"""Close-ups: edges of one image in colour over the other, as aligned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from somareg.geometry import AffineTransform
from somareg.geometry.lattice import jacobian_at
from somareg.geometry.resample import footprint_of, resample
from somareg.report.edges import EDGE, edges, smoothing_of
from somareg.report.previews import limits_of, picture_of, shown_values
from somareg.report.words import edges_from
from somareg.types import BoolArray, Closeup, FloatArray, Modality, Place, Raster, Transform

SIDE = 96
"""Pixels of a picture along each side."""

_MARGIN = 12  # margin around a picture, so that its rim has edges like its middle
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
    """Draw a picture of each place from pixels in memory.

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
        """Picture and mask (h, w) at pixels (h, w, 2) of the image."""
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
    # Near the rim the picture is shifted inwards, so that it is not half empty.
    lowest, highest = SIDE // 2, np.array(sight.reference.mask.shape[::-1]) - SIDE // 2
    middle = np.rint(sight.to_reference(np.array([[place.x, place.y]])))[0]
    middle = np.where(highest > lowest, np.clip(middle, lowest, highest), middle)
    side = SIDE + 2 * _MARGIN
    y, x = np.mgrid[0:side, 0:side].astype(float) - (side // 2)
    points = np.stack([x, y], axis=-1) + middle
    there = sight.to_moving(points.reshape(-1, 2)).reshape(points.shape)
    footprint = footprint_of(jacobian_at(sight.to_moving, (float(middle[0]), float(middle[1]))))
    images = {"moving": moving.at(there, footprint), "reference": reference.at(points, (1.0, 1.0))}
    # Speckle would hide edges drawn over it, so the edges come from SAR; without SAR, from the moving image.
    above = edges_from(*sight.modalities)
    below = "reference" if above == "moving" else "moving"
    kind = sight.modalities[above == "reference"]
    lines = edges(*images[above], smoothing_of(kind)) & images[below][1]
    base = images[below][0]
    picture = (_DIMMED * (np.repeat(base[..., None], 3, axis=2) if base.ndim == 2 else base)).astype(np.uint8)
    picture[lines] = EDGE
    inner = slice(_MARGIN, _MARGIN + SIDE)
    return np.ascontiguousarray(picture[inner, inner])
