"""Places on the ground, against rasterio and known geodesy."""

import dataclasses

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform as reproject

from somareg.errors import ConfigError, GeoreferenceError, NoOverlapError
from somareg.geometry import AffineTransform
from somareg.io import (
    assume_crs,
    check_overlap,
    from_array,
    georeference,
    lonlat_bounds,
)
from somareg.io.crs import parse_crs, turn_of
from somareg.io.georef import CrsTransform
from somareg.io.lonlat import pole_inside, to_lonlat
from somareg.types import Grid

WKT = {code: CRS.from_epsg(code).to_wkt() for code in (4326, 3395, 3857, 32632, 32633, 32601)}


def utm(width=400, height=300, size=10.0, x=500000.0, y=5000000.0, code=32632):
    return Grid(width, height, (size, 0.0, x, 0.0, -size, y), WKT[code])


def test_equal_crs_is_exactly_affine():
    to_moving = georeference(utm(), utm(size=20.0))
    assert isinstance(to_moving, AffineTransform)
    # A 20 m pixel holds 2 x 2 of 10 m: its centre lies between theirs.
    np.testing.assert_allclose(to_moving(np.array([[0.5, 0.5], [2.5, 4.5]])), [[0, 0], [1, 2]], atol=1e-9)
    same = georeference(utm(), utm())
    np.testing.assert_array_equal(same.matrix, np.eye(2, 3))


def test_equal_crs_is_compared_by_meaning():
    other = dataclasses.replace(utm(), crs="EPSG:32632")
    assert georeference(utm(), other).is_affine


@given(st.floats(-30, 30), st.floats(0.3, 3), st.floats(-1e5, 1e5))
@settings(max_examples=40)
def test_affine_agrees_with_map_coordinates(angle, scale, shift):
    turned = (
        rasterio.Affine.translation(5e5 + shift, 5e6) @ rasterio.Affine.rotation(angle) @ rasterio.Affine.scale(scale)
    )
    moving = Grid(200, 200, tuple(turned)[:6], WKT[32632])
    xy = np.random.default_rng(0).uniform(0, 400, (30, 2))
    direct = moving.to_pixel(utm().to_map(xy))
    np.testing.assert_allclose(georeference(utm(), moving)(xy), direct, atol=1e-6)


def test_other_crs_goes_through_proj_and_back():
    reference = utm()
    west, south, east, north = lonlat_bounds(reference)
    moving = Grid(500, 500, ((east - west) / 500, 0, west, 0, (south - north) / 500, north), WKT[4326])
    to_moving = georeference(reference, moving)
    assert not to_moving.is_affine
    xy = np.random.default_rng(0).uniform(0, 300, (200, 2))
    lon, lat = reproject(CRS.from_epsg(32632), CRS.from_epsg(4326), *reference.to_map(xy).T)
    np.testing.assert_allclose(to_moving(xy), moving.to_pixel(np.stack([lon, lat], -1)), atol=1e-7)
    np.testing.assert_allclose(to_moving.inverse(to_moving(xy)), xy, atol=1e-5)
    shifted = to_moving @ AffineTransform.from_parameters(shift=(3, 4))
    np.testing.assert_allclose(shifted(xy), to_moving(xy + np.array([3, 4])), atol=1e-7)


def test_unreachable_points_become_nan_and_the_others_survive():
    world = Grid(360, 200, (1, 0, -180, 0, -1, 100), WKT[4326])  # ten rows beyond each pole
    mercator = Grid(100, 100, (1e5, 0, 0, 0, -1e5, 1e6), WKT[3857])
    xy = np.array([[180.0, 2.0], [190.0, 110.0], [200.0, 197.0], [np.nan, 3.0]])
    mapped = georeference(world, mercator)(xy)
    assert np.isfinite(mapped[1]).all()
    assert np.isnan(mapped[[0, 2, 3]]).all()


def test_antimeridian():
    reference = Grid(400, 400, (10, 0, 177000 + 1e5, 0, -10, 7000000), WKT[32601])
    west, _, east, _ = lonlat_bounds(reference)
    assert east - west < 1
    # The same place written with longitudes beyond 180 and below -180 is the same place.
    for turn in (-360, 0, 360):
        centre = (west + east) / 2 + turn
        lat = lonlat_bounds(reference)[1]
        moving = Grid(600, 600, (3e-4, 0, centre - 0.09, 0, -3e-4, lat + 0.1), WKT[4326])
        assert check_overlap(reference, moving) > 0.9
    left = Grid(300, 300, (1e-3, 0, 179.9, 0, -1e-3, 10), WKT[4326])
    right = Grid(300, 300, (1e-3, 0, -180.1, 0, -1e-3, 10), WKT[4326])
    np.testing.assert_allclose(georeference(left, right).matrix, np.eye(2, 3), atol=1e-6)


