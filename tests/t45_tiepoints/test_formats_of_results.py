"""The point files of a result, GeoJSON and QGIS points: what they say, conventions kept."""

import csv
import json

import numpy as np
import pytest
import rasterio

from somareg.errors import OutputError
from somareg.io.lonlat import to_lonlat
from somareg.tiepoints.formats import write_tie_points
from somareg.types import Grid, TiePoints

WKT = rasterio.CRS.from_epsg(32632).to_wkt()
REF = Grid(160, 120, (10, 0, 500000.123456789, 0, -10, 5000000.1), WKT)


def ties(n=5):
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 100, (n, 2))
    inlier = np.arange(n) % 2 == 0
    residual = np.where(np.arange(n) == 1, np.nan, 0.25)
    return TiePoints(xy, xy + 3, np.full((n, 2), 1.5), np.full(n, 0.3), np.full(n, 0.9), inlier, residual)


def test_geojson_in_degrees(tmp_path):
    points = ties()
    text = write_tie_points(tmp_path / "t.geojson", points, reference=REF).read_text()
    collection = json.loads(text)
    assert collection["type"] == "FeatureCollection" and "coordinates" not in collection
    first = collection["features"][0]
    np.testing.assert_allclose(first["geometry"]["coordinates"], to_lonlat(REF, points.reference_xy[:1])[0], atol=1e-8)
    got = first["properties"]
    assert (got["ref_x"], got["mov_x"]) == pytest.approx((points.reference_xy[0, 0], points.moving_xy[0, 0]), abs=1e-3)
    assert got["dx"] == 1.5 and got["inlier"] is True and got["sigma_px"] == 0.3 and got["confidence"] == 0.9
    assert got["dx_m"] == pytest.approx(15.0, rel=1e-3) and got["residual_m"] == pytest.approx(2.5, rel=1e-3)
    assert collection["features"][1]["properties"]["residual_px"] is None


def test_geojson_in_pixels_says_so(tmp_path):
    collection = json.loads(write_tie_points(tmp_path / "t.geojson", ties(), reference=Grid(160, 120)).read_text())
    assert "not longitude and latitude" in collection["coordinates"]
    first = collection["features"][0]
    np.testing.assert_allclose(first["geometry"]["coordinates"], ties().reference_xy[0], atol=1e-3)
    assert "dx_m" not in first["properties"]
    with pytest.raises(OutputError, match="exists"):
        write_tie_points(tmp_path / "t.geojson", ties(), reference=REF)


def read_qgis(path):
    lines = path.read_text().splitlines()
    crs = lines.pop(0).removeprefix("#CRS: ") if lines[0].startswith("#") else None
    return crs, list(csv.DictReader(lines))


def test_qgis_points_of_a_georeferenced_pair(tmp_path):
    points = ties()
    moving = Grid(300, 200, (8.1, 0.1, 499000, 0.2, -8, 5000900), WKT)
    crs, rows = read_qgis(write_tie_points(tmp_path / "g.points", points, reference=REF, moving=moving))
    assert rasterio.CRS.from_wkt(crs) == rasterio.CRS.from_epsg(32632)
    assert list(rows[0]) == ["mapX", "mapY", "sourceX", "sourceY", "enable", "dX", "dY", "residual"]
    assert [row["enable"] for row in rows] == ["1", "0", "1", "0", "1"]
    expected = rasterio.transform.xy(rasterio.Affine(*REF.transform), *points.reference_xy[0][::-1])
    np.testing.assert_allclose((float(rows[0]["mapX"]), float(rows[0]["mapY"])), expected, atol=1e-3)
    source = rasterio.transform.xy(rasterio.Affine(*moving.transform), *points.moving_xy[0][::-1])
    np.testing.assert_allclose((float(rows[0]["sourceX"]), float(rows[0]["sourceY"])), source, atol=1e-3)


def test_qgis_points_of_a_plain_moving_image(tmp_path):
    points = ties()
    _, rows = read_qgis(write_tie_points(tmp_path / "g.points", points, reference=REF, moving=Grid(300, 200)))
    column, row = points.moving_xy[0] + 0.5  # corner of the first pixel is (0, 0), y up
    np.testing.assert_allclose((float(rows[0]["sourceX"]), float(rows[0]["sourceY"])), (column, -row), atol=1e-3)
    crs, _ = read_qgis(write_tie_points(tmp_path / "p.points", points, reference=Grid(160, 120), moving=Grid(300, 200)))
    assert crs is None
