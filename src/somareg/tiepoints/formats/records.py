"""Tables of named columns, the common part of CSV, GeoJSON and GeoPackage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from somareg.errors import InputError
from somareg.io.crs import LONLAT
from somareg.tiepoints.formats.point_pairs import Places, PointPairs, make_pairs
from somareg.tiepoints.formats.rows import flag, optional_number, read_rows
from somareg.types import FloatArray, TiePoints

COLUMNS = ("ref_x", "ref_y", "mov_x", "mov_y", "dx", "dy", "sigma_px", "confidence", "inlier", "residual_px")
"""Columns: pixel centres in both images, then the attributes of `TiePoints`."""

_REFERENCE = (("ref_x", "ref_y"), ("reference_x", "reference_y"), ("base_x", "base_y"))
_MAP = (("map_x", "map_y", None), ("lon", "lat", LONLAT), ("longitude", "latitude", LONLAT))
_MOVING = (("mov_x", "mov_y"), ("moving_x", "moving_y"), ("warp_x", "warp_y"))

Row = TypeVar("Row")
Record = Mapping[str, Any]
Geometry = Sequence[tuple[float, float]]
"""The vertices of a point (1) or a line (2); none for an empty geometry."""


@dataclass(frozen=True, eq=False)
class RecordTable:
    """Records with their geometries.

    Attributes:
        file: named in messages.
        what: "line", "feature" or "record".
        names: columns.
        crs: of the geometries; None without geometries.
    """

    file: Path
    what: str
    names: frozenset[str]
    crs: str | None = None


def read_records(
    table: RecordTable,
    rows: Iterable[tuple[int, Row]],
    opened: Callable[[Row], tuple[Record, Geometry]],
    *,
    skip_bad: bool,
) -> PointPairs:
    """Point pairs of a table.

    Columns take precedence over geometries. Without columns for a place, a point is in the reference, and a line leads
    from the moving image's place on the map to the reference's.

    Args:
        table: description of the table.
        rows: number and content of each row.
        opened: splits a row into columns and geometry; raises `ValueError` for a bad one.
        skip_bad: leave bad rows out with a warning.

    Raises:
        InputError: neither columns nor geometries place the points, or a row is bad.
    """
    reference, place = _reference_column(table)
    moving = next((pair for pair in _MOVING if set(pair) <= table.names), None)
    if reference is None and table.crs is None:
        raise InputError(f"{table.file} has no columns ref_x, ref_y (or map_x, map_y; lon, lat)")
    if moving is None and table.crs is None:
        raise InputError(f"{table.file} has no columns mov_x, mov_y")

    def parse(row: Row) -> list[float]:
        record, vertices = opened(row)
        here = _two(record, reference) if reference else _vertex(vertices, -1, 1)
        there = _two(record, moving) if moving else _vertex(vertices, 0, 2)
        figures = [optional_number(record.get(name), name) for name in ("dx", "dy", "sigma_px", "confidence")]
        inlier = flag(record.get("inlier"), "inlier")
        return [*here, *there, *figures, float(inlier), optional_number(record.get("residual_px"), "residual_px")]

    values = read_rows(rows, parse, table.file, table.what, 10, skip_bad=skip_bad)
    return make_pairs(
        Places(values[:, :2], *place),
        Places(values[:, 2:4]) if moving else Places(values[:, 2:4], "map", table.crs),
        displacement=values[:, 4:6],
        sigma_px=values[:, 6],
        confidence=values[:, 7],
        inlier=values[:, 8] > 0,
        residual_px=values[:, 9],
    )


def record_of(points: TiePoints, index: int, number: Callable[[Any], Any]) -> dict[str, Any]:
    """The columns of one point; `number` converts a float to the format's type."""
    values: dict[str, Any] = {}
    both = (("ref", points.reference_xy), ("mov", points.moving_xy))
    for prefix, xy in both:
        values[f"{prefix}_x"], values[f"{prefix}_y"] = number(xy[index, 0]), number(xy[index, 1])
    values["dx"], values["dy"] = (number(v) for v in points.displacement[index])
    values["sigma_px"] = number(points.sigma_px[index])
    values["confidence"] = number(points.confidence[index])
    values["inlier"] = bool(points.inlier[index])
    values["residual_px"] = number(points.residual_px[index])
    return values


def finite_or_none(value: Any) -> float | None:
    """A float, None when it is not finite."""
    result = float(value)
    return result if math.isfinite(result) else None


def vertices_of(coordinates: FloatArray) -> Geometry:
    """(M, 2) coordinates as vertices; none when one is not finite."""
    return [(float(x), float(y)) for x, y in coordinates] if np.isfinite(coordinates).all() else []


def _reference_column(table: RecordTable) -> tuple[tuple[str, str] | None, tuple[Any, ...]]:
    """The columns with places in the reference (None: the geometry has them), and the space and CRS of these places."""
    for pair in _REFERENCE:
        if set(pair) <= table.names:
            return pair, ("pixel", None)
    for x, y, crs in _MAP:
        if {x, y} <= table.names:
            return (x, y), ("map", crs)
    return None, ("map", table.crs)


def _two(record: Record, names: tuple[str, str]) -> tuple[float, float]:
    return optional_number(record.get(names[0]), names[0]), optional_number(record.get(names[1]), names[1])


def _vertex(vertices: Geometry, index: int, needed: int) -> tuple[float, float]:
    if not vertices:
        return math.nan, math.nan
    if len(vertices) < needed:
        raise ValueError("a point does not say where it lies in the moving image: add mov_x and mov_y, or draw a line")
    return vertices[index]
