"""GeoPackage (OGC 12-128r18): one line per pair, from the place by the moving image's georeference to the true one.

A GeoPackage is an SQLite file with four prescribed tables and geometries in well-known binary, which Python's own
`sqlite3` writes and reads. `pyogrio` (0.13) would save about half of this module, the schema and the headers, while its
geometries stay well-known binary that has to be decoded. For that it brings 103 MB with a second GDAL beside rasterio's
and takes 36 ms to import, `sqlite3` 4 ms.
"""

from __future__ import annotations

import itertools
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError

from somareg.errors import InputError, OutputError, ReadError
from somareg.io.atomic import atomic_path
from somareg.io.crs import LONLAT, parse_crs
from somareg.tiepoints.formats.point_pairs import Images, PointPairs, on_layer, to_tie_points
from somareg.tiepoints.formats.records import (
    COLUMNS,
    Geometry,
    Record,
    RecordTable,
    finite_or_none,
    read_records,
    record_of,
    vertices_of,
)
from somareg.tiepoints.formats.rows import MAX_MIB
from somareg.types import Grid, TiePoints

LAYER = "tie_points"
_LONGEST_VALUE = 1 << 20  # longest text or geometry in bytes; a computed column could produce any number
_PER_CALL, _MAX_STEPS = 1_000_000, 2_000  # SQLite instructions per call, and most calls: a minute at most
_APPLICATION_ID, _VERSION = 0x47504B47, 10300  # "GPKG", 1.3
_OWN_SRS = 100_000  # for a CRS that EPSG does not number
_PLANE = -1  # the standard's "undefined Cartesian"
_SCHEMA = """
CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER PRIMARY KEY, organization TEXT NOT NULL,
  organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL, description TEXT);
CREATE TABLE gpkg_contents (table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT UNIQUE,
  description TEXT DEFAULT '', last_change DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
  min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, srs_id INTEGER,
  CONSTRAINT fk_gc_r_srs_id FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id));
CREATE TABLE gpkg_geometry_columns (table_name TEXT NOT NULL, column_name TEXT NOT NULL,
  geometry_type_name TEXT NOT NULL, srs_id INTEGER NOT NULL, z TINYINT NOT NULL, m TINYINT NOT NULL,
  CONSTRAINT pk_geom_cols PRIMARY KEY (table_name, column_name), CONSTRAINT uk_gc_table_name UNIQUE (table_name),
  CONSTRAINT fk_gc_tn FOREIGN KEY (table_name) REFERENCES gpkg_contents(table_name),
  CONSTRAINT fk_gc_srs FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys (srs_id));
CREATE TABLE tie_points (fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, geom LINESTRING,
  ref_x DOUBLE, ref_y DOUBLE, mov_x DOUBLE, mov_y DOUBLE, dx DOUBLE, dy DOUBLE, sigma_px DOUBLE, confidence DOUBLE,
  inlier BOOLEAN, residual_px DOUBLE);
"""
_HEADER_BYTES = {0: 8, 1: 40, 2: 56, 3: 56, 4: 72}  # by the envelope's kind
_Srs = tuple[str, int, str, int, str, str]


def read(path: Path, images: Images, *, skip_bad: bool) -> PointPairs:
    """Read the layer `tie_points`, or the only layer of points or lines; columns as in `records.read_records`."""
    if path.stat().st_size > MAX_MIB << 20:
        raise ReadError(f"tie points {path} are larger than {MAX_MIB} MiB; give a file that holds nothing else")
    with _opened(path) as database:
        layer, column, srs = _layer(database, path)
        crs = _definition(database, srs, path)
        # Names come from the file: quoted as identifiers, they cannot become statements.
        cursor = database.execute(f"SELECT * FROM {_quoted(layer)}")  # noqa: S608
        names = [entry[0] for entry in cursor.description]
        if column not in names:
            raise InputError(f"{path}: layer '{layer}' has no column '{column}', where its geometries should be")
        geometry = names.index(column)

        def opened(row: tuple[Any, ...]) -> tuple[Record, Geometry]:
            return dict(zip(names, row, strict=True)), _vertices(row[geometry])

        table = RecordTable(path, "record", frozenset(names), crs)
        return read_records(table, enumerate(cursor, 1), opened, skip_bad=skip_bad)


