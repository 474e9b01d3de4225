"""Tie points: every format there and back, and as other programs read them."""

import dataclasses
import json
import sqlite3
import subprocess
import sys
import warnings

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning

from somareg.errors import ConfigError, InputError, OutputError
from somareg.io import georeference
from somareg.io.lonlat import to_lonlat
from somareg.io.writer import write_geotiff
from somareg.tiepoints.formats import convert_tie_points, geopackage, read_tie_points, write_tie_points
from somareg.types import Grid, TiePoints
from tests.t45_tiepoints import ogr

UTM, MERCATOR, LONLAT = (rasterio.CRS.from_epsg(code).to_wkt() for code in (32632, 3857, 4326))
PLACED = Grid(400, 300, (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), UTM)
TURNED = Grid(420, 330, (9.1, 0.4, 499900.0, 0.3, -9.3, 5000100.0), UTM)
DEGREES = Grid(500, 400, (1e-4, 0.0, 9.0, 0.0, -1e-4, 45.2), LONLAT)
PLAIN, OTHER = Grid(400, 300), Grid(420, 330)

ATTRIBUTES = ("reference_xy", "moving_xy", "displacement", "sigma_px", "confidence", "inlier", "residual_px")


def points_of(reference, moving, n=12, seed=0):
    """Points all over both images, with everything that can be told of them."""
    rng = np.random.default_rng(seed)
    here = rng.uniform(0, (reference.width - 1, reference.height - 1), (n, 2))
    georef = georeference(reference, moving)
    away = rng.normal(0, 5, (n, 2))
    return TiePoints(
        reference_xy=here,
        moving_xy=georef(here + away),
        displacement=away,
        sigma_px=rng.uniform(0.05, 2, n),
        confidence=rng.uniform(0, 1, n),
        inlier=rng.random(n) > 0.3,
        residual_px=rng.uniform(0, 4, n),
    )


def equal(first, second, attributes=ATTRIBUTES, atol=1e-7):
    for name in attributes:
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), atol=atol, err_msg=name)


def inliers(points):
    return TiePoints(**{name: getattr(points, name)[points.inlier] for name in ATTRIBUTES})


@pytest.fixture(scope="session")
def moving_file(tmp_path_factory):
    """A georeferenced moving image with two bands and a nodata value."""
    data = np.random.default_rng(0).integers(0, 999, (2, TURNED.height, TURNED.width)).astype(np.uint16)
    return write_geotiff(
        tmp_path_factory.mktemp("m") / "moving image.tif", data, TURNED, nodata=7, descriptions=("VV", "VH")
    )


# --- there and back ------------------------------------------------------------------------------------------------

GRIDS = {
    "one CRS": (PLACED, TURNED),
    "two CRSs": (PLACED, Grid(500, 400, (1e-4, 0.0, 8.99, 0.0, -1e-4, 45.16), LONLAT)),
    "plain": (PLAIN, OTHER),
    "degrees": (DEGREES, DEGREES),
}
EVERYTHING = {"geojson": 6e-5, "json": 6e-5, "gpkg": 1e-9, "csv": 1e-9, "tsv": 1e-9}


