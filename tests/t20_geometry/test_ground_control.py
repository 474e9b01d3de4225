"""Curves through ground control points, against GDAL's own and against truth."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.transform import GCPTransformer

from somareg.errors import GeoreferenceError
from somareg.geometry.ground_control import GroundControl, place_by_control
from somareg.io.ground_control import read_control

WIDTH, HEIGHT = 2500, 1600
AREA = (-0.5, -0.5, WIDTH - 0.5, HEIGHT - 0.5)
DEGREES_PER_PIXEL = 3.2 / WIDTH


def truth(xy):
    """A swath in radar geometry: turned, mirrored, with curvature of second and third order."""
    u, v = (xy[:, 0] + 0.5) / WIDTH - 0.5, (xy[:, 1] + 0.5) / HEIGHT - 0.5
    lon = 9 + 3.2 * u - 0.6 * v + 0.05 * u * u + 0.03 * u * v + 0.01 * u**3
    lat = 45 + 0.4 * u + 1.5 * v - 0.04 * v * u + 0.02 * u * u + 0.004 * v**3
    return np.stack([lon, lat], -1)


def swath(columns=21, rows=10):
    x, y = np.meshgrid(np.linspace(0, WIDTH, columns) - 0.5, np.linspace(0, HEIGHT, rows) - 0.5)
    return np.stack([x.ravel(), y.ravel()], -1)


def somewhere(n=500):
    return np.random.default_rng(0).uniform(0, [WIDTH - 1, HEIGHT - 1], (n, 2))


def by_gdal(xy, map_xy, where, *, tps):
    points = [GroundControlPoint(row=y + 0.5, col=x + 0.5, x=u, y=v) for (x, y), (u, v) in zip(xy, map_xy, strict=True)]
    with GCPTransformer(points, tps=tps) as transformer:
        return np.stack(transformer.xy(where[:, 1] + 0.5, where[:, 0] + 0.5, offset="ul"), -1)


@pytest.mark.parametrize(("method", "tps", "tolerance_px"), [("polynomial", False, 0.01), ("tps", True, 0.03)])
def test_both_curves_are_gdals(method, tps, tolerance_px):
    xy = swath()
    control, words = place_by_control(xy, truth(xy), AREA, method)
    assert ("spline" in words) == tps
    error = control.to_map(somewhere()) - by_gdal(xy, truth(xy), somewhere(), tps=tps)
    assert np.abs(error).max() < tolerance_px * DEGREES_PER_PIXEL


@pytest.mark.parametrize("count", [3, 5, 6])
def test_order_one_below_six_points_as_gdal(count):
    """Six hand-placed points and more are joined by second order, fewer by an affine."""
    rng = np.random.default_rng(3)
    xy = rng.uniform(0, 1000, (count, 2))
    map_xy = xy @ np.array([[1e-3, 2e-4], [-1e-4, -1e-3]]) + rng.normal(0, 1e-3, (count, 2))
    control, words = place_by_control(xy, map_xy, (0, 0, 999, 999))
    assert f"order {1 if count < 6 else 2}" in words
    where = rng.uniform(0, 1000, (50, 2))
    np.testing.assert_allclose(control.to_map(where), by_gdal(xy, map_xy, where, tps=False), atol=2e-5)
    assert control.is_affine == (count < 6)


def test_exact_points_take_the_spline_and_noisy_ones_the_polynomial():
    xy, exact = swath(), truth(swath())
    noisy = exact + np.random.default_rng(1).normal(0, 4 * DEGREES_PER_PIXEL, exact.shape)
    assert place_by_control(xy, exact, AREA)[0].method == "tps"
    assert place_by_control(xy, noisy, AREA)[0].method == "polynomial"


@pytest.mark.parametrize("method", ["polynomial", "tps"])
def test_what_is_said_of_left_out_points_is_what_leaving_them_out_gives(method):
    xy, map_xy = swath(6, 5), truth(swath(6, 5))
    errors = []
    for i in range(len(xy)):
        others = np.arange(len(xy)) != i
        without, _ = place_by_control(xy[others], map_xy[others], AREA, method)
        errors.append(((without.to_map(xy[i : i + 1]) - map_xy[i]) ** 2).sum())
    control, words = place_by_control(xy, map_xy, AREA, method)
    a, b, _, d, e, _ = control.transform
    expected = np.sqrt(np.mean(errors)) / np.sqrt(abs(a * e - b * d))
    assert float(words.split(" to ")[1].split(" px")[0]) == pytest.approx(expected, abs=0.01)


@given(
    st.floats(-180, 180),
    st.floats(0.2, 5),
    st.floats(-0.05, 0.05),
    st.booleans(),
    st.sampled_from(["polynomial", "tps"]),
)
@settings(max_examples=25, deadline=None)
def test_there_and_back(angle, scale, bend, mirrored, method):
    turn = np.deg2rad(angle)
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix[:, 1] *= -1 if mirrored else 1
    xy = np.stack(np.meshgrid(np.linspace(0, 500, 6), np.linspace(0, 400, 5)), -1).reshape(-1, 2)
    bent = xy + bend * 500 * np.stack([(xy[:, 1] / 500) ** 2, np.sin(xy[:, 0] / 250)], -1)
    control, _ = place_by_control(xy, bent @ matrix.T + 5e5, (0, 0, 499, 399), method)
    where = np.random.default_rng(0).uniform([-200, -200], [700, 600], (200, 2))
    np.testing.assert_allclose(control.to_pixel(control.to_map(where)), where, atol=1e-4)


def test_the_nearest_geotransform():
    xy = swath()
    matrix = np.array([[1e-3, 2e-4], [-1e-4, -1e-3]])
    control, _ = place_by_control(xy, (xy + 0.5) @ matrix.T + (9, 45), AREA)
    assert control.is_affine
    np.testing.assert_allclose(control.transform, (1e-3, 2e-4, 9, -1e-4, -1e-3, 45), atol=1e-12)


def test_pixels_of_another_size_lie_on_the_same_ground():
    xy = swath()
    control, _ = place_by_control(xy, truth(xy), AREA)
    half = control.scaled((0.5, 0.25))
    where = somewhere()
    there = (where + 0.5) * (0.5, 0.25) - 0.5
    assert np.abs(half.to_map(there) - control.to_map(where)).max() < 0.03 * DEGREES_PER_PIXEL


def test_survives_json():
    control, _ = place_by_control(swath(), truth(swath()), AREA)
    assert read_control(json.loads(json.dumps(dataclasses.asdict(control)))) == control
    for spoilt in ({"points": [[1, 2, 3]]}, {"method": "magic"}, {"area": [0, 1]}, {"points": [[0, 0, 0, np.nan]] * 3}):
        with pytest.raises(ValueError):
            read_control({**dataclasses.asdict(control), **spoilt})


def test_points_that_place_nothing():
    line = np.stack([np.arange(9.0), 2 * np.arange(9.0)], -1)
    with pytest.raises(GeoreferenceError, match="on a line"):
        place_by_control(line, line, AREA)
    with pytest.raises(GeoreferenceError, match="three are needed"):
        place_by_control(line[:2], line[:2], AREA)
    twice = np.concatenate([swath(), swath()[:1]])
    apart = truth(twice) + (np.arange(len(twice)) == 0)[:, None]
    with pytest.raises(GeoreferenceError, match=r"share one pixel but not one place; .*--gcp-method polynomial"):
        place_by_control(twice, apart, AREA, "tps")
    many = np.random.default_rng(0).uniform(0, 900, (2001, 2))
    with pytest.raises(GeoreferenceError, match="too many"):
        place_by_control(many, many, AREA, "tps")
    assert place_by_control(many, many, AREA)[0].method == "polynomial"


@pytest.mark.parametrize("method", ["auto", "tps"])
def test_a_point_that_is_given_twice_counts_once(method):
    once, words = place_by_control(swath(), truth(swath()), AREA, method)
    twice = np.concatenate([swath(), swath()[7:9]])
    assert place_by_control(twice, truth(twice), AREA, method) == (once, words)
    assert once.method == "tps"


def test_two_places_of_one_pixel_leave_the_polynomial():
    xy = np.concatenate([swath(), swath()[:1]])
    map_xy = truth(xy) + 3.0 * (np.arange(len(xy)) == 0)[:, None]
    control, words = place_by_control(xy, map_xy, AREA)
    assert control.method == "polynomial" and "because two ground control points share one pixel" in words
    xy[0] += 1e-9  # a hair apart
    assert place_by_control(xy, map_xy, AREA)[0].method == "polynomial"


def test_a_curve_that_folds_is_refused():
    xy = np.stack(np.meshgrid(np.linspace(0, 100, 5), np.linspace(0, 100, 5)), -1).reshape(-1, 2)
    map_xy = xy.copy()
    map_xy[12] += 90  # one point dragged across its neighbours
    with pytest.raises(GeoreferenceError, match=r"folds.*--gcp-method polynomial"):
        GroundControl(tuple(map(tuple, np.hstack([xy, map_xy]))), "tps", (0, 0, 100, 100)).to_map(xy)
