"""Pixel sizes on the ground: the only place where lengths in pixels become metres."""

from __future__ import annotations

import numpy as np

from somareg.errors import GeoreferenceError
from somareg.io.crs import Ellipsoid, ellipsoid_of, is_plane, parse_crs, reproject
from somareg.types import FloatArray, Grid, GroundMetric, metric_of

_STEP_M = 50.0  # in each direction: long against the rounding of projections, short against their curvature
_AXES = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


def ground_metric(grid: Grid, xy: FloatArray | None = None) -> GroundMetric | None:
    """Metres of steps in pixels, measured on the ellipsoid of the grid's own CRS.

    Mercator's stretch, degrees, feet, oblong and sheared pixels and rotated images are accounted for.

    Args:
        grid: of an image.
        xy: (N, 2) pixel centres; by default the centre of the image.

    Returns:
        The metric at each place. Places that the CRS cannot express hold NaN. None without a CRS, and where no place
        has a metric.
    """
    if grid.crs is None:
        return None
    places = np.array([[(grid.width - 1) / 2, (grid.height - 1) / 2]]) if xy is None else np.asarray(xy, np.float64)
    try:
        on_map = _per_map_unit(grid.crs, grid.to_map(places))
    except GeoreferenceError:
        return None
    if on_map is None or not np.isfinite(on_map).any():
        return None
    return metric_of(on_map @ _pixel_steps(grid, places))


def _pixel_steps(grid: Grid, places: FloatArray) -> FloatArray:
    """(N, 2, 2) map coordinates of one pixel to the right and one down."""
    a, b, _, d, e, _ = grid.transform
    if grid.control is None:
        return np.broadcast_to(np.array([[a, b], [d, e]]), (len(places), 2, 2))
    ends = grid.to_map((places[:, None] + 0.5 * _AXES).reshape(-1, 2)).reshape(-1, 4, 2)
    return np.stack([ends[:, 0] - ends[:, 1], ends[:, 2] - ends[:, 3]], axis=-1)


def _per_map_unit(crs: str, places: FloatArray) -> FloatArray | None:
    """(N, 3, 2) metres in space of one map unit along x and along y."""
    parsed, n = parse_crs(crs), len(places)
    if is_plane(parsed):
        return np.broadcast_to(np.eye(3, 2) * parsed.units_factor[1], (n, 3, 2))
    if not (parsed.is_geographic or parsed.is_projected):
        return None
    figure, unit = ellipsoid_of(crs), float(parsed.units_factor[1])
    if parsed.is_geographic:
        east, north = _radii(figure, places[:, 1] * unit)
        steps = np.zeros((n, 3, 2))
        steps[:, 0, 0], steps[:, 1, 1] = unit * east, unit * north
        return steps
    step = _STEP_M / unit
    ends = (places[:, None] + step * _AXES).reshape(-1, 2)
    geographic = figure.geographic
    angles = reproject(ends, crs, geographic) * parse_crs(geographic).units_factor[1]
    space = _in_space(figure, angles).reshape(-1, 4, 3)
    return np.stack([space[:, 0] - space[:, 1], space[:, 2] - space[:, 3]], axis=-1) / (2 * step)


def _radii(figure: Ellipsoid, latitude: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Radii (metres) of the parallel and of the meridian at latitudes in radians."""
    w = 1 - figure.e2 * np.sin(latitude) ** 2
    east: FloatArray = figure.equator_m * np.abs(np.cos(latitude)) / np.sqrt(w)
    north: FloatArray = figure.equator_m * (1 - figure.e2) / w**1.5
    return east, north


def _in_space(figure: Ellipsoid, angles: FloatArray) -> FloatArray:
    """(N, 3) metres from the centre of the body, of longitudes and latitudes (N, 2) in radians.

    In space the poles and the antimeridian need no special case.
    """
    longitude, latitude = angles.T
    normal = figure.equator_m / np.sqrt(1 - figure.e2 * np.sin(latitude) ** 2)
    x = normal * np.cos(latitude) * np.cos(longitude)
    y = normal * np.cos(latitude) * np.sin(longitude)
    return np.stack([x, y, normal * (1 - figure.e2) * np.sin(latitude)], axis=-1)
