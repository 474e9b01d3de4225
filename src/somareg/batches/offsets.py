"""The offset of a pair, in few enough figures to store for every pair of an archive."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from somareg.io.metric import ground_metric
from somareg.types import Assessment


@dataclass(frozen=True)
class Offset:
    """Offset of a moving image relative to the reference.

    Attributes:
        dx_px, dy_px: mean displacement, reference pixels, to the right and down, over
            the common ground.
        sigma_px: of the offset per axis: the calibrated expected error of the estimate (RMS length), divided between
            two axes. It is an upper bound, because that error includes local ones, which a mean averages out.
        rms_px: RMS of the whole displacement, with rotation, scale and the local part.
        local_rms_px: RMS of the displacement beyond the global affine.
        rotation_deg, scale: of the global affine.
        dx_m, dy_m, sigma_m, rms_m: the same in metres, along the edges of a pixel; None without a CRS.
    """

    dx_px: float
    dy_px: float
    sigma_px: float
    rms_px: float
    local_rms_px: float
    rotation_deg: float
    scale: float
    dx_m: float | None = None
    dy_m: float | None = None
    sigma_m: float | None = None
    rms_m: float | None = None


def offset_of(assessment: Assessment) -> Offset | None:
    """The offset of a pair; None when the verdict on the measurement is no-go."""
    result, (dx, dy) = assessment.result, assessment.offset_px
    if result.verdict.decision == "no-go":
        return None
    quality = result.quality
    sigma = quality.predicted_rmse_px / math.sqrt(2.0)
    offset = Offset(
        dx_px=dx,
        dy_px=dy,
        sigma_px=sigma,
        rms_px=assessment.misalignment_rmse_px,
        local_rms_px=quality.local_rms_px,
        rotation_deg=quality.rotation_deg,
        scale=quality.scale,
    )
    left, top, width, height = result.previews.area
    middle = np.array([[left + (width - 1) / 2, top + (height - 1) / 2]])
    metric = ground_metric(result.reference.grid, middle)
    if metric is None:
        return offset
    right, down = (metric.matrices[0] @ (dx, dy)).tolist()
    on_ground = {"dx_m": right, "dy_m": down, "sigma_m": sigma * metric.per_pixel}
    return Offset(**{**vars(offset), **on_ground, "rms_m": assessment.misalignment_rmse_m})
