"""GeoJSON (RFC 7946): one Point per pair at its place in the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from somareg.errors import InputError
from somareg.io.atomic import write_text
from somareg.io.crs import LONLAT, near_turn, parse_crs
from somareg.io.lonlat import has_lonlat, to_lonlat
from somareg.io.metric import ground_metric
from somareg.io.text import parse_json
from somareg.tiepoints.formats.point_pairs import Images, PointPairs, to_tie_points
from somareg.tiepoints.formats.records import COLUMNS, Geometry, Record, RecordTable, read_records, record_of
from somareg.tiepoints.formats.rows import number, text_of
from somareg.types import FloatArray, Grid, TiePoints

_READING = "somareg_moving_reading"
_PIXELS = "pixel centres of the reference image, x right, y down; not longitude and latitude"


def read(path: Path, images: Images, *, skip_bad: bool) -> PointPairs:
    """Read a FeatureCollection; see `records.read_records` for which columns count."""
    collection = _collection(path)
    features = collection.get("features")
    if not isinstance(features, list):
        raise InputError(f"{path} is not a GeoJSON FeatureCollection")
    tables = [feature.get("properties") for feature in features if isinstance(feature, dict)]
    names = frozenset(name for table in tables if isinstance(table, dict) for name in table)
    if not features:  # an empty collection has no columns to check
        names = frozenset(COLUMNS)
    table = RecordTable(path, "feature", names, _crs(collection, path))
    return read_records(table, enumerate(features, 1), _opened, skip_bad=skip_bad)


def write(path: Path, pairs: PointPairs, images: Images, *, overwrite: bool) -> int:
    """Write all points: longitude and latitude when the reference is known to be georeferenced, else its pixels."""
    points = to_tie_points(pairs, images, path)
    grid = images.reference
    georeferenced = grid is not None and has_lonlat(grid)
    places = to_lonlat(grid, points.reference_xy) if grid is not None and georeferenced else points.reference_xy
    digits = 9 if georeferenced else 4
    metres = _metres(points, images)
    before = _places_before(points, grid, places) if grid is not None and georeferenced and images.both_placed else {}
    features = [
        {
            "type": "Feature",
            "id": index,
            "geometry": _point(place, digits),
            "properties": record_of(points, index, _number)
            | {k: _number(v[index]) for k, v in metres.items()}
            | {k: _number(v[index], digits) for k, v in before.items()},
        }
        for index, place in enumerate(places)
    ]
    collection: dict[str, Any] = {"type": "FeatureCollection", "name": "somareg tie points"}
    if not georeferenced:
        collection["coordinates"] = _PIXELS
    if images.moving_reading:
        collection[_READING] = dict(images.moving_reading)
    collection["features"] = features
    write_text(path, json.dumps(collection, allow_nan=False, indent=1), overwrite=overwrite)
    return len(points)


def reading(path: Path) -> Any:
    """The reading of the moving image that `write` recorded; None in files of other programs."""
    return _collection(path).get(_READING)


def _collection(path: Path) -> dict[str, Any]:
    """The JSON object of a file, {} for any other JSON value.

    Raises:
        InputError: no JSON.
    """
    try:
        collection = parse_json(text_of(path))
    except ValueError as error:
        raise InputError(f"{path} is not GeoJSON: {error}") from error
    return collection if isinstance(collection, dict) else {}


def _crs(collection: dict[str, Any], path: Path) -> str:
    """WKT of longitude and latitude, or of the CRS in the member `crs` of a file older than RFC 7946."""
    declared = collection.get("crs")
    if not isinstance(declared, dict):
        return LONLAT
    properties = declared.get("properties")
    name = properties.get("name") if isinstance(properties, dict) else None
    return LONLAT if name is None else parse_crs(str(name), f"the CRS of {path}").to_wkt()


def _opened(feature: Any) -> tuple[Record, Geometry]:
    if not isinstance(feature, dict) or not isinstance(feature.get("properties") or {}, dict):
        raise ValueError("not a feature with properties")
    return feature.get("properties") or {}, _vertices(feature.get("geometry"))


def _vertices(geometry: Any) -> Geometry:
    if geometry is None:
        return []
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Point", "LineString"):
        raise ValueError(f"geometry {kind} is neither a Point nor a LineString")
    coordinates = geometry.get("coordinates")
    points = [coordinates] if kind == "Point" else coordinates
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) >= 2 for point in points):
        raise ValueError("its coordinates are no list of positions")
    return [(number(point[0], "x"), number(point[1], "y")) for point in points]


def _point(place: FloatArray, digits: int) -> dict[str, Any] | None:
    if not np.isfinite(place).all():
        return None
    return {"type": "Point", "coordinates": [round(float(v), digits) for v in place]}


def _metres(points: TiePoints, images: Images) -> dict[str, FloatArray]:
    """Columns in metres, name -> (N,); none without a CRS."""
    grid, here = images.reference, points.reference_xy
    metric = ground_metric(grid, here) if grid is not None and len(here) else None
    if metric is None:
        return {}
    # A standard error has no direction, so its metres are the RMS over all; a residual has one, from the correction.
    right, down = (metric.lengths(np.broadcast_to(step, here.shape)) for step in ([1.0, 0.0], [0.0, 1.0]))
    residual: FloatArray = points.residual_px * metric.even
    if images.correction is not None:
        residual = metric.lengths(here + points.displacement - images.correction(here))
    return {
        "dx_m": points.displacement[:, 0] * right,
        "dy_m": points.displacement[:, 1] * down,
        "sigma_m": points.sigma_px * metric.even,
        "residual_m": residual,
    }


def _places_before(points: TiePoints, grid: Grid, places: FloatArray) -> dict[str, FloatArray]:
    """Columns, name -> (N,), of the points' places by the moving image's own georeference, degrees: ends of arrows.

    Longitudes are within half a turn of the point's own, so that an arrow across 180 degrees stays short.
    """
    there = to_lonlat(grid, points.reference_xy + points.displacement)
    away = near_turn(there[:, 0] - places[:, 0], 0.0, 360.0)
    return {"mov_lon": places[:, 0] + away, "mov_lat": there[:, 1]}


def _number(value: Any, digits: int = 4) -> float | None:
    """A JSON number, null when it is not finite."""
    return round(float(value), digits) if np.isfinite(value) else None
