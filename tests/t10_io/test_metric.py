"""Metres of pixels in any CRS, at any latitude and in any direction, against geodesics on the ellipsoid."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform as reproject_points

from somareg.io import ground_metric
from somareg.io.crs import ellipsoid_of, parse_crs, turn_of
from somareg.io.ground_control import control_grid, gdal_points
from somareg.types import Grid, metric_of, square_metric

pyproj = pytest.importorskip("pyproj")

WHERE = {
    # CRS -> longitudes and latitudes at which it is used
    "EPSG:4326": (-180, 180, -89, 89),
    "EPSG:4979": (-180, 180, -89, 89),
    "EPSG:4807": (-4, 9, 42, 51),  # grads from Paris
    "EPSG:3857": (-180, 180, -80, 80),
    "EPSG:3395": (-180, 180, -80, 80),
    "EPSG:32632": (3, 15, -80, 84),
    "EPSG:32719": (-75, -63, -80, 0),
    "EPSG:2263": (-74.3, -71.8, 40.4, 41.3),  # US survey feet
    "EPSG:27700": (-7, 2, 50, 60),
    "EPSG:2154": (-5, 9, 42, 51),
    "EPSG:3413": (-180, 180, 60, 90),  # the pole lies inside
    "EPSG:3031": (-180, 180, -90, -60),
    "EPSG:3573": (-180, 180, 50, 89.9),
    "EPSG:3035": (-10, 40, 35, 70),
    "EPSG:6933": (-180, 180, -70, 70),  # equal-area: pixels are long where they are low
    "EPSG:2193": (167, 178, -47, -34),  # northing comes first
    "EPSG:2053": (28, 30, -35, -22),  # axes lead south and west
    "ESRI:54009": (-170, 170, -75, 75),  # sheared away from its meridian
    "EPSG:32632+5773": (3, 15, 0, 60),
}


def geographic_of(crs: str) -> str:
    """The oracle's own words for the longitudes and latitudes under a CRS."""
    base = pyproj.CRS(crs).geodetic_crs
    while base.is_compound:
        base = base.sub_crs_list[0]
    return base.to_wkt()


def geodesic_m(grid: Grid, first: np.ndarray, second: np.ndarray) -> float:
    """Metres between two pixel places along the geodesic, by PROJ's own arithmetic."""
    ends = grid.to_map(np.stack([first, second]))
    parsed = pyproj.CRS(grid.crs)
    onto = pyproj.Transformer.from_crs(parsed, parsed.geodetic_crs, always_xy=True)
    unit = math.degrees(parsed.geodetic_crs.axis_info[0].unit_conversion_factor)
    (lon0, lon1), (lat0, lat1) = (np.array(v) * unit for v in onto.transform(*ends.T)[:2])
    return float(parsed.get_geod().inv(lon0, lat0, lon1, lat1)[2])


@pytest.mark.parametrize("crs", WHERE)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_crs_latitude_and_direction(crs: str, data: st.DataObject) -> None:
    west, south, east, north = (WHERE[crs][i] for i in (0, 2, 1, 3))
    lon, lat = data.draw(st.floats(west, east)), data.draw(st.floats(south, north))
    turn, skew, oblong = (data.draw(st.floats(*ends)) for ends in ((0, 360), (-0.5, 0.5), (0.3, 3.0)))
    parsed = parse_crs(crs)
    x, y = (v[0] for v in reproject_points(CRS.from_epsg(4326), parsed, [lon], [lat])[:2])
    assume(np.isfinite([x, y]).all())
    size = 10.0 / parsed.units_factor[1] / (6.4e6 if parsed.is_geographic else 1.0)  # about 10 m
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    steps = size * np.array([[cos, -sin], [sin, cos]]) @ np.array([[1.0, skew], [0.0, -oblong]])
    corner = np.array([x, y]) - steps @ np.array([50.0, 50.0])
    grid = Grid(100, 100, (*steps[0], corner[0], *steps[1], corner[1]), parsed.to_wkt())
    metric = ground_metric(grid)
    assert metric is not None
    centre = np.array([49.5, 49.5])
    angle = math.radians(data.draw(st.floats(0, 360)))
    direction = np.array([math.cos(angle), math.sin(angle)])
    true = geodesic_m(grid, centre - 2 * direction, centre + 2 * direction) / 4
    assert metric.lengths(direction[None])[0] == pytest.approx(true, rel=0.01)
    edges = [geodesic_m(grid, centre - 2 * e, centre + 2 * e) / 4 for e in np.eye(2)]
    assert metric.pixel_m == pytest.approx(edges, rel=0.01)


def test_many_places_have_a_metric_each() -> None:
    grid = Grid(100, 1800, (0.1, 0, 0, 0, -0.1, 90.0), "EPSG:4326")
    rows = np.array([[50.0, row] for row in (0.0, 300.0, 899.5, 1500.0)])
    metric = ground_metric(grid, rows)
    assert metric is not None
    for step in ([1.0, 0.0], [0.0, 1.0], [0.6, -0.8]):
        true = [geodesic_m(grid, row - 0.05 * np.array(step), row + 0.05 * np.array(step)) * 10 for row in rows]
        np.testing.assert_allclose(metric.lengths(np.tile(step, (4, 1))), true, rtol=1e-3)


