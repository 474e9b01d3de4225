"""Tie points for maps and for people: GeoJSON and QGIS's georeferencer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from somareg.io.atomic import write_text
from somareg.io.georef import metres_per_pixel, to_lonlat
from somareg.types import FloatArray, Grid, TiePoints

_PIXELS = "pixel centres of the reference image, x right, y down; not longitude and latitude"


def write_geojson(path: str | Path, tie_points: TiePoints, reference_grid: Grid, *, overwrite: bool = False) -> Path:
    """Write tie points as a GeoJSON FeatureCollection (RFC 7946), one Point per pair at its place in the reference.

    Longitude and latitude when georeferenced. Without a CRS the coordinates are reference pixels, which the foreign
    member `coordinates` says. Points that have no longitude and latitude get a null geometry. Values that are not
    finite become null.

    Raises:
        OutputError: the file exists or cannot be written.
    """
    georeferenced = reference_grid.is_georeferenced
    places = to_lonlat(reference_grid, tie_points.reference_xy) if georeferenced else tie_points.reference_xy
    digits = 9 if georeferenced else 4
    metres = metres_per_pixel(reference_grid)
    features = [
        {
            "type": "Feature",
            "id": index,
            "geometry": _point(place, digits),
            "properties": _properties(tie_points, index, metres),
        }
        for index, place in enumerate(places)
    ]
    collection: dict[str, Any] = {"type": "FeatureCollection", "name": "somareg tie points"}
    if not georeferenced:
        collection["coordinates"] = _PIXELS
    collection["features"] = features
    return write_text(path, json.dumps(collection, allow_nan=False, indent=1), overwrite=overwrite)


def write_qgis_points(
    path: str | Path,
    tie_points: TiePoints,
    reference_grid: Grid,
    moving_grid: Grid,
    *,
    overwrite: bool = False,
) -> Path:
    """Write tie points for QGIS's georeferencer: load the moving image there, then these points.

    Map coordinates are the reference's. Source coordinates are the moving layer's: its CRS when georeferenced,
    otherwise column and minus row, where the corner of the first pixel is (0, 0). Only inliers are enabled.

    Raises:
        OutputError: the file exists or cannot be written.
    """
    target = _layer_coordinates(reference_grid, tie_points.reference_xy)
    source = _layer_coordinates(moving_grid, tie_points.moving_xy)
    crs = " ".join((reference_grid.crs or "").split())
    lines = [f"#CRS: {crs}"] if crs else []
    lines.append("mapX,mapY,sourceX,sourceY,enable,dX,dY,residual")
    usable = np.isfinite(target).all(axis=1) & np.isfinite(source).all(axis=1)
    for i in np.flatnonzero(usable):
        residual = float(np.nan_to_num(tie_points.residual_px[i]))
        numbers = ",".join(f"{v:.10g}" if abs(v) < 360 else f"{v:.5f}" for v in (*target[i], *source[i]))
        lines.append(f"{numbers},{int(tie_points.inlier[i])},0,0,{residual:.4f}")
    return write_text(path, "\n".join(lines) + "\n", overwrite=overwrite)


def _layer_coordinates(grid: Grid, xy: FloatArray) -> FloatArray:
    """Where QGIS shows the pixel centres: in the CRS, or as column and minus row of an image without one."""
    if grid.is_georeferenced:
        return grid.to_map(xy)
    return (np.asarray(xy, float) + 0.5) * (1.0, -1.0)


def _point(place: FloatArray, digits: int) -> dict[str, Any] | None:
    if not np.isfinite(place).all():
        return None
    return {"type": "Point", "coordinates": [round(float(v), digits) for v in place]}


def _properties(points: TiePoints, index: int, metres: float | None) -> dict[str, Any]:
    (ref_x, ref_y), (mov_x, mov_y) = points.reference_xy[index], points.moving_xy[index]
    dx, dy = points.displacement[index]
    sigma, residual = points.sigma_px[index], points.residual_px[index]
    values: dict[str, Any] = {
        "ref_x": _number(ref_x),
        "ref_y": _number(ref_y),
        "mov_x": _number(mov_x),
        "mov_y": _number(mov_y),
        "dx": _number(dx),
        "dy": _number(dy),
        "sigma_px": _number(sigma),
        "confidence": _number(points.confidence[index]),
        "inlier": bool(points.inlier[index]),
        "residual_px": _number(residual),
    }
    if metres is not None:
        for name, value in (("dx_m", dx), ("dy_m", dy), ("sigma_m", sigma), ("residual_m", residual)):
            values[name] = _number(value * metres)
    return values


def _number(value: Any) -> float | None:
    """A JSON number, null when it is not finite."""
    return round(float(value), 4) if np.isfinite(value) else None
