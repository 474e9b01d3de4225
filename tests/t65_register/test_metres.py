"""Metres of a pair whose reference pixels are no squares on the ground: degrees at 68 degrees north."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from somareg.config import make_config
from somareg.register import api, choose
from somareg.register.images import open_images
from somareg.register.locate import known_ground
from somareg.report.record import load_report
from somareg.types import Grid, Result
from somareg.view.folder import find_folder
from somareg.view.scene import Scene
from tests.t65_register.conftest import SIDE, Files, register, write, write_pair

NORTH = Grid(SIDE, SIDE, (1e-4, 0.0, 20.0, 0.0, -1e-4, 68.0), "EPSG:4326")
# A degree at 67.99 degrees north on WGS 84, by the series of the meridian and the parallel.
RIGHT, DOWN = 1e-4 * 41_801.0, 1e-4 * 111_540.0


def shifted(folder: Path, shift: tuple[float, float]) -> Files:
    margin = 40
    a, b, c, d, e, f = NORTH.transform
    place = (a, b, c - margin * a, d, e, f - margin * e)
    return write_pair(
        folder, Grid(SIDE + 2 * margin, SIDE + 2 * margin, place, NORTH.crs), reference=NORTH, shift=shift
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return shifted(tmp_path_factory.mktemp("north"), (9.0, -3.0))


@pytest.fixture(scope="module")
def found(files: Files) -> Result:
    return register(files.moving, files.reference)


@pytest.fixture(scope="module")
def folder(found: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return found.save(tmp_path_factory.mktemp("saved") / "out", stac=True)


@pytest.mark.parametrize("shift", [(11.0, 0.0), (0.0, 11.0), (-7.0, 8.0)])
def test_assess_counts_the_direction(shift: tuple[float, float], tmp_path: Path) -> None:
    files = shifted(tmp_path, shift)
    assessment = api.assess(files.moving, files.reference, model="orientation")
    dx, dy = assessment.offset_px
    assert (dx, dy) == pytest.approx(shift, abs=0.5)
    assert assessment.misalignment_rmse_m == pytest.approx(math.hypot(dx * RIGHT, dy * DOWN), rel=0.03)


def test_every_figure_has_its_metres(found: Result, folder: Path) -> None:
    figures, affine = (getattr(load_report(folder / "report.json"), name) for name in ("figures", "affine"))
    assert figures.pixel_m == pytest.approx((RIGHT, DOWN), rel=0.002)
    assert (affine.shift_x.m, affine.shift_y.m) == pytest.approx(
        (affine.shift_x.px * RIGHT, affine.shift_y.px * DOWN), rel=0.002
    )
    isotropic = math.sqrt((RIGHT**2 + DOWN**2) / 2)
    for name in ("predicted_rmse", "forward_backward", "split_half"):
        length = getattr(figures, name)
        assert length.m == pytest.approx(length.px * isotropic, rel=0.002), name
    ties = found.tie_points
    off = (ties.displacement - (found.correction(ties.reference_xy) - ties.reference_xy)) * (RIGHT, DOWN)
    distance = np.hypot(*off[ties.inlier].T)
    assert figures.residual_median.m == pytest.approx(np.median(distance), rel=0.01)
    inliers = off[ties.inlier]
    for figure, expected in ((figures.bias, inliers.mean(0)), (figures.sigma, inliers.std(0))):
        assert figure is not None
        assert (figure.x.m, figure.y.m) == pytest.approx(tuple(expected), rel=0.01, abs=1e-3)
    before = figures.misregistration_before
    assert before.m == pytest.approx(math.hypot(9 * RIGHT, 3 * DOWN), rel=0.05)
    assert before.m != pytest.approx(before.px * isotropic, rel=0.1)
    errors = np.random.default_rng(0).normal(size=(200_000, 2))
    grown = np.percentile(np.hypot(*(errors * (RIGHT, DOWN)).T), 90) / np.percentile(np.hypot(*errors.T), 90)
    assert figures.predicted_ce90.m == pytest.approx(figures.predicted_ce90.px * grown, rel=0.01)
    record = json.loads((folder / "report.json").read_text())
    assert record["quality"]["predicted_rmse_m"] == figures.predicted_rmse.m
    item = json.loads((folder / "item.json").read_text())
    assert item["properties"]["accuracy:geometric_rmse"] == pytest.approx(figures.predicted_rmse.m, abs=1e-3)


def test_tie_points_in_geojson_and_in_the_viewer(found: Result, folder: Path) -> None:
    ties = found.tie_points
    features = json.loads((folder / "tie_points.geojson").read_text())["features"]
    with Scene(find_folder(folder)) as scene:
        assert scene.points is not None
        rows = dict(scene.points.figures(7)["rows"])
    for number in (0, 7):
        values = features[number]["properties"]
        dx, dy = ties.displacement[number]
        assert (values["dx_m"], values["dy_m"]) == pytest.approx((dx * RIGHT, dy * DOWN), rel=0.002)
        here = ties.reference_xy[number : number + 1]
        off = (here + ties.displacement[number] - found.correction(here))[0]
        assert values["residual_m"] == pytest.approx(math.hypot(off[0] * RIGHT, off[1] * DOWN), rel=0.003)
    assert f"({values['dy_m']:.1f} m)".replace("-", "\N{MINUS SIGN}") in rows["Displacement, down"]
    # To hundredths: the viewer reads the displacement of float32.
    told = float(rows["Off the transform"].split("(")[1].split()[0])
    assert told == pytest.approx(values["residual_m"], abs=0.06)


def test_arrow_keys_tell_both_directions(folder: Path) -> None:
    with Scene(find_folder(folder)) as scene:
        key = scene.arrows.over((0, 0, SIDE, SIDE), 16)["key"]
    assert "m across" in key
    assert "m down" in key


def test_a_radius_in_metres_holds_where_the_moving_image_lies(tmp_path: Path, files: Files) -> None:
    """The reference reaches from the equator to the north: its centre is no measure of the chip's place."""
    cfg = make_config({"search_radius_m": 200.0})
    long = Grid(SIDE, 10_000, (1e-4, 0.0, 20.0, 0.0, -68.0 / 9_000, 68.0), "EPSG:4326")
    assert choose.search_radius(cfg, long) == pytest.approx(200 / (1e-4 * 94_500), rel=0.03)
    with open_images(files.moving, files.reference, cfg) as images:
        assert known_ground(images, cfg).radius_px == pytest.approx(200 / RIGHT, rel=0.01)
    write(tmp_path / "long.tif", np.zeros((1, *long.shape), np.uint8), long)
    with open_images(files.moving, tmp_path / "long.tif", cfg) as images:
        assert known_ground(images, cfg).radius_px == pytest.approx(200 / RIGHT, rel=0.03)