@given(st.data(), st.sampled_from(sorted(GRIDS)), st.sampled_from(sorted(EVERYTHING)), st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_tables_hold_everything(tmp_path_factory, data, pair, suffix, n):
    reference, moving = GRIDS[pair]
    points = points_of(reference, moving, n, data.draw(st.integers(0, 1000)))
    known = data.draw(st.booleans())
    if not known:
        points = dataclasses.replace(points, sigma_px=np.full(n, np.nan), residual_px=np.full(n, np.nan))
    images = {"reference": reference, "moving": moving} if data.draw(st.booleans()) else {}
    path = tmp_path_factory.mktemp("t") / f"points.{suffix}"
    assert write_tie_points(path, points, **images) == path
    equal(read_tie_points(path), points, atol=EVERYTHING[suffix])
    # A displacement read again through two grids is the difference of two rounded positions.
    again = read_tie_points(path, reference=reference, moving=moving)
    equal(again, points, atol=max(2e-4, 4 * EVERYTHING[suffix]))


@given(st.floats(-1e7, 1e7), st.floats(-1e7, 1e7), st.floats(1e-9, 1e6))
@settings(max_examples=60, deadline=None)
def test_any_number_survives(tmp_path_factory, x, y, sigma):
    one = np.array([[x, y]])
    points = TiePoints(one, one[:, ::-1], one / 3, np.array([sigma]), np.array([0.5]), np.array([False]), np.array([x]))
    folder = tmp_path_factory.mktemp("n")
    for suffix in ("csv", "gpkg"):
        path = write_tie_points(folder / f"p.{suffix}", points)
        back = read_tie_points(path)
        for name in ATTRIBUTES:
            np.testing.assert_array_equal(getattr(back, name), getattr(points, name))


@given(st.integers(0, 1000), st.sampled_from(sorted(GRIDS)))
@settings(max_examples=40, deadline=None)
def test_qgis_points(tmp_path_factory, seed, pair):
    reference, moving = GRIDS[pair]
    points = points_of(reference, moving, seed=seed)
    images = {"reference": reference, "moving": moving}
    path = write_tie_points(tmp_path_factory.mktemp("q") / "gcps.points", points, **images)
    back = read_tie_points(path, **images)
    equal(back, points, ("reference_xy", "moving_xy", "displacement", "inlier"), atol=1e-4)
    equal(back, points, ("residual_px",), atol=1e-4)
    assert np.isnan(back.sigma_px).all() and np.isnan(back.confidence).all()


@given(st.integers(0, 1000), st.sampled_from(sorted(GRIDS)))
@settings(max_examples=40, deadline=None)
def test_envi_image_to_image(tmp_path_factory, seed, pair):
    reference, moving = GRIDS[pair]
    points = points_of(reference, moving, seed=seed)
    path = write_tie_points(tmp_path_factory.mktemp("e") / "gcps.pts", points)
    equal(read_tie_points(path), inliers(points), ("reference_xy", "moving_xy"), atol=1e-7)


@given(st.integers(0, 1000), st.sampled_from(["UTM north", "UTM south", "degrees"]))
@settings(max_examples=30, deadline=None)
def test_envi_image_to_map(tmp_path_factory, seed, where):
    crs = {"UTM north": UTM, "UTM south": rasterio.CRS.from_epsg(32756).to_wkt(), "degrees": LONLAT}[where]
    reference = dataclasses.replace(DEGREES if where == "degrees" else PLACED, crs=crs)
    points = inliers(points_of(reference, reference, seed=seed))
    folder = tmp_path_factory.mktemp("e")
    images = {"reference": reference, "moving": OTHER}
    if not len(points):
        return
    # The moving image is plain here, so what QGIS holds is map and pixel; no reference image is needed on the way.
    write_tie_points(folder / "a.points", points, **images)
    done = convert_tie_points(folder / "a.points", folder / "b.pts", moving=OTHER)
    assert (done.read, done.written) == (len(points), len(points))
    assert "Image to Map" in (folder / "b.pts").read_text()
    equal(read_tie_points(folder / "b.pts", **images), points, ("reference_xy", "moving_xy"), atol=2e-4)


@pytest.mark.parametrize("suffix", ["tif", "vrt"])
@pytest.mark.parametrize("reference", [PLACED, DEGREES, dataclasses.replace(PLACED, crs=MERCATOR)])
def test_gdal_control_points(tmp_path, moving_file, suffix, reference):
    points = points_of(PLACED, TURNED)
    path = tmp_path / f"gcps.{suffix}"
    images = {"reference": reference, "moving": moving_file}
    write_tie_points(path, points, **images)
    back = read_tie_points(path, reference=reference)
    kept = inliers(points)
    equal(back, kept, ("reference_xy", "moving_xy"), atol=1e-5)
    if suffix == "vrt":
        equal(back, kept, ("sigma_px", "confidence", "residual_px"), atol=0)


# --- as other programs read them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["tif", "vrt"])
def test_gdal_sees_the_moving_image_placed_by_the_points(tmp_path, moving_file, suffix):
    points = points_of(PLACED, TURNED)
    (tmp_path / "deep").mkdir()
    path = write_tie_points(tmp_path / "deep" / f"gcps.{suffix}", points, reference=PLACED, moving=moving_file)
    kept = inliers(points)
    with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning):
        placed = rasterio.open(path, driver="GTiff" if suffix == "tif" else "VRT")
    with placed, rasterio.open(moving_file) as original:
        np.testing.assert_array_equal(placed.read(), original.read())
        assert placed.nodata == 7 and placed.descriptions == ("VV", "VH")
        assert placed.transform.is_identity and placed.crs is None
        gcps, crs = placed.gcps
    assert crs == rasterio.CRS.from_epsg(32632)
    # GDAL counts from the corner of the first pixel.
    np.testing.assert_allclose([(p.col, p.row) for p in gcps], kept.moving_xy + 0.5, atol=1e-9)
    np.testing.assert_allclose([(p.x, p.y) for p in gcps], PLACED.to_map(kept.reference_xy), atol=1e-6)


