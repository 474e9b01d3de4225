"""The figures that the verdict looks at, in reference pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from somareg.geometry import AffineTransform, FieldTransform
from somareg.matching.engine import Alignment
from somareg.quality.calibration import Calibration
from somareg.types import BoolArray, FloatArray, Quality, TiePoints


@dataclass(frozen=True, eq=False)
class Measured:
    """What `measure` is given, all in reference pixels.

    Attributes:
        alignment: of the engine (its pixels are `factor` reference pixels wide).
        factor: reference pixels per working pixel.
        affine, field: global and local part of the correction.
        expected: the correction expected before matching (identity when georeferenced or of equal size).
        tie_points: all windows.
        covered: (H, W) reference pixels whose moving pixel is valid.
        metres_per_pixel: None without a georeference.
        shape: (H, W) of the reference.
    """

    alignment: Alignment
    factor: int
    affine: AffineTransform
    field: FieldTransform | None
    expected: AffineTransform
    tie_points: TiePoints
    covered: BoolArray
    metres_per_pixel: float | None
    shape: tuple[int, int]


def measure(given: Measured, calibration: Calibration) -> Quality:
    """Every figure of `Quality`."""
    evidence, ties = given.alignment.evidence, given.tie_points
    height, width = given.shape
    centre = ((width - 1) / 2, (height - 1) / 2)
    relative = given.expected.inverse.after(given.affine)
    parameters = relative.parameters(centre)
    scale_x, scale_y = parameters["scale"]
    field = given.field
    local = 0.0 if field is None else float(np.sqrt((field.array**2).sum(0).mean()))
    folding = 0.0 if field is None else float((field.jacobian_determinant() <= 0).mean())
    inlier = ties.inlier
    predicted = calibration.predict_rmse(given.alignment, given.factor)
    return Quality(
        n_points=len(ties),
        inlier_ratio=float(inlier.mean()) if len(ties) else 0.0,
        coverage=evidence.coverage,
        residual_median_px=float(np.median(ties.residual_px[inlier])) if inlier.any() else math.nan,
        peak_zscore=evidence.zscore,
        peak_sharpness=evidence.sharpness,
        hit_ratio=evidence.hit_ratio,
        forward_backward_px=given.alignment.forward_backward_px * given.factor,
        split_half_px=given.alignment.split_half_px * given.factor,
        similarity_before=evidence.correlation_before,
        similarity_after=evidence.correlation,
        overlap=float(given.covered.mean()),
        folding=folding,
        shift_before_px=rms_over(relative, given.shape, local),
        rotation_deg=parameters["rotation_deg"],
        scale=math.sqrt(abs(scale_x * scale_y)),
        shear_deg=parameters["shear_deg"],
        shift_px=parameters["shift"],
        local_rms_px=local,
        predicted_rmse_px=predicted,
        predicted_ce90_px=predicted * calibration.ce90_per_rmse,
        metres_per_pixel=given.metres_per_pixel,
    )


def rms_over(transform: AffineTransform, shape: tuple[int, int], local: float) -> float:
    """RMS displacement of an affine over the image, with the local part added in quadrature."""
    y, x = np.mgrid[0 : shape[0] - 1 : 9j, 0 : shape[1] - 1 : 9j]
    points: FloatArray = np.stack([x.ravel(), y.ravel()], axis=-1)
    return float(math.hypot(math.sqrt(((transform(points) - points) ** 2).sum(1).mean()), local))