def write(path: Path, pairs: PointPairs, images: Images, *, overwrite: bool) -> int:
    """Write all points as lines in the reference's CRS; without one in pixels with y upwards, as QGIS shows them."""
    points = to_tie_points(pairs, images, path)
    lines = _lines(points, images.reference)
    srs = _srs(images.reference)
    with atomic_path(path, overwrite=overwrite) as temporary, _created(temporary, path) as database:
        # `atomic_path` already writes whole files; a journal file would only be left over after a kill.
        database.execute("PRAGMA journal_mode = MEMORY")
        database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {_VERSION}")
        database.executescript(_SCHEMA)
        _describe(database, lines, srs)
        names = ", ".join(("geom", *COLUMNS))
        marks = ", ".join("?" * (1 + len(COLUMNS)))
        records = (record_of(points, i, finite_or_none) for i in range(len(points)))
        database.executemany(
            f"INSERT INTO {LAYER} ({names}) VALUES ({marks})",  # noqa: S608  (names of ours)
            ((_blob(line, srs[1]), *record.values()) for line, record in zip(lines, records, strict=True)),
        )
        database.commit()
    return len(points)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
            steps = itertools.count()
            database.set_progress_handler(lambda: next(steps) > _MAX_STEPS, _PER_CALL)
            yield database
    except (sqlite3.Error, UnicodeDecodeError) as error:  # names and texts may be no UTF-8
        text = str(error)
        if text == "interrupted":
            text = "its tables compute without end"
        raise ReadError(f"tie points {path} are not a GeoPackage that can be read: {text}") from error


@contextmanager
def _created(temporary: Path, path: Path) -> Iterator[sqlite3.Connection]:
    """Create a database and close it in the end; SQLite's write errors become `OutputError`."""
    try:
        with closing(sqlite3.connect(temporary)) as database:
            yield database
    except sqlite3.Error as error:
        raise OutputError(f"writing {path} failed: {error}; make room and retry") from error


def _layer(database: sqlite3.Connection, path: Path) -> tuple[str, str, int]:
    """Table, geometry column and srs_id."""
    # A view of a hostile file could compute forever, so only tables are read.
    layers: list[tuple[Any, ...]] = database.execute(
        "SELECT g.table_name, g.column_name, g.srs_id FROM gpkg_geometry_columns g "
        "JOIN sqlite_master m ON m.name = g.table_name WHERE m.type = 'table' ORDER BY g.table_name"
    ).fetchall()
    candidates = [row for row in layers if row[0] == LAYER] or layers
    if len(candidates) != 1:
        names = ", ".join(str(row[0])[:40] for row in layers[:8]) or "none"
        raise InputError(f"{path} has no layer '{LAYER}' and not exactly one other (layers: {names})")
    layer, column, srs = candidates[0]
    if not (isinstance(layer, str) and isinstance(column, str) and isinstance(srs, int)):
        raise InputError(f"{path} does not say what its layer is: gpkg_geometry_columns holds {candidates[0]!r:.80}")
    return layer, column, srs


def _definition(database: sqlite3.Connection, srs: int, path: Path) -> str | None:
    """WKT of the layer's CRS; None for a plane of pixels."""
    row = database.execute(
        "SELECT organization, organization_coordsys_id, definition FROM gpkg_spatial_ref_sys WHERE srs_id = ?", (srs,)
    ).fetchone()
    if srs in (_PLANE, 0) or row is None:
        return None
    if str(row[0]).upper() == "EPSG":
        return parse_crs(f"EPSG:{row[1]}", f"the CRS of {path}").to_wkt()  # type: ignore[no-any-return]
    return parse_crs(str(row[2]), f"the CRS of {path}").to_wkt()  # type: ignore[no-any-return]


def _lines(points: TiePoints, grid: Grid | None) -> list[Geometry]:
    """One line per point on the reference's map or plane, starting where the moving image's georeference puts it."""
    measured = np.isfinite(points.displacement).all(1, keepdims=True)
    starts = np.where(measured, points.reference_xy + points.displacement, points.reference_xy)
    ends = [on_layer(grid, xy) for xy in (starts, points.reference_xy)]
    return [vertices_of(line) for line in np.stack(ends, axis=1)]


