"""The figures behind the verdict, in reference pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from somareg.geometry import AffineTransform, FieldTransform
from somareg.quality.metres import ACROSS, lattice_over, metres_of, residuals_of
from somareg.quality.places import Places, worst_cell, worst_place
from somareg.quality.support import Support
from somareg.types import FloatArray, Grid, Quality, TiePoints


@dataclass(frozen=True, eq=False)
class Measured:
    """The input of `measure`, all in reference pixels.

    Attributes:
        affine, field: global and local part of the correction.
        expected: the correction expected before matching (identity when georeferenced or of equal size).
        tie_points: all of them.
        support: by the images.
        overlap: share of the smaller image that is common ground, 0-1.
        area: (left, top, width, height) of the reference's part of the common ground.
        reference: grid of these pixels.
        places: the error map.
    """

    affine: AffineTransform
    field: FieldTransform | None
    expected: AffineTransform
    tie_points: TiePoints
    support: Support
    overlap: float
    area: tuple[float, float, float, float]
    reference: Grid
    places: Places


def measure(measured: Measured) -> Quality:
    """Compute every figure of `Quality`."""
    support, ties = measured.support, measured.tie_points
    left, top, width, height = measured.area
    relative = measured.expected.inverse.after(measured.affine)
    parameters = relative.parameters((left + (width - 1) / 2, top + (height - 1) / 2))
    scale_x, scale_y = parameters["scale"]
    field = measured.field
    local = 0.0 if field is None else float(np.sqrt((field.array**2).sum(0).mean()))
    folding = 0.0 if field is None else float((field.jacobian_determinant() <= 0).mean())
    inlier = ties.inlier
    lattice = lattice_over(measured.area, ACROSS)
    # The whole displacement: a local part may add to the global one or cancel it.
    displacement = relative(field(lattice) if field else lattice) - lattice
    residuals = residuals_of(ties, measured.affine, field)
    cells = measured.places.cells(measured.reference)
    worst = worst_cell(cells)
    quality = Quality(
        n_points=len(ties),
        inlier_ratio=float(inlier.mean()) if len(ties) else 0.0,
        coverage=support.coverage,
        residual_median_px=float(np.median(ties.residual_px[inlier])) if inlier.any() else math.nan,
        peak_zscore=support.zscore,
        peak_sharpness=support.sharpness,
        hit_ratio=support.hit_ratio,
        forward_backward_px=support.forward_backward_px,
        split_half_px=support.split_half_px,
        similarity_before=support.before,
        similarity_after=support.after,
        overlap=measured.overlap,
        folding=folding,
        shift_before_px=math.sqrt(float((displacement**2).sum(1).mean())),
        rotation_deg=parameters["rotation_deg"],
        scale=math.sqrt(abs(scale_x * scale_y)),
        shear_deg=parameters["shear_deg"],
        shift_px=parameters["shift"],
        local_rms_px=local,
        predicted_rmse_px=support.predicted_px,
        predicted_ce90_px=support.predicted_px * support.ce90_per_rmse,
        bias_px=_per_axis(residuals[1].mean(0) if len(residuals[1]) else None),
        sigma_px=_per_axis(residuals[1].std(0) if len(residuals[1]) else None),
        unseen_share=measured.places.unseen_share,
        worst_px=worst.error_px if worst else math.nan,
        worst_place=worst_place(cells, measured.reference),
        cells=cells,
    )
    metres = metres_of(quality, measured.reference, (lattice, displacement), measured.area, field, residuals)
    return replace(quality, metres=metres)


def _per_axis(values: FloatArray | None) -> tuple[float, float]:
    return (math.nan, math.nan) if values is None else (float(values[0]), float(values[1]))
