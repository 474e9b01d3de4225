"""A map at every pixel of a block: exact for affines and fields, approximate with a checked error otherwise.

A map accepts any points. The pixels of a block form a grid, and on a grid most work is done once per row
or column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.geometry.affine import AffineTransform
from somareg.geometry.compose import ComposedTransform, compose
from somareg.geometry.field import FieldTransform
from somareg.types import FloatArray, Transform

TOLERANCE_PX = 1e-3
_STEP = 16  # pixels between nodes to begin with
_BAND = 1 << 15  # pixels at a time, so that intermediate arrays stay in the processor's cache
_Along = Sequence[NDArray[np.float64]]  # x and y, (1, w) and (h, 1) while they are a grid, else (h, w)
_Between = tuple[NDArray[np.intp], FloatArray]
_Found = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]


def at_pixels(
    transform: Transform, x: int, y: int, width: int, height: int, *, tolerance_px: float = TOLERANCE_PX
) -> tuple[FloatArray, FloatArray]:
    """Map the pixels of a block.

    Affines, and a field that is applied first (a change of pixel size may precede it), are evaluated exactly. For any
    other map the best affine is exact, and the rest is bilinear between nodes. It is checked in the middles of
    the cells, where its error is largest; nodes move closer until it agrees, or every pixel is evaluated.

    Args:
        transform: smooth where it is neither affine nor a field.
        x, y, width, height: of the block.
        tolerance_px: largest error of the approximate part.

    Returns:
        x and y, each (height, width).
    """
    left = list(transform.parts if isinstance(transform, ComposedTransform) else (transform,))
    targets = np.empty((2, height, width))
    rows = max(1, _BAND // max(width, 1))
    for top in range(0, height, rows):
        own = np.arange(y + top, y + min(top + rows, height), dtype=np.float64)
        places: _Along = np.arange(x, x + width, dtype=np.float64)[None], own[:, None]
        rest = list(left)
        while rest and (further := _exact(rest[-1], places)) is not None:
            places = further
            rest.pop()
        targets[0, top : top + rows], targets[1, top : top + rows] = places
    if rest:
        targets = _by_nodes(compose(*rest), targets, tolerance_px)
    return targets[0], targets[1]


def _exact(part: Transform, places: _Along) -> _Along | None:
    """Apply one part of a map exactly; None when that needs every pixel."""
    x, y = places
    if isinstance(part, AffineTransform):
        (a, b, c), (d, e, f) = part.matrix.tolist()
        moved_x = a * x + c if b == 0 else a * x + (b * y + c)
        moved_y = e * y + f if d == 0 else d * x + (e * y + f)
        return moved_x, moved_y
    is_grid = x.shape[0] == 1 and y.shape[1] == 1
    if isinstance(part, FieldTransform) and is_grid:
        dx, dy = _field_on_grid(part, x[0], y[:, 0])
        return x + dx, y + dy
    return None


def _field_on_grid(field: FieldTransform, x: FloatArray, y: FloatArray) -> NDArray[np.float64]:
    """Displacement (2, len(y), len(x)) at x and y."""
    _, rows, columns = field.array.shape
    return _bilinear(
        field.array,
        _between((x - field.origin[0]) / field.step[0], columns),
        _between((y - field.origin[1]) / field.step[1], rows),
    )


def _between(at: FloatArray, count: int) -> _Between:
    """The node before each position and the fraction to the next, clamped at the ends."""
    at = np.clip(at, 0, count - 1)
    first = np.minimum(at.astype(np.intp), max(count - 2, 0))
    return first, at - first


def _bilinear(nodes: NDArray[np.float64], across: _Between, down: _Between) -> NDArray[np.float64]:
    """Interpolate nodes (k, h, w) to (k, rows, columns): along x in the rows of nodes in use, then along y."""
    (first_x, fx), (first_y, fy) = across, down
    top = int(first_y.min())
    nodes = nodes[:, top : int(first_y.max()) + 2]
    along = nodes[..., first_x] * (1 - fx) + nodes[..., np.minimum(first_x + 1, nodes.shape[2] - 1)] * fx
    first_y = first_y - top
    result: NDArray[np.float64] = along[:, first_y] * (1 - fy)[:, None]
    result += along[:, np.minimum(first_y + 1, along.shape[1] - 1)] * fy[:, None]
    return result


def _by_nodes(transform: Transform, places: NDArray[np.float64], tolerance_px: float) -> NDArray[np.float64]:
    """Apply a map to places (2, h, w) by evaluating it at nodes, or at every pixel when nodes are not enough."""
    (x, y), shape = places, places.shape[1:]

    def asked(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> tuple[FloatArray, NDArray[np.float64]]:
        """Points (N, 2) at rows and columns, and their images under the map."""
        at = np.ix_(rows, columns)
        points = np.stack([x[at].ravel(), y[at].ravel()], axis=-1)
        return points, np.asarray(transform(points), np.float64)

    step = _STEP
    while step >= 2 and min(shape) > 1 and not _is_rough(transform):
        rows, columns = (_nodes(n, step) for n in shape)
        points, values = asked(rows, columns)
        affine = _best_affine(points, values)
        if affine is None:
            break
        rest = (values - affine(points)).T.reshape(2, len(rows), len(columns))

        def between(down: NDArray[np.intp], across: NDArray[np.intp], parts: _Found = (rows, columns, rest)) -> Any:
            return _bilinear(parts[2], _among(parts[1], across), _among(parts[0], down))

        middle_rows, middle_columns = ((nodes[:-1] + nodes[1:]) // 2 for nodes in (rows, columns))
        middles, expected = asked(middle_rows, middle_columns)
        apart = affine(middles) + between(middle_rows, middle_columns).reshape(2, -1).T - expected
        if float(np.abs(apart).max()) <= tolerance_px:
            targets = between(np.arange(shape[0]), np.arange(shape[1]))
            for axis, (a, b, c) in enumerate(affine.matrix.tolist()):
                targets[axis] += a * x + (b * y + c)
            return np.asarray(targets)
        step //= 2
    points = np.stack([x.ravel(), y.ravel()], axis=-1)
    return np.asarray(transform(points), np.float64).T.reshape(2, *shape)


def _is_rough(transform: Transform) -> bool:
    """Whether a map has nodes of its own, which may be denser than these."""
    parts = transform.parts if isinstance(transform, ComposedTransform) else (transform,)
    return any(isinstance(part, FieldTransform) for part in parts)


def _nodes(length: int, step: int) -> NDArray[np.intp]:
    """Every `step`-th pixel and the last."""
    return np.unique(np.append(np.arange(0, length - 1, step), length - 1))


def _among(nodes: NDArray[np.intp], pixels: NDArray[np.intp]) -> _Between:
    """The node before each pixel and the fraction to the next."""
    first = np.clip(np.searchsorted(nodes, pixels, side="right") - 1, 0, len(nodes) - 2)
    return first, (pixels - nodes[first]) / (nodes[first + 1] - nodes[first])


def _best_affine(points: FloatArray, values: FloatArray) -> AffineTransform | None:
    """Least-squares affine; None when it is singular or the map is undefined somewhere."""
    if not np.isfinite(values).all():
        return None
    design = np.column_stack([points, np.ones(len(points))])
    solution = np.linalg.lstsq(design, values, rcond=None)[0]
    return AffineTransform(np.asarray(solution.T, np.float64)) if abs(np.linalg.det(solution[:2])) > 1e-9 else None
