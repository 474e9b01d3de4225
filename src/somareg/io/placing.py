"""The grid of an open file, from its geotransform, its control points or its product."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rasterio.crs import CRS
from rasterio.errors import CRSError

from somareg.config import GcpMethod
from somareg.errors import GeoreferenceError
from somareg.io.crs import is_plane, parse_crs
from somareg.io.dimap import tie_points_of
from somareg.io.ground_control import control_grid
from somareg.io.paths import Named
from somareg.types import IDENTITY, Geotransform, Grid


def grid_of(dataset: Any, name: str, gcp_method: GcpMethod, place: Named) -> tuple[Grid, list[str]]:
    """The grid of an open dataset, and notes on which georeference was used and which was not.

    Raises:
        GeoreferenceError: its ground control points place nothing.
    """
    a, b, c, d, e, f = (float(v) for v in dataset.transform[:6])
    transform: Geotransform = (a, b, c, d, e, f)
    size = dataset.width, dataset.height
    grid = Grid(*size, transform)
    crs, notes = _crs(dataset, name)
    if transform != IDENTITY:
        wkt = crs and crs.to_wkt()
        if wkt and is_plane(parse_crs(wkt)) and not grid.has_geotransform:
            return grid, [*notes, f"{name}: a local system without geotransform is ignored"]
        return replace(grid, crs=wkt or None), notes
    points, points_crs = dataset.gcps
    if not points and place.product is not None:
        points, points_crs = tie_points_of(place.product), CRS.from_epsg(4326)
    if len(points) >= 3 and points_crs:
        placement, note = control_grid(size, points, points_crs, name, gcp_method)
        return placement, [*notes, note]
    if points:
        notes.append(f"{name}: its {len(points)} ground control points are too few or have no CRS, and are ignored")
    elif dataset.rpcs is not None:
        notes.append(
            f"{name}: placed by RPCs only, which need heights and are not used; orthorectify it: gdalwarp -rpc"
        )
        return replace(grid, rpcs=True), notes
    elif crs:
        notes.append(f"{name}: a CRS without geotransform is ignored")
    return grid, notes


def _crs(dataset: Any, name: str) -> tuple[CRS | None, list[str]]:
    try:
        crs = dataset.crs
        if crs:
            parse_crs(crs.to_wkt())
        return crs or None, []
    except (CRSError, GeoreferenceError):
        return None, [f"{name}: its CRS cannot be understood and is ignored"]
