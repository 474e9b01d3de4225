"""Small files that stand for gigabytes: each is refused in one line, within seconds and little memory.

Each runs in a child process whose memory is bounded, so that a limit which is gone fails here and not elsewhere.
"""

from __future__ import annotations

import json
import re
import sqlite3
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

import somareg
from somareg.lab.train.yaml_files import read_extended
from somareg.report.record import load_report
from somareg.tiepoints.formats import read_tie_points, rows, write_tie_points
from somareg.types import Grid, TiePoints
from tests.t90_security.boxed import boxed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_DATA")


def refusal(call: Callable[[], object], most_bytes: float = 1.5e9, most_s: int = 60) -> str:
    """The one line with which a call refuses, in bounded memory and time."""
    end = boxed(call, most_bytes, most_s)
    assert not end.is_fault, end
    assert end.kind != "done"
    return end.message


def points_of(path: Path) -> object:
    return read_tie_points(path, reference=Grid(100, 100), moving=Grid(100, 100))


# --- tie points -------------------------------------------------------------------------------------------------------


def many_rows(path: Path) -> None:
    path.write_text("ref_x,ref_y,mov_x,mov_y\n" + "1,1,1,1\n" * 12_000_000)


def many_lines(path: Path) -> None:
    path.write_bytes(b"mapX,mapY,sourceX,sourceY\n" + b"1,1,1,1\n" * 12_000_000)


def many_columns(path: Path) -> None:
    path.write_bytes(b"ref_x,ref_y,mov_x,mov_y" + b"," * 100_000_000 + b"\n")


def one_long_field(path: Path) -> None:
    path.write_bytes(b"ref_x,ref_y,mov_x,mov_y\n1,1,1," + b"1" * 100_000_000 + b"\n")


def many_points(path: Path) -> None:
    path.write_bytes(b"; Base Image (x,y), Warp Image (x,y)\n" + b"1 1 1 1\n" * 12_000_000)


def many_values(path: Path) -> None:
    path.write_bytes(b'{"type":"FeatureCollection","features":[' + b"[]," * 30_000_000 + b"[]]}")


def deep(path: Path) -> None:
    path.write_bytes(b"[" * 3_000_000 + b"]" * 3_000_000)


def wide(path: Path) -> None:
    path.write_bytes(b'{"features":[' + b"1," * 50_000_000 + b"1]}")


def many_elements(path: Path) -> None:
    head = b'<VRTDataset><GCPList Projection="EPSG:32633">'
    path.write_bytes(head + b"<GCP/>" * 15_000_000 + b"</GCPList></VRTDataset>")


def laughs(path: Path) -> None:
    entities = '<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {b} "{10 * f"&{a};"}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    )
    path.write_text(f"<!DOCTYPE x [{entities}]><VRTDataset>&j;</VRTDataset>")


def geopackage(path: Path) -> sqlite3.Connection:
    xy, ones = np.ones((4, 2)), np.ones(4)
    write_tie_points(path, TiePoints(xy, xy, xy, ones, ones, ones > 0, ones))
    return sqlite3.connect(path)


def large_column(path: Path) -> None:
    """A generated column: 4 GiB in a few bytes."""
    with geopackage(path) as database:
        database.execute("ALTER TABLE tie_points ADD COLUMN bomb AS (zeroblob(4294967000))")
    database.close()


def endless_column(path: Path) -> None:
    """A formula of a thousand megabytes in each row."""
    with geopackage(path) as database:
        database.execute("ALTER TABLE tie_points ADD COLUMN bomb AS (hex(zeroblob(100000000)))")
    database.close()


def many_records(path: Path) -> None:
    with geopackage(path) as database:
        count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000000)"
        database.execute(f"{count} INSERT INTO tie_points (ref_x, ref_y, mov_x, mov_y) SELECT 1, 1, 1, 1 FROM n")
    database.close()


TIE_POINTS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "rows": ("a.csv", many_rows, "more than 4 million"),
    "lines": ("a.points", many_lines, "more than 4 million"),
    "ENVI lines": ("a.pts", many_points, "more than 4 million"),
    "columns": ("a.csv", many_columns, "longer than 1 MiB"),
    "field": ("a.tsv", one_long_field, "longer than 1 MiB"),
    "values": ("a.geojson", many_values, "more values than fit"),
    "numbers": ("a.geojson", wide, "more values than fit"),
    "deep": ("a.json", deep, "nested too deep"),
    "elements": ("a.vrt", many_elements, "more than 4 million"),
    "entities": ("a.vrt", laughs, "entities"),
    "large column": ("a.gpkg", large_column, "too big"),
    "endless column": ("a.gpkg", endless_column, "too big"),
    "records": ("a.gpkg", many_records, "more than 4 million|larger than 128 MiB"),
}


