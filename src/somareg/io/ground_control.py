"""Rasters that only ground control points place, such as Sentinel-1 GRD in radar geometry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import CRSError

from somareg.config import GcpMethod
from somareg.errors import GeoreferenceError
from somareg.geometry.ground_control import GroundControl, place_by_control
from somareg.types import ControlMethod, FloatArray, Grid


def control_grid(
    size: tuple[int, int],
    gcps: Sequence[GroundControlPoint],
    crs: CRS,
    name: str,
    method: GcpMethod = "auto",
) -> tuple[Grid, str]:
    """The grid of a raster that control points place, and a note about the curve and its limits.

    Args:
        size: (width, height) pixels.
        gcps: of the file; rows and columns count from the corner of the first pixel.
        crs: of their map coordinates.
        name: what messages call the raster.
        method: the curve, see `somareg.geometry.ground_control.place_by_control`.

    Raises:
        GeoreferenceError: fewer than three points, points on a line, or a CRS that cannot be understood.
    """
    xy, map_xy, heights = gdal_arrays(gcps)
    try:
        wkt, geographic = crs.to_wkt(), bool(crs.is_geographic)
    except CRSError as error:
        raise GeoreferenceError(f"{name}: the CRS of its ground control points cannot be understood") from error
    if geographic and np.ptp(map_xy[:, 0]) > 180:  # across the antimeridian
        map_xy[:, 0] = np.where(map_xy[:, 0] < 0, map_xy[:, 0] + 360, map_xy[:, 0])
    try:
        control, words = place_by_control(xy, map_xy, (-0.5, -0.5, size[0] - 0.5, size[1] - 0.5), method)
        transform = control.transform
    except GeoreferenceError as error:
        raise GeoreferenceError(f"{name}: {error}") from error
    note = f"{name}: placed by its {len(control.points)} ground control points ({words}); terrain is not modelled"
    if np.ptp(heights) > 0:
        note += f", although their heights run from {heights.min():.0f} to {heights.max():.0f} m"
    note += ", so slopes stay displaced: use terrain-corrected (RTC/GTC) SAR where relief matters"
    return Grid(*size, transform, wkt, control), note


def gdal_points(xy: FloatArray, map_xy: FloatArray) -> list[GroundControlPoint]:
    """GDAL's control points (corner convention) from pixel centres (N, 2) and map coordinates (N, 2)."""
    return [
        GroundControlPoint(row=float(y) + 0.5, col=float(x) + 0.5, x=float(u), y=float(v), id=str(i))
        for i, ((x, y), (u, v)) in enumerate(zip(xy, map_xy, strict=True), 1)
    ]


def gdal_arrays(gcps: Iterable[GroundControlPoint]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Pixel centres (N, 2), map coordinates (N, 2) and heights (N,) of GDAL's control points."""
    rows = [(p.col - 0.5, p.row - 0.5, p.x, p.y, p.z or 0.0) for p in gcps]
    table = np.array(rows, np.float64).reshape(-1, 5)
    return table[:, :2], table[:, 2:4].copy(), table[:, 4]


def read_control(record: Mapping[str, Any] | None) -> GroundControl | None:
    """Restore a `GroundControl` from the JSON of `dataclasses.asdict`; None for None.

    Raises:
        KeyError, TypeError, ValueError: malformed.
    """
    if record is None:
        return None
    table = np.array(record["points"], np.float64)
    area = np.array(record["area"], np.float64)
    method: ControlMethod = record["method"]
    if table.ndim != 2 or table.shape[1] != 4 or area.shape != (4,) or method not in get_args(ControlMethod):
        raise ValueError("malformed ground control")
    if not (np.isfinite(table).all() and np.isfinite(area).all()):
        raise ValueError("ground control that is not finite")
    points = tuple((float(x), float(y), float(u), float(v)) for x, y, u, v in table)
    left, top, right, bottom = (float(v) for v in area)
    return GroundControl(points, method, (left, top, right, bottom))
