"""Data for the fit of `quality.error_map.LocalModel`: errors in the cells of pairs with known truth."""

from __future__ import annotations

import numpy as np

from somareg.geometry import compose
from somareg.geometry.field import LatticeValues
from somareg.geometry.lattice import pixel_centres
from somareg.lab.evaluate.metrics import point_errors
from somareg.matching.engine import Alignment
from somareg.types import FloatArray

LEAST_SHARE = 0.25  # least share of a cell's pixels for an error


def cells(
    alignment: Alignment,
    truth: FloatArray,
    shape: tuple[int, int],
    across: int = 6,
    *,
    moving_shape: tuple[int, int] | None = None,
) -> list[list[float]]:
    """Errors and their predictors, cell by cell.

    Args:
        alignment: an estimate, in the pixels of the pair.
        truth: (2, 3) affine, reference to moving pixel centres, or (2, H, W) displacement.
        shape: (H, W) of the reference.
        across: cells along each side of the reference.
        moving_shape: of the moving image; None: the same.

    Returns:
        For each cell of which the moving image shows a quarter or more: [RMS error in pixels, mean coverage 0-1,
        RMS spread in pixels, RMS distance from the centre in half-diagonals], over its pixels that the moving image
        shows. Empty for a failure and without a local flow, whose windows give the coverage.
    """
    if alignment.failure or alignment.flow is None:
        return []
    height, width = shape
    points = pixel_centres(0, 0, width, height)
    flow = alignment.flow
    moved = compose(alignment.affine, flow.field)(points) - points
    displacement = moved.T.reshape(2, height, width).astype(np.float32)
    error = point_errors(displacement, truth, shape, moving_shape=moving_shape).ravel()
    field = flow.field
    coverage, spread = (
        LatticeValues(values, field.origin, field.step)(points) for values in (flow.coverage, flow.sigma_px)
    )
    centre = np.array([width - 1, height - 1]) / 2
    squared = np.square((points - centre) / np.hypot(*centre)).sum(1)
    cell = (points[:, 1] * across / height).astype(int) * across + (points[:, 0] * across / width).astype(int)
    finite = np.isfinite(error)
    whole, count = (np.bincount(cell[selection], minlength=across**2) for selection in (slice(None), finite))
    enough = count >= np.maximum(LEAST_SHARE * whole, 1)
    mean = [
        np.bincount(cell[finite], values[finite], across**2)[enough] / count[enough]
        for values in (error**2, coverage, spread**2, squared)
    ]
    columns = (np.sqrt(mean[0]), mean[1], np.sqrt(mean[2]), np.sqrt(mean[3]))
    return [[float(value) for value in row] for row in zip(*columns, strict=True)]