@pytest.mark.parametrize("kind", TIE_POINTS)
def test_tie_points(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, make, mention = TIE_POINTS[kind]
    if kind in {"lines", "ENVI lines"}:  # the rows of a table show what four million take
        monkeypatch.setattr(rows, "MAX_POINTS", 1_000_000)
        mention = "more than 1 million"
    make(tmp_path / name)
    told = refusal(lambda: points_of(tmp_path / name))
    assert re.search(mention, told), told
    assert str(tmp_path / name) in told
    assert len(told) < 600 + 2 * len(str(tmp_path))


# --- images -----------------------------------------------------------------------------------------------------------


def png(path: Path, width: int, height: int, rows: int) -> None:
    """A PNG that says it has a size, and holds so many black rows."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(width + 1)) for _ in range(rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def tiff(
    path: Path, width: int, height: int, *, bands: int = 1, pages: int = 1, rows: int = 0, counts: int = 1
) -> None:
    """A TIFF of a few hundred bytes that says it has a size."""
    pixels = b"\0" * 64
    head = bytearray(b"II*\0" + struct.pack("<I", 0) + pixels)
    depths = len(head)
    head += struct.pack(f"<{bands}H", *[8] * bands)
    link = 4
    for _ in range(pages):
        head += b"\0" * (len(head) % 2)
        struct.pack_into("<I", head, link, len(head))
        tags = [
            (256, 4, 1, width),
            (257, 4, 1, height),
            (258, 3, bands, depths if bands > 2 else 8 * 65537),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (273, 4, counts, 8),
            (277, 3, 1, bands),
            (278, 4, 1, rows or height),
            (279, 4, counts, len(pixels)),
        ]
        head += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        link = len(head)
        head += struct.pack("<I", 0)
    path.write_bytes(head)


IMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "png of 2^31 px": ("a.png", lambda p: png(p, 2**31 - 1, 2**31 - 1, 0)),
    "png of 60 000 px": ("a.png", lambda p: png(p, 60_000, 60_000, 100)),
    "wide png": ("a.png", lambda p: png(p, 2**31 - 1, 64, 0)),
    "tiff of 2^31 px": ("a.tif", lambda p: tiff(p, 2**31 - 1, 2**31 - 1)),
    "tiff of one strip": ("a.tif", lambda p: tiff(p, 60_000, 60_000)),
    "tiff of large strips": ("a.tif", lambda p: tiff(p, 60_000, 60_000, rows=30_000)),
    "tiff of 65 535 bands": ("a.tif", lambda p: tiff(p, 1_000, 1_000, bands=65_535)),
    "tiff of many strips": ("a.tif", lambda p: tiff(p, 64, 2**30, rows=1, counts=2**30)),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images(kind: str, tmp_path: Path) -> None:
    name, make = IMAGES[kind]
    make(tmp_path / name)
    told = refusal(lambda: somareg.assess(tmp_path / name, tmp_path / name), most_s=40)
    assert str(tmp_path / name) in told


# --- records ----------------------------------------------------------------------------------------------------------


def test_a_manifest_of_gigabytes(tmp_path: Path) -> None:
    pairs, out = tmp_path / "pairs.csv", tmp_path / "out"
    pairs.write_text("moving,reference\na.tif,b.tif\n")
    out.mkdir()
    with (out / "manifest.jsonl").open("wb") as stream:
        stream.truncate(6 << 30)  # holes take no room
    told = refusal(lambda: somareg.batch(pairs, out))
    assert "manifest.jsonl is larger than" in told


def test_a_report_of_gigabytes(tmp_path: Path) -> None:
    with (tmp_path / "report.json").open("wb") as stream:
        stream.truncate(6 << 30)
    assert "larger than any" in refusal(lambda: load_report(tmp_path / "report.json"))


def test_a_stac_item_of_gigabytes(tmp_path: Path) -> None:
    with (tmp_path / "item.json").open("wb") as stream:
        stream.truncate(6 << 30)
    assert "larger than any STAC Item" in refusal(
        lambda: somareg.assess(tmp_path / "item.json", tmp_path / "item.json")
    )


@pytest.mark.parametrize("depth", [100, 100_000])
def test_nested_records(tmp_path: Path, depth: int) -> None:
    (tmp_path / "report.json").write_text("[" * depth + "]" * depth)
    assert str(tmp_path / "report.json") in refusal(lambda: load_report(tmp_path / "report.json"))


def test_a_configuration_of_aliases(tmp_path: Path) -> None:
    """Nine lines of YAML that a merge makes a thousand million values of."""
    lines = ["a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    (tmp_path / "a.yaml").write_text("\n".join(lines) + "\n")
    assert "aliases" in refusal(lambda: read_extended(tmp_path / "a.yaml"))
    merged = "base: &base {a: 1}\nover:\n  <<: [" + ", ".join(["*base"] * 10_000) + "]\n"
    (tmp_path / "a.yaml").write_text(merged)
    assert "aliases" in refusal(lambda: read_extended(tmp_path / "a.yaml"))


def test_an_estimate_that_says_it_is_huge(tmp_path: Path) -> None:
    path = tmp_path / "displacement.tif"
    grid = json.dumps({"width": 10**9, "height": 10**9, "transform": [1, 0, 0, 0, 1, 0], "crs": None})
    with rasterio.open(path, "w", driver="GTiff", width=64, height=64, count=3, dtype="float32") as file:
        file.write(np.zeros((3, 64, 64), np.float32))
        tags = {"SOMAREG_FORMAT": "1", "SOMAREG_STEP": "4096"}
        file.update_tags(SOMAREG_REFERENCE_GRID=grid, SOMAREG_MOVING_GRID=grid, **tags)
    assert str(path) in refusal(lambda: somareg.warp(np.ones((100, 100)), path))


def test_a_tiff_of_very_many_pages_takes_its_first(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tiff(path, 64, 64, pages=20_000)
    end = boxed(lambda: somareg.register(path, path, model="orientation"), 1.5e9, 40)
    assert not end.is_fault, end