def test_a_pole_and_the_antimeridian_are_places_like_any_other() -> None:
    pole = ground_metric(Grid(100, 100, (100.0, 0, -5000.0, 0, -100.0, 5000.0), "EPSG:3413"))
    assert pole is not None
    true = 100 / ((1 + math.sin(math.radians(70.0))) / 2)  # lengths are true at 70 degrees north
    assert pole.pixel_m == pytest.approx((true, true), rel=1e-3)
    seam = ground_metric(Grid(101, 100, (10.0, 0, 20037508.34 - 505, 0, -10.0, 0.0), "EPSG:3857"))
    assert seam is not None
    assert seam.pixel_m == pytest.approx((10.0, 10.0), rel=0.01)
    # In degrees a pole has no width: a radius in metres can only go all around.
    degrees = ground_metric(Grid(101, 101, (0.1, 0, 0, 0, -0.1, 90.0 + 5.05), "EPSG:4326"))
    assert degrees is not None
    assert degrees.pixel_m[0] == pytest.approx(0, abs=1e-6)
    assert degrees.reach_px(100.0) > 1e6


def test_pixels_that_control_points_place() -> None:
    """Radar geometry: mirrored, oblong, turned."""
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(0, 400, 5), np.linspace(0, 300, 4)))
    xy = np.stack([x, y], -1) - 0.5
    turn = math.radians(12)
    cos, sin = math.cos(turn), math.sin(turn)
    on_map = np.stack([-8 * x * cos - 20 * y * sin + 5e5, 8 * x * sin - 20 * y * cos + 5e6], -1)
    grid, _ = control_grid((400, 300), gdal_points(xy, on_map), CRS.from_epsg(32632), "radar image")
    metric = ground_metric(grid)
    assert metric is not None
    assert metric.pixel_m == pytest.approx((8 / 0.9996, 20 / 0.9996), rel=1e-3)


def test_local_systems_have_lengths_and_unnamed_ones_none() -> None:
    place = (2.0, 0, 100.0, 0, -3.0, 50.0)
    local = 'LOCAL_CS["site",UNIT["foot",0.3048],AXIS["east",EAST],AXIS["north",NORTH]]'
    metric = ground_metric(Grid(50, 50, place, local))
    assert metric is not None
    assert metric.pixel_m == pytest.approx((0.6096, 0.9144))
    assert ground_metric(Grid(50, 50, place)) is None
    assert ground_metric(Grid(50, 50, place, unnamed_crs=True)) is None
    assert ground_metric(Grid(50, 50, (1e9, 0, 1e15, 0, -1e9, 1e15), "EPSG:32632")) is None


def test_another_body_has_its_own_size() -> None:
    mars = "+proj=eqc +R=3396190 +units=m"
    metric = ground_metric(Grid(100, 100, (100.0, 0, 0, 0, -100.0, 3396190 * math.radians(60.0)), mars))
    assert metric is not None
    assert metric.pixel_m == pytest.approx((50.0, 100.0), rel=0.01)
    assert ellipsoid_of(mars).equator_m == 3396190


def test_what_has_no_direction_is_the_rms_over_all() -> None:
    metric = square_metric((3.0, 4.0))
    errors = np.random.default_rng(0).normal(0, 0.5, (400_000, 2))
    on_ground = np.hypot(*(errors * (3.0, 4.0)).T)
    rms_px = np.sqrt((errors**2).sum(1).mean())
    assert metric.per_pixel * rms_px == pytest.approx(np.sqrt((on_ground**2).mean()), rel=0.01)
    ce90_px = np.percentile(np.hypot(*errors.T), 90)
    assert metric.circle_m(ce90_px) == pytest.approx(np.percentile(on_ground, 90), rel=0.01)
    assert square_metric(10.0).circle_m(2.0) == pytest.approx(20.0)
    assert metric.reach_px(12.0) == pytest.approx(4.0)
    assert math.isinf(square_metric(10.0).circle_m(math.inf))


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(0, 180), st.floats(0.3, 0.99))
@settings(max_examples=30, deadline=None)
def test_circles_lie_between_the_axes_of_the_ellipse(a: float, b: float, turn: float, share: float) -> None:
    angle = math.radians(turn)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    metric = metric_of((np.eye(3, 2) @ np.diag([a, b]) @ rotation)[None])
    assert min(a, b) * 0.999 <= metric.circle_m(1.0, share) <= max(a, b) * 1.001
    assert metric.reach_px(1.0) == pytest.approx(1 / min(a, b))


def test_where_the_earth_is_round_on_the_map() -> None:
    turns = {
        "EPSG:4326": 360.0,
        "EPSG:4807": 400.0,
        "EPSG:6933": 34735060.9,
        "+proj=mill +R=6371000": math.tau * 6371e3,
    }
    turns |= dict.fromkeys(("EPSG:3857", "EPSG:3395", "EPSG:3832", "EPSG:4087"), math.tau * 6378137)
    for crs, turn in turns.items():
        assert turn_of(crs) == pytest.approx(turn, rel=1e-6), crs
    for crs in ("EPSG:32632", "EPSG:3413", "EPSG:3035", "ESRI:54009", "EPSG:2154", 'LOCAL_CS["site",UNIT["metre",1]]'):
        assert turn_of(crs) is None, crs
