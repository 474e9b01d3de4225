"""Data of the drawings of a result: arrows, expected error, local displacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from somareg.report.words import nice
from somareg.types import BoolArray, Cell, FloatArray, Result

MAX_MAP_CELLS = 400
"""Longest side of a map in cells: a scene's field is thinned to it before anything is computed."""
ARROWS_ACROSS = 16
NOTHING_PX = 0.02
"""Displacements below this are reported as "none": they are far below the accuracy of any pair."""
_LEAST_TOP_PX = 0.1  # quantile at the end of a colour scale


@dataclass(frozen=True, slots=True, eq=False)
class Arrows:
    """Displacement on a lattice.

    Attributes:
        start: (N, 2) reference pixels.
        vectors: (N, 2) displacement, reference pixels.
        seen: (N,) whether a match is near.
        factor: round factor by which arrows are drawn longer.
        key_px: the round length of a sample arrow.
    """

    start: FloatArray
    vectors: FloatArray
    seen: BoolArray
    factor: float
    key_px: float


def arrows_of(result: Result) -> Arrows | None:
    """The arrows of a result; None without a displacement."""
    left, top, width, height = result.previews.area
    spacing = max(width, height) / ARROWS_ACROSS
    x, y = (_centres(size, spacing) + round(start) for size, start in ((width, left), (height, top)))
    rows, columns = np.meshgrid(y, x, indexing="ij")
    down, right = cells_at(result, rows, columns)
    vectors = result.displacement.array[:, down, right].reshape(2, -1).T.astype(float)
    long = float(np.percentile(np.hypot(*vectors.T), 95))
    if long < NOTHING_PX:
        return None
    return Arrows(
        start=np.column_stack([columns.ravel(), rows.ravel()]).astype(float),
        vectors=vectors,
        seen=np.isfinite(result.displacement.sigma[down, right]).ravel(),
        factor=nice(1.1 * spacing / long) or 1.0,
        key_px=nice(long, up=True),
    )


def known_error(result: Result) -> FloatArray:
    """The expected error (h, w) on the area of the pictures, thinned; NaN where unknown."""
    left, top, width, height = (round(value) for value in result.previews.area)
    rows, columns = cells_at(result, np.array([top, top + height - 1]), np.array([left, left + width - 1]))
    values = result.displacement.sigma[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1]
    step = max(1, -(-max(values.shape) // MAX_MAP_CELLS))
    return np.asarray(values[::step, ::step], float)


def local_length(result: Result) -> FloatArray:
    """Length (h, w) of the displacement beyond the global affine on the area of the pictures, thinned."""
    left, top, width, height = result.previews.area
    step = max(1, -(-round(max(width, height)) // MAX_MAP_CELLS))
    rows, columns = np.mgrid[top : top + height : step, left : left + width : step]
    xy = np.column_stack([columns.ravel(), rows.ravel()]).astype(float)
    return np.asarray(np.hypot(*(result.correction(xy) - result.affine(xy)).T).reshape(rows.shape))


def scale_top(values: FloatArray) -> float:
    """The end of a colour scale: the largest value except outliers."""
    finite = values[np.isfinite(values)]
    return max(float(np.percentile(finite, 99.5)), _LEAST_TOP_PX) if finite.size else 1.0


def error_digits(cells: Sequence[Cell]) -> int:
    """Decimals needed to distinguish the errors of cells."""
    most = max((cell.error_px for cell in cells), default=0.0)
    return 2 if most < 9.995 else 1 if most < 99.95 else 0


def cells_at(result: Result, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> tuple[NDArray[np.intp], ...]:
    """Rows and columns of the displacement's array at reference pixels; a large scene has fewer nodes than pixels."""
    grid, (height, width) = result.reference.grid, result.displacement.grid.shape
    down, across = np.minimum(rows, grid.height - 1), np.minimum(columns, grid.width - 1)
    return down * height // grid.height, across * width // grid.width


def pixel_m_of(result: Result) -> tuple[float, float] | None:
    """Edges of a reference pixel, metres; None without a georeference."""
    return result.quality.metres.pixel_m if result.quality.metres else None


def _centres(size: float, spacing: float) -> NDArray[np.intp]:
    """Pixel positions of evenly spread cells, at least one."""
    count = max(1, round(size / spacing))
    return ((np.arange(count) + 0.5) * size / count).astype(np.intp)
