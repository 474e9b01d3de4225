"""Longitudes and latitudes of georeferenced grids."""

from __future__ import annotations

import numpy as np

from somareg.errors import GeoreferenceError
from somareg.io.crs import LONLAT, is_of_earth, name_of, near_turn, parse_crs, reproject
from somareg.types import BoolArray, FloatArray, Grid

_NEAR_DEG = 1e-9


def to_lonlat(grid: Grid, xy: FloatArray) -> FloatArray:
    """Longitude (-180 to 180) and latitude (N, 2), WGS 84 degrees, of pixel centres (N, 2) of a georeferenced grid.

    Raises:
        GeoreferenceError: the grid has no CRS, or a local one.
    """
    if grid.crs is None:
        raise GeoreferenceError("an image without a CRS has no longitude and latitude; give one with --assume-crs")
    if not has_lonlat(grid):
        raise GeoreferenceError(f"'{name_of(grid.crs)}' has no longitude and latitude on the earth")
    lonlat = reproject(grid.to_map(xy), grid.crs, LONLAT)
    lonlat[:, 0] = near_turn(lonlat[:, 0], 0.0, 360.0)
    return lonlat


def has_lonlat(grid: Grid) -> bool:
    """Whether pixels of a grid have longitude and latitude on the earth: it has a CRS that is not local."""
    return grid.crs is not None and is_of_earth(grid.crs)


def lonlat_bounds(grid: Grid) -> tuple[float, float, float, float]:
    """(west, south, east, north) in degrees; east exceeds 180 when the image crosses the antimeridian.

    An image that contains a pole covers all longitudes, from -180 to 180.

    Raises:
        GeoreferenceError: the grid has no CRS or lies outside what its CRS can express.
    """
    lonlat = to_lonlat(grid, outline(grid, 21))
    lonlat = lonlat[np.isfinite(lonlat).all(axis=1)]
    if not len(lonlat):
        raise GeoreferenceError("an image lies outside the area its CRS can express; check its CRS and geotransform")
    lon, lat = np.unwrap(lonlat[:, 0], period=360.0), lonlat[:, 1]
    pole = pole_inside(grid)
    south, north = min(float(lat.min()), pole or 90.0), max(float(lat.max()), pole or -90.0)
    west, east = float(lon.min()), float(lon.max())
    if pole is not None or east - west >= 360.0 - _NEAR_DEG:
        return -180.0, south, 180.0, north
    turns = 360.0 * np.floor((west + 180.0 + _NEAR_DEG) / 360.0)
    return west - float(turns), south, east - float(turns), north


def outline(grid: Grid, steps: int) -> FloatArray:
    """Points (4 * steps, 2) along the grid's outer edge in pixels: clockwise on the screen, from the first corner."""
    along, zero = np.arange(steps) / steps, np.zeros(steps)
    edges = ((along, zero), (zero + 1, along), (1 - along, zero + 1), (zero, 1 - along))
    u, v = np.concatenate([np.stack(edge) for edge in edges], axis=1)
    return np.stack([u * grid.width, v * grid.height], axis=-1) - 0.5


def pole_inside(grid: Grid) -> float | None:
    """The latitude, 90 or -90, of the pole that lies inside a georeferenced image; None where none does.

    In degrees a pole is an edge and never inside.
    """
    if not has_lonlat(grid) or grid.crs is None or parse_crs(grid.crs).is_geographic:
        return None
    poles = np.array([90.0, -90.0])
    there = grid.to_pixel(reproject(np.stack([0 * poles, poles], axis=-1), LONLAT, grid.crs))
    inside = poles[is_inside(grid, there)]
    # Projections that show the pole as a line, or as another place, do not invert to it.
    back = [float(pole) for pole in inside if abs(to_lonlat(grid, there[poles == pole])[0, 1] - pole) < 1e-3]
    return back[0] if back else None


def is_inside(grid: Grid, xy: FloatArray) -> BoolArray:
    """Mask of the pixel positions (N, 2) that lie in the image."""
    x, y = xy.T
    return np.asarray((x >= -0.5) & (x < grid.width - 0.5) & (y >= -0.5) & (y < grid.height - 0.5))