def test_without_crs_pixels_lie_on_pixels():
    plain = Grid(100, 100)
    np.testing.assert_array_equal(georeference(plain, Grid(50, 70)).matrix, np.eye(2, 3))
    for pair, missing in (((plain, utm()), "sar.tif"), ((utm(), plain), "opt.tif")):
        with pytest.raises(GeoreferenceError, match=f"{missing} has no CRS and no geotransform"):
            georeference(*pair, names=("sar.tif", "opt.tif"))


@pytest.mark.parametrize("transform", [(0, 0, 5, 0, 0, 5), (1, 2, 0, 2, 4, 0), (np.nan, 0, 0, 0, 1, 0)])
def test_degenerate_geotransform(transform):
    with pytest.raises(GeoreferenceError, match=r"b\.tif has a degenerate geotransform"):
        georeference(utm(), Grid(10, 10, transform, WKT[32632]), ("a.tif", "b.tif"))


def test_assume_crs():
    raster = from_array(np.ones((64, 64)), role="moving")
    placed = dataclasses.replace(raster, grid=Grid(64, 64, utm().transform))
    assert CRS.from_wkt(assume_crs(placed, "EPSG:32632").grid.crs) == CRS.from_epsg(32632)
    assert "assumed" in assume_crs(placed, "EPSG:32632").notes[-1]
    declared = dataclasses.replace(raster, grid=utm())
    assert assume_crs(declared, "EPSG:4326") is declared
    with pytest.raises(ConfigError, match="EPSG:32632"):
        assume_crs(placed, "nonsense")
    with pytest.raises(GeoreferenceError, match=r"no geotransform.*gdal_translate.*--search full"):
        assume_crs(raster, "EPSG:32632")


def test_a_picture_beside_a_georeferenced_image_is_told_the_way_out():
    picture, unnamed = Grid(64, 64), dataclasses.replace(utm(), crs=None)
    with pytest.raises(
        GeoreferenceError, match=r"scan\.png has no CRS and no geotransform, but a\.tif .*-a_ullr.*--search"
    ):
        georeference(utm(), picture, ("a.tif", "scan.png"))
    with pytest.raises(GeoreferenceError, match=r"b\.tif has no CRS but a\.tif .*--assume-crs"):
        georeference(utm(), unnamed, ("a.tif", "b.tif"))


def test_overlap_fraction():
    assert check_overlap(utm(), utm()) == 1
    assert check_overlap(utm(), utm(x=502000)) == pytest.approx(0.5, abs=0.02)
    tiny = utm(width=4, height=4, x=501234.0, y=4999012.0)
    assert check_overlap(utm(4000, 3000), tiny) == pytest.approx(16 / 12e6, rel=0.01)
    assert check_overlap(tiny, utm(4000, 3000)) == 1


@pytest.mark.parametrize("shared", [1, 3, 80])
@pytest.mark.parametrize("code", [32632, 4326])
def test_a_narrow_strip_is_an_overlap(shared, code):
    tile = utm(10980, 10980)
    beside = utm(10980, 10980, x=500000 + 10 * (10980 - shared))
    corner = utm(10980, 10980, x=500000 + 10 * (10980 - shared), y=5000000 + 10 * (10980 - shared))
    assert check_overlap(tile, beside) == pytest.approx(shared / 10980, rel=0.01)
    assert check_overlap(tile, corner) == pytest.approx((shared / 10980) ** 2, rel=0.01)
    if code == 4326:  # across CRSs: a frame of degrees whose south touches the tile's north
        west, _, east, north = lonlat_bounds(tile)
        step = (east - west) / 9000
        above = Grid(9000, 9000, (step, 0, west, 0, -step, north - shared * step + 9000 * step), WKT[4326])
        assert 0 < check_overlap(tile, above) < 0.01


@pytest.mark.parametrize(("right", "up"), [(10980, 0), (0, 10980), (-10980, 0), (10980, -10980), (10983, 5)])
def test_neighbours_share_no_ground(right, up):
    with pytest.raises(NoOverlapError, match="share no ground"):
        check_overlap(utm(10980, 10980), utm(10980, 10980, x=500000 + 10 * right, y=5000000 + 10 * up))


def test_no_overlap_prints_both_bounds_in_degrees():
    with pytest.raises(NoOverlapError) as caught:
        check_overlap(utm(), utm(code=32633), ("opt.tif", "sar.tif"))
    message = str(caught.value)
    west, south, east, north = lonlat_bounds(utm())
    assert f"opt.tif covers {west:.4f} to {east:.4f} E, {south:.4f} to {north:.4f} N" in message
    assert f"sar.tif covers {west + 6:.4f} to {east + 6:.4f} E" in message
    assert "\n" not in message


def test_wrong_but_valid_crs_does_not_crash():
    with pytest.raises(NoOverlapError):
        check_overlap(utm(), dataclasses.replace(utm(), crs=WKT[3857]))


# --- maps that wrap, poles, other bodies ------------------------------------------------------------------------------

WRAPPING = [
    "EPSG:4326",
    "EPSG:4807",
    "EPSG:3857",
    "EPSG:3395",
    "EPSG:3832",
    "EPSG:4087",
    "EPSG:6933",
    "+proj=mill +R=1000",
]


