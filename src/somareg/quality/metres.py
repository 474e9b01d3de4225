"""Lengths of `Quality` in metres on the ground."""

from __future__ import annotations

import math

import numpy as np

from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.io.metric import ground_metric
from somareg.quality.places import worst_cell
from somareg.types import FloatArray, Grid, GroundMetric, Metres, Quality, TiePoints

ACROSS = 33  # places along each side of the area at which a displacement is sampled


def metres_of(
    quality: Quality,
    reference: Grid,
    steps: tuple[FloatArray, FloatArray],
    area: tuple[float, float, float, float],
    field: FieldTransform | None,
    residuals: tuple[FloatArray, FloatArray],
) -> Metres | None:
    """Every length of `Quality` in metres; None without a CRS.

    Args:
        quality: in pixels.
        reference: grid whose pixels these are.
        steps: places (N, 2) and the whole displacement (N, 2) there, global and local.
        area: (left, top, width, height) of the reference's part of the common ground.
        field: the local displacement.
        residuals: places (M, 2) of the inliers and their residual vectors (M, 2) to the transform.
    """
    places, displacements = steps
    metric = ground_metric(reference, places)
    if metric is None:
        return None
    local = quality.local_rms_px * _stretch(reference, area, field, metric)
    lengths = metric.lengths(displacements)
    errors = _lengths(reference, *residuals)
    isotropic, edges = metric.per_pixel, metric.pixel_m
    worst = worst_cell(quality.cells)
    return Metres(
        pixel_m=edges,
        shift_before_m=float(np.sqrt(np.nanmean(lengths**2))),
        shift_m=(quality.shift_px[0] * edges[0], quality.shift_px[1] * edges[1]),
        local_rms_m=local,
        residual_median_m=float(np.median(errors)) if len(errors) else math.nan,
        forward_backward_m=quality.forward_backward_px * isotropic,
        split_half_m=quality.split_half_px * isotropic,
        predicted_rmse_m=quality.predicted_rmse_px * isotropic,
        predicted_ce90_m=metric.circle_m(quality.predicted_ce90_px),
        bias_m=(quality.bias_px[0] * edges[0], quality.bias_px[1] * edges[1]),
        sigma_m=(quality.sigma_px[0] * edges[0], quality.sigma_px[1] * edges[1]),
        worst_m=math.nan if worst is None or worst.error_m is None else worst.error_m,
    )


def residuals_of(
    ties: TiePoints, affine: AffineTransform, field: FieldTransform | None
) -> tuple[FloatArray, FloatArray]:
    """Places (M, 2) of the inliers and their residual vectors (M, 2) to the correction, pixels."""
    correction = compose(affine, field) if field else affine
    here = ties.reference_xy[ties.inlier]
    return here, here + ties.displacement[ties.inlier] - correction(here)


def lattice_over(area: tuple[float, float, float, float], across: int) -> FloatArray:
    """Pixel centres (across * across, 2), evenly over an area (left, top, width, height)."""
    left, top, width, height = area
    x, y = np.linspace(left, left + width - 1, across), np.linspace(top, top + height - 1, across)
    columns, rows = np.meshgrid(x, y)
    return np.stack([columns.ravel(), rows.ravel()], axis=-1)


def _stretch(
    reference: Grid, area: tuple[float, float, float, float], field: FieldTransform | None, metric: GroundMetric
) -> float:
    """Metres per pixel of a local displacement, averaged over its directions."""
    if field is None:
        return metric.per_pixel
    places = lattice_over(area, ACROSS)
    steps = field(places) - places
    length = _lengths(reference, places, steps)
    pixels = float(np.square(steps).sum())
    return float(np.sqrt(np.square(length).sum() / pixels)) if pixels > 0 else metric.per_pixel


def _lengths(reference: Grid, places: FloatArray, steps: FloatArray) -> FloatArray:
    """Metres of steps (N, 2) at places (N, 2); places without a metric are left out."""
    metric = ground_metric(reference, places) if len(places) else None
    if metric is None:
        return np.zeros(0)
    lengths = metric.lengths(steps)
    return lengths[np.isfinite(lengths)]