def test_gdal_warps_the_vrt_onto_the_reference(tmp_path):
    """The sign and the half pixel, end to end: GDAL's own warp puts a marked pixel where the points say."""
    data = np.zeros((1, 200, 220), np.float32)
    data[0, 90, 110] = 1000.0
    moving = write_geotiff(tmp_path / "m.tif", data, Grid(220, 200))
    corners = np.array([[0.0, 0.0], [200.0, 0.0], [0.0, 180.0], [200.0, 180.0], [100.0, 50.0]])
    points = dataclasses.replace(
        points_of(PLACED, PLACED, 5), reference_xy=corners + np.array([12, -7]), moving_xy=corners
    )
    points = dataclasses.replace(points, inlier=np.ones(5, bool))
    path = write_tie_points(tmp_path / "m.vrt", points, reference=PLACED, moving=moving)
    with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning):
        source = rasterio.open(path, driver="VRT")
    out = np.zeros(PLACED.shape, np.float32)
    gcps, crs = source.gcps
    with source:
        rasterio.warp.reproject(
            source.read(1), out, gcps=gcps, src_crs=crs, dst_crs=UTM, dst_transform=rasterio.Affine(*PLACED.transform)
        )
    row, column = np.unravel_index(out.argmax(), out.shape)
    assert (column, row) == (110 + 12, 90 - 7)
    assert out[row, column] == 1000.0  # exactly on the pixel: no half of it went to a neighbour


@pytest.mark.skipif(ogr.GDAL is None, reason="this build of rasterio keeps its GDAL elsewhere")
@pytest.mark.parametrize("pair", GRIDS)
def test_gdal_reads_the_geopackage(tmp_path, pair):
    reference, moving = GRIDS[pair]
    points = points_of(reference, moving)
    path = write_tie_points(tmp_path / "p.gpkg", points, reference=reference, moving=moving)
    name, code, features = ogr.read_layer(path)
    assert (name, len(features)) == ("tie_points", 12)
    assert code == {"one CRS": "32632", "two CRSs": "32632", "plain": None, "degrees": "4326"}[pair]
    assert [f["ref_x"] for f in features] == points.reference_xy[:, 0].tolist()
    assert [f["sigma_px"] for f in features] == points.sigma_px.tolist()
    assert [f["inlier"] for f in features] == points.inlier.tolist()
    there = points.reference_xy if reference.crs else None
    ends = reference.to_map(there) if reference.crs else (points.reference_xy + 0.5) * (1, -1)
    begins = points.reference_xy + points.displacement
    begins = reference.to_map(begins) if reference.crs else (begins + 0.5) * (1, -1)
    np.testing.assert_allclose([f["vertices"][1] for f in features], ends, rtol=1e-12)
    np.testing.assert_allclose([f["vertices"][0] for f in features], begins, rtol=1e-9)


@pytest.mark.skipif(ogr.GDAL is None, reason="this build of rasterio keeps its GDAL elsewhere")
def test_gdal_reads_the_geojson(tmp_path):
    points = points_of(PLACED, TURNED)
    _, code, features = ogr.read_layer(write_tie_points(tmp_path / "p.geojson", points, reference=PLACED))
    assert code == "4326"
    np.testing.assert_allclose([f["vertices"][0] for f in features], to_lonlat(PLACED, points.reference_xy), atol=1e-8)


def test_geopackage_is_what_the_standard_asks(tmp_path):
    """OGC 12-128r18: requirements 2, 3, 10, 11, 13, 14, 18, 21 and the geometry's header."""
    path = write_tie_points(tmp_path / "p.gpkg", points_of(PLACED, TURNED), reference=PLACED, moving=TURNED)
    head = path.read_bytes()[:72]
    assert head[:16] == b"SQLite format 3\0" and head[68:72] == b"GPKG"
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert not database.execute("PRAGMA foreign_key_check").fetchall()
        assert database.execute("PRAGMA user_version").fetchone()[0] >= 10200
        ids = {row[0] for row in database.execute("SELECT srs_id FROM gpkg_spatial_ref_sys")}
        assert ids == {-1, 0, 4326, 32632}
        contents = database.execute("SELECT table_name, data_type, srs_id, min_x, max_y FROM gpkg_contents").fetchall()
        assert [row[:3] for row in contents] == [("tie_points", "features", 32632)]
        assert 499000 < contents[0][3] < contents[0][4] < 5001000
        (blob,) = database.execute("SELECT geom FROM tie_points LIMIT 1").fetchone()
        assert blob[:4] == b"GP\x00\x01" and int.from_bytes(blob[4:8], "little") == 32632


def test_a_crs_without_a_number(tmp_path):
    own = rasterio.CRS.from_proj4("+proj=laea +lat_0=52 +lon_0=10 +x_0=7 +y_0=0 +ellps=GRS80 +units=m").to_wkt()
    grid = dataclasses.replace(PLACED, crs=own)
    points = points_of(grid, grid)
    path = write_tie_points(tmp_path / "p.gpkg", points, reference=grid, moving=grid)
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE tie_points DROP COLUMN ref_x")
        database.commit()
    # Without its columns the reference's place is the line's end, in the CRS that the file defines.
    equal(read_tie_points(path, reference=grid), points, ("reference_xy", "moving_xy"), atol=1e-6)