@given(st.sampled_from(WRAPPING), st.integers(-2, 2), st.floats(-0.49, 0.49), st.floats(-3, 3))
@settings(max_examples=60, deadline=None)
def test_turns_around_the_earth_do_not_count(crs, turns, share, scale):
    """An image lies where it lies, from whichever end of the map its x is counted."""
    turn = turn_of(crs)
    size = turn * 1e-6
    x = share * turn
    reference = Grid(200, 100, (size, 0, x, 0, -size, 0.05 * turn), crs)
    moving = Grid(200, 100, (size, 0, x + turns * turn, 0, -size, 0.05 * turn), crs)
    xy = np.array([[0.0, 0.0], [199.0, 0.0], [0.0, 99.0], [50.0, 50.0]])
    np.testing.assert_allclose(georeference(reference, moving)(xy), xy, atol=0.01)
    bent = CrsTransform(reference, moving)
    np.testing.assert_allclose(bent(xy), xy, atol=0.01)
    np.testing.assert_allclose(bent.inverse(xy), xy, atol=0.01)
    assert check_overlap(reference, moving) == 1


def test_bounds_of_the_world_and_across_its_edge():
    assert lonlat_bounds(Grid(360, 180, (1, 0, -180, 0, -1, 90), WKT[4326])) == (-180, -90, 180, 90)
    assert lonlat_bounds(Grid(360, 180, (1, 0, 0, 0, -1, 90), WKT[4326]))[::2] == (-180, 180)
    edge = 20037508.342789244
    world = Grid(4007, 4007, (1e4, 0, -edge, 0, -1e4, edge), WKT[3857])
    assert lonlat_bounds(world)[::2] == pytest.approx((-180, 180), abs=0.1)
    for left in (edge - 5e4, -edge - 5e4):
        west, _, east, _ = lonlat_bounds(Grid(100, 100, (1e3, 0, left, 0, -1e3, 0), WKT[3857]))
        assert (west, east) == pytest.approx((179.55, 180.45), abs=0.01)


@pytest.mark.parametrize(("code", "pole"), [(3413, 90), (3031, -90), (3573, 90), (3995, 90), (32661, 90), (6931, 90)])
def test_an_image_that_holds_a_pole_has_all_longitudes(code, pole):
    crs = CRS.from_epsg(code)
    x, y = (v[0] for v in reproject(CRS.from_epsg(4326), crs, [0], [pole]))
    grid = Grid(200, 200, (1000.0, 0, x - 60e3, 0, -1000.0, y + 110e3), crs.to_wkt())
    assert pole_inside(grid) == pole
    west, south, east, north = lonlat_bounds(grid)
    assert (west, east) == (-180, 180)
    far = max(abs(90 - abs(lat)) for lat in (south, north))
    assert pole in (south, north)
    assert far == pytest.approx(np.hypot(140, 110) / 111.7, rel=0.05)
    beside = dataclasses.replace(grid, transform=(1000.0, 0, x + 10e3, 0, -1000.0, y + 110e3))
    assert pole_inside(beside) is None
    assert abs(lonlat_bounds(beside)[3 if pole > 0 else 1]) < 90


@pytest.mark.parametrize("code", [4326, 3857, 3395])
def test_maps_without_a_pole_hold_none(code):
    assert pole_inside(Grid(1000, 1000, (1e5, 0, -5e7, 0, -1e5, 5e7), WKT[code])) is None


def test_other_bodies_and_local_systems_have_no_place_on_the_earth():
    mars = Grid(100, 100, (10, 0, 0, 0, -10, 0), "+proj=eqc +R=3396190 +units=m")
    local = Grid(100, 100, (10, 0, 0, 0, -10, 0), 'LOCAL_CS["site",UNIT["metre",1]]')
    for grid in (mars, local):
        with pytest.raises(GeoreferenceError, match="no longitude and latitude"):
            to_lonlat(grid, np.zeros((1, 2)))
        assert georeference(grid, grid).is_affine
        away = dataclasses.replace(grid, transform=(10, 0, 1e5, 0, -10, 0))
        with pytest.raises(NoOverlapError, match="map units"):
            check_overlap(grid, away)
    with pytest.raises(GeoreferenceError, match="cannot be joined"):
        check_overlap(mars, utm())


@pytest.mark.parametrize(
    "text", ["/etc/hostname", "http://example.invalid/crs", "hostname", "", "EPSG:99999", "EPSG:abc"]
)
def test_a_crs_is_a_definition_and_no_file_or_address(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostname").write_text(WKT[4326])
    with pytest.raises(GeoreferenceError, match="cannot be understood"):
        parse_crs(text)


@pytest.mark.parametrize(
    "text", ["EPSG:4326", "urn:ogc:def:crs:EPSG::32632", "OGC:CRS84", "IAU_2015:30100", "+proj=utm +zone=33"]
)
def test_definitions_of_every_kind(text):
    assert parse_crs(text).to_wkt()
    assert parse_crs(parse_crs(text).to_wkt()) == parse_crs(text)
