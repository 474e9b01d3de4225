"""Fast evaluation of slow, smooth maps: exact on a lattice, bilinear in between, checked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from somareg.geometry.affine import AffineTransform
from somareg.geometry.field import FieldTransform
from somareg.types import FloatArray, Transform

PointMap = Callable[[FloatArray], FloatArray]

_MOST_NODES = 1_200_000  # about 200 MB while they are fitted


def pixel_centres(x: int, y: int, width: int, height: int) -> FloatArray:
    """(height * width, 2) pixel-centre coordinates of a block, row by row."""
    columns, rows = np.meshgrid(np.arange(x, x + width, dtype=float), np.arange(y, y + height, dtype=float))
    return np.stack([columns.ravel(), rows.ravel()], axis=-1)


def jacobian_at(transform: PointMap, xy: tuple[float, float], step: float = 1.0) -> FloatArray:
    """2x2 Jacobian of a map at a point, by central differences over `step` pixels each way."""
    shifts = step * np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    right, left, below, above = transform(np.asarray(xy, float) + shifts)
    return np.stack([(right - left) / (2 * step), (below - above) / (2 * step)], axis=-1)


def jacobian_between(to_moving: Transform, reference: tuple[int, int], moving: tuple[int, int]) -> FloatArray:
    """2x2 Jacobian of a map from reference to moving pixels, where both images show the same ground.

    It is taken at the centre of the moving image, or of the reference when only that one lies in the other image: far
    away a projection may be undefined or quite different.

    Args:
        to_moving: the map.
        reference, moving: (height, width) of the images.

    Returns:
        The Jacobian; NaN when the map is undefined at both centres.
    """
    here, there = (np.array([[(width - 1) / 2, (height - 1) / 2]]) for height, width in (reference, moving))
    centre_here = to_moving.inverse(there)  # of the moving image, on the reference
    is_common = _inside(centre_here, reference), _inside(to_moving(here), moving)
    places = (here, centre_here) if is_common == (False, True) else (centre_here, here)
    both = [jacobian_at(to_moving, (float(place[0, 0]), float(place[0, 1]))) for place in places]
    return both[0] if np.isfinite(both[0]).all() else both[1]


def _inside(xy: FloatArray, shape: tuple[int, int]) -> bool:
    """Whether a point (1, 2) lies in an image (height, width)."""
    return bool(((xy >= -0.5) & (xy < np.array(shape[::-1]) - 0.5)).all())


def on_lattice(
    transform: Transform,
    bounds: tuple[float, float, float, float],
    *,
    step: float = 16.0,
    tolerance_px: float = 1e-3,
) -> PointMap:
    """Approximate `transform` inside `bounds` to `tolerance_px` by a map that is fast on many points.

    The map's best affine part is exact; the rest is bilinear between lattice nodes. The middles of the cells, where
    the error is largest, are checked. The lattice is refined until they agree; `transform` itself is returned when a
    lattice of a million nodes is not enough.

    Args:
        transform: a smooth map.
        bounds: (left, top, right, bottom) of the points to map, pixels.
        step: pixels between nodes to begin with.
        tolerance_px: largest error allowed at the middles.
    """
    if transform.is_affine:
        return transform
    left, top, right, bottom = bounds
    while step >= 2:
        nx, ny = int(np.ceil((right - left) / step)) + 2, int(np.ceil((bottom - top) / step)) + 2
        if nx * ny > _MOST_NODES:
            return transform
        nodes = pixel_centres(0, 0, nx, ny) * step + (left, top)
        values = transform(nodes)
        if not np.isfinite(values).all():
            return transform
        design = np.column_stack([nodes, np.ones(len(nodes))])
        solution = np.linalg.lstsq(design, values, rcond=None)[0]
        affine = AffineTransform(solution.T.astype(np.float64))
        rest = (values - affine(nodes)).T.reshape(2, ny, nx)
        field = FieldTransform(rest, origin=(left, top), step=(step, step))

        def approximate(xy: FloatArray, affine: AffineTransform = affine, field: FieldTransform = field) -> FloatArray:
            return affine(xy) + field.displacement(xy)

        middles = nodes + step / 2
        middles = middles[(middles[:, 0] < left + (nx - 1) * step) & (middles[:, 1] < top + (ny - 1) * step)]
        if float(np.abs(approximate(middles) - transform(middles)).max()) <= tolerance_px:
            return approximate
        step /= 2
    return transform


def source_window(
    xy: FloatArray | tuple[FloatArray, FloatArray], shape: tuple[int, int], margin: int
) -> tuple[int, int, int, int] | None:
    """The part of an image that samples at `xy` need.

    Args:
        xy: (N, 2) pixel-centre coordinates, or arrays x and y of one shape; not finite means nowhere.
        shape: (height, width) of the image.
        margin: pixels around the points that the kernel reaches.

    Returns:
        (x, y, width, height) inside the image, or None when no point is near it.
    """
    height, width = shape
    x, y = xy if isinstance(xy, tuple) else xy.T
    ends = [float(end) for axis in (x, y) for end in (axis.min(initial=np.inf), axis.max(initial=-np.inf))]
    if not (ends[0] > -margin and ends[1] < width - 1 + margin and ends[2] > -margin and ends[3] < height - 1 + margin):
        near = (x > -margin) & (x < width - 1 + margin) & (y > -margin) & (y < height - 1 + margin)
        if not near.any():
            return None
        ends = [float(end) for axis in (x[near], y[near]) for end in (axis.min(), axis.max())]
    left, top = (max(0, int(np.floor(end)) - margin) for end in (ends[0], ends[2]))
    right = min(width, int(np.ceil(ends[1])) + margin + 1)
    bottom = min(height, int(np.ceil(ends[3])) + margin + 1)
    return left, top, max(1, right - left), max(1, bottom - top)