def _srs(grid: Grid | None) -> _Srs:
    """A row of gpkg_spatial_ref_sys for the reference's CRS."""
    if grid is None or grid.crs is None:
        return "Undefined Cartesian SRS", _PLANE, "NONE", _PLANE, "undefined", "pixels, y upwards from the first row"
    crs = parse_crs(grid.crs, "the CRS of the reference")
    code = crs.to_epsg()
    name = grid.crs.split('"')[1] if '"' in grid.crs else grid.crs
    if code is None:
        return name, _OWN_SRS, "NONE", _OWN_SRS, _wkt1(crs), "of the reference image"
    return name, code, "EPSG", code, _wkt1(crs), "of the reference image"


def _wkt1(crs: CRS) -> str:
    """WKT 1, which the standard asks for; another WKT for a CRS that WKT 1 cannot express."""
    try:
        return str(crs.to_wkt(version="WKT1_GDAL"))
    except CRSError:
        return str(crs.to_wkt())


def _describe(database: sqlite3.Connection, lines: list[Geometry], srs: _Srs) -> None:
    """Insert the rows that the standard prescribes, and those of the layer."""
    required: dict[int, _Srs] = {
        _PLANE: ("Undefined Cartesian SRS", _PLANE, "NONE", _PLANE, "undefined", "undefined Cartesian"),
        0: ("Undefined geographic SRS", 0, "NONE", 0, "undefined", "undefined geographic"),
        4326: ("WGS 84 geodetic", 4326, "EPSG", 4326, _wkt1(CRS.from_user_input(LONLAT)), "longitude, latitude"),
    }
    database.executemany(
        "INSERT INTO gpkg_spatial_ref_sys VALUES (?, ?, ?, ?, ?, ?)", {srs[1]: srs, **required}.values()
    )
    vertices = np.array([vertex for line in lines for vertex in line]).reshape(-1, 2)
    bounds = (*vertices.min(0).tolist(), *vertices.max(0).tolist()) if len(vertices) else (None,) * 4
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    about = "point pairs of somareg: lines lead from where the moving image claims to be to where it is"
    database.execute(
        "INSERT INTO gpkg_contents VALUES (?, 'features', ?, ?, ?, ?, ?, ?, ?, ?)",
        (LAYER, LAYER, about, now, *bounds, srs[1]),
    )
    database.execute("INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', 'LINESTRING', ?, 0, 0)", (LAYER, srs[1]))


def _blob(line: Geometry, srs_id: int) -> bytes:
    """A GeoPackage geometry: header (little endian, no envelope), then WKB; an empty line has the empty flag."""
    flags = 0b0000_0001 if line else 0b0001_0001
    header = struct.pack("<2sBBi", b"GP", 0, flags, srs_id)
    body = struct.pack("<BII", 1, 2, len(line))
    return header + body + b"".join(struct.pack("<dd", *vertex) for vertex in line)


def _vertices(blob: Any) -> Geometry:
    """Vertices of a point or line.

    Raises:
        ValueError: another geometry, or bytes that are none.
    """
    if blob is None:
        return []
    if not isinstance(blob, bytes) or blob[:2] != b"GP" or len(blob) < 8:
        raise ValueError("its geometry is not in the format of GeoPackage")
    kind = blob[3] >> 1 & 0b111
    if kind not in _HEADER_BYTES:
        raise ValueError("its geometry has an envelope of unknown kind")
    if blob[3] & 0b0001_0000:
        return []
    try:
        return _wkb(blob[_HEADER_BYTES[kind] :])
    except (struct.error, IndexError) as error:
        raise ValueError("its geometry is cut short") from error


def _wkb(body: bytes) -> Geometry:
    order = "<" if body[0] == 1 else ">"
    (code,) = struct.unpack_from(f"{order}I", body, 1)
    family, dimensions = code % 1000, {0: 2, 1: 3, 2: 3, 3: 4}.get(code // 1000, 0)
    if family not in (1, 2) or not dimensions:
        raise ValueError("its geometry is neither a point nor a line")
    count, offset = 1, 5
    if family == 2:
        (count,) = struct.unpack_from(f"{order}I", body, offset)
        offset += 4
    if len(body) < offset + 8 * dimensions * count:
        raise ValueError("its geometry is cut short")
    step = 8 * dimensions
    vertices = [struct.unpack_from(f"{order}dd", body, offset + i * step) for i in range(count)]
    return [(float(x), float(y)) for x, y in vertices if np.isfinite((x, y)).all()]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
