"""The footprint of an image as GeoJSON, in degrees."""

from __future__ import annotations

from typing import Any

import numpy as np

from somareg.io.lonlat import has_lonlat, lonlat_bounds, outline, pole_inside, to_lonlat
from somareg.types import FloatArray, Grid

_EDGE_POINTS = 8


def footprint(grid: Grid) -> tuple[dict[str, Any] | None, list[float] | None]:
    """GeoJSON geometry and bbox (west, south, east, north) of a grid; both None without a place on the earth.

    Across the antimeridian, west is larger than east and the geometry consists of two boxes (RFC 7946).
    """
    if not has_lonlat(grid):
        return None, None
    west, south, east, north = (round(v, 7) for v in lonlat_bounds(grid))
    if west >= -180 and east <= 180:
        pole = pole_inside(grid)
        ring = _outline(grid) if pole is None else _around(grid, pole)
        return {"type": "Polygon", "coordinates": [ring]}, [west, south, east, north]
    west, east = ((lon + 180) % 360 - 180 for lon in (west, east))
    halves = [[_box(west, south, 180.0, north)], [_box(-180.0, south, east, north)]]
    return {"type": "MultiPolygon", "coordinates": halves}, [round(west, 7), south, round(east, 7), north]


def _outline(grid: Grid) -> list[list[float]]:
    """The grid's outline in degrees, counter-clockwise, closed, with points along the edges."""
    lonlat = to_lonlat(grid, outline(grid, _EDGE_POINTS))
    return _closed(lonlat[np.isfinite(lonlat).all(axis=1)])


def _around(grid: Grid, pole: float) -> list[list[float]]:
    """The outline of a grid that contains a pole: along its edge from -180 to 180 degrees, and back along the pole."""
    lonlat = to_lonlat(grid, outline(grid, 4 * _EDGE_POINTS))
    lonlat = lonlat[np.isfinite(lonlat).all(axis=1)]
    edge = lonlat[np.argsort(lonlat[:, 0])]
    seam = float(np.interp(180.0, [edge[-1, 0], edge[0, 0] + 360.0], [edge[-1, 1], edge[0, 1]]))
    return _closed(np.array([[-180.0, pole], [-180.0, seam], *edge, [180.0, seam], [180.0, pole]]))


def _closed(ring: FloatArray) -> list[list[float]]:
    x, y = ring.T
    if (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() < 0:
        ring = ring[::-1]
    return [[round(float(lon), 7), round(float(lat), 7)] for lon, lat in (*ring, ring[0])]


def _box(west: float, south: float, east: float, north: float) -> list[list[float]]:
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]