# --- what has no place ---------------------------------------------------------------------------------------------


def lost(points):
    """The second point has no place in the moving image."""
    moving = points.moving_xy.copy()
    moving[1] = np.nan
    away = points.displacement.copy()
    away[1] = np.nan
    return dataclasses.replace(points, moving_xy=moving, displacement=away, inlier=np.ones(len(points), bool))


@pytest.mark.parametrize("suffix", ["csv", "geojson", "gpkg"])
def test_tables_keep_a_point_without_a_place(tmp_path, suffix):
    points = lost(points_of(PLACED, TURNED))
    path = write_tie_points(tmp_path / f"p.{suffix}", points, reference=PLACED)
    back = read_tie_points(path)
    equal(back, points, atol=1e-4)
    assert np.isnan(back.moving_xy[1]).all()


def test_the_others_leave_it_out_and_say_so(tmp_path, caplog, moving_file):
    points = lost(points_of(PLACED, TURNED))
    images = {"reference": PLACED, "moving": moving_file}
    for suffix, words in (("points", "1 points have no place"), ("pts", ""), ("vrt", ""), ("tif", "")):
        csv = write_tie_points(tmp_path / "a.csv", points, overwrite=True)
        done = convert_tie_points(csv, tmp_path / f"a.{suffix}", **images)
        assert (done.read, done.written) == (12, 11)
        assert words in caplog.text


# --- wholeness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["geojson", "gpkg", "csv", "points", "pts", "vrt", "tif"])
def test_nothing_is_replaced_unasked_and_nothing_left_behind(tmp_path, moving_file, suffix, monkeypatch):
    points = points_of(PLACED, TURNED)
    images = {"reference": PLACED, "moving": moving_file}
    path = tmp_path / f"p.{suffix}"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        write_tie_points(path, points, **images)
    assert path.read_text() == "mine"
    write_tie_points(path, points, **images, overwrite=True)
    before = path.read_bytes()

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("somareg.io.atomic.sync", refuse)
    with pytest.raises(OutputError, match="disk full"):
        write_tie_points(path, points, **images, overwrite=True)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_in_and_out_are_two_files(tmp_path):
    path = write_tie_points(tmp_path / "a.csv", points_of(PLAIN, OTHER))
    with pytest.raises(OutputError, match="input itself"):
        convert_tie_points(path, path, overwrite=True)


def test_the_moving_image_is_not_overwritten(tmp_path, moving_file):
    with pytest.raises(OutputError, match="moving image itself"):
        write_tie_points(moving_file, points_of(PLACED, TURNED), reference=PLACED, moving=moving_file, overwrite=True)


@pytest.mark.parametrize(
    ("suffix", "images", "words"),
    [
        ("vrt", {"reference": PLACED}, "--moving"),
        ("tif", {"reference": PLACED, "moving": TURNED}, "--moving"),
        ("shp", {}, r"unknown suffix '\.shp'"),
    ],
)
def test_what_is_missing_is_named(tmp_path, suffix, images, words):
    kind = ConfigError if suffix == "shp" else InputError
    with pytest.raises(kind, match=words):
        write_tie_points(tmp_path / f"p.{suffix}", points_of(PLACED, TURNED), **images)
    assert not list(tmp_path.iterdir())


def test_control_points_need_a_map(tmp_path, moving_file):
    for images, words in (({}, "--reference"), ({"reference": PLAIN}, "no CRS")):
        with pytest.raises(InputError, match=words):
            write_tie_points(tmp_path / "p.vrt", points_of(PLAIN, OTHER), moving=moving_file, **images)


def test_geojson_stays_json(tmp_path):
    points = lost(points_of(PLACED, TURNED))
    text = write_tie_points(tmp_path / "p.geojson", points, reference=PLACED).read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_geopackage_on_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(geopackage, "_SCHEMA", "PRAGMA max_page_count = 6;" + geopackage._SCHEMA)  # SQLite's own limit
    with pytest.raises(OutputError, match=r"points\.gpkg failed: .*full; make room"):
        write_tie_points(tmp_path / "points.gpkg", points_of(PLACED, PLACED, 3))
    assert not any(tmp_path.iterdir())


def test_geopackage_without_its_geometry_column(tmp_path):
    path = write_tie_points(tmp_path / "points.gpkg", points_of(PLACED, PLACED, 3))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE gpkg_geometry_columns SET column_name = 'shape'")
    database.close()
    with pytest.raises(InputError, match=r"points\.gpkg: layer 'tie_points' has no column 'shape'"):
        read_tie_points(path)


def test_reading_points_loads_no_torch():
    code = "import sys, somareg; somareg.read_tie_points; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
