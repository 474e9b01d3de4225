"""Tie points from elsewhere as a start of the search or as the whole estimate, and images placed by control points."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

import somareg
from somareg.errors import ConfigError, InputError
from somareg.register import api
from somareg.types import TiePoints
from tests.synthetic import SyntheticPair, make_pair
from tests.t65_register.conftest import (
    SIDE,
    UTM,
    Files,
    moving_grid,
    place_by_points,
    register,
    swath,
    write_pair,
)

Array = NDArray[Any]


def ties(here: Array, there: Array, **known: Array) -> TiePoints:
    n = len(here)
    nothing = np.full(n, np.nan)
    values = {"sigma_px": nothing, "confidence": nothing, "residual_px": nothing, "inlier": np.ones(n, bool), **known}
    return TiePoints(here, there, np.full((n, 2), np.nan), **values)


def scattered(n: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(5, SIDE - 6, (n, 2))


def click(pair: SyntheticPair, n: int = 8, sigma: float = 1.5, seed: int = 0) -> TiePoints:
    """What a person clicks: right to some pixels."""
    here = scattered(n, seed)
    return ties(here, pair.to_moving(here) + np.random.default_rng(seed).normal(0, sigma, (n, 2)))


@pytest.fixture(scope="module")
def turned() -> SyntheticPair:
    """Turned beyond what `search="local"` looks at."""
    return make_pair(3, SIDE, rotation_deg=55, scale=1.03, shift=(4.0, -6.0))


def test_a_seed_leads_where_no_search_looks(turned: SyntheticPair) -> None:
    blind = register(turned.moving, turned.reference, search="local")
    seeded = register(turned.moving, turned.reference, search="local", tie_points=click(turned))
    assert turned.rmse(blind.displacement.array) > 10
    assert turned.rmse(seeded.displacement.array) < 1.2  # better than the clicks, whose shape it keeps
    assert seeded.verdict.decision == "go"
    assert seeded.settings["tie_points_use"] == "seed"
    assert any("8 of 8 tie points taken" in note and "one of the starts" in note for note in seeded.notes)


def test_a_wrong_seed_does_no_harm(pair: SyntheticPair) -> None:
    here = scattered(10)
    wrong = ties(here, here[:, ::-1] * 0.5 + 40)
    result = register(pair.moving, pair.reference, tie_points=wrong)
    assert pair.rmse(result.displacement.array) < 0.5


def test_a_seed_beyond_the_search_radius_of_a_georeference(tmp_path: Path) -> None:
    """The moving image is read as far out as the points lead."""
    files = write_pair(tmp_path, moving_grid(UTM, 10.0, beyond=120), shift=(84.0, -71.0))
    here = scattered(6)
    there = files.moving_grid.to_pixel(files.reference_grid.to_map(here + files.shift))
    path = somareg.write_tie_points(tmp_path / "clicks.csv", ties(here, there))
    result = register(files.moving, files.reference, tie_points=path)
    assert files.rmse(result) < 0.5
    assert result.settings["tie_points"] == str(path)
    assert files.rmse(register(files.moving, files.reference, search="local")) > 20


def test_points_alone_are_followed_and_the_images_agree(pair: SyntheticPair) -> None:
    exact = click(pair, 40, sigma=0.2)
    result = register(pair.moving, pair.reference, tie_points=exact, tie_points_use="replace")
    assert pair.rmse(result.displacement.array) < 0.2
    assert result.verdict.decision in ("go", "review")
    assert result.quality.peak_zscore > 2
    assert result.quality.local_rms_px == 0  # noise is no displacement
    assert len(result.tie_points) == 40
    np.testing.assert_allclose(result.tie_points.reference_xy, exact.reference_xy, atol=1e-6)
    np.testing.assert_allclose(result.tie_points.moving_xy, exact.moving_xy, atol=1e-6)
    assert any("not matched, only compared" in note and "without local" in note for note in result.notes)


def test_the_images_judge_points_that_are_wrong(pair: SyntheticPair) -> None:
    shifted = click(pair, 40, sigma=0.2)
    shifted = dataclasses.replace(shifted, moving_xy=shifted.moving_xy + np.array([14.0, 9.0]))
    result = register(pair.moving, pair.reference, tie_points=shifted, tie_points_use="replace")
    np.testing.assert_allclose(
        result.correction(scattered(20)), pair.to_moving(scattered(20)) + np.array([14.0, 9.0]), atol=0.5
    )
    assert result.verdict.decision == "no-go"


def bend(xy: Array) -> Array:
    return 4.0 * np.stack([np.sin(xy[:, 1] / 40), np.cos(xy[:, 0] / 50)], -1)


def test_points_carry_local_displacement() -> None:
    """On a smooth warp, many points beat their own affine; where none is near, the certainty says so."""
    texture = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, (SIDE, SIDE)), (0, 0), 1.5)
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(float)
    there = np.stack([columns, rows], -1) + bend(np.stack([columns.ravel(), rows.ravel()], -1)).reshape(SIDE, SIDE, 2)
    bent = cv2.remap(texture, there.astype(np.float32), None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    here = scattered(160)
    here = here[here[:, 0] < 130]
    noise = np.random.default_rng(1).normal(0, 0.3, here.shape)
    points = ties(here, here + bend(here) + noise, sigma_px=np.full(len(here), 0.3))
    options = {"moving_modality": "other", "reference_modality": "other", "tie_points_use": "replace"}
    result = register(texture, bent, tie_points=points, **options)
    affine = register(texture, bent, tie_points=points, local=False, **options)
    assert result.verdict.decision != "no-go"
    where = scattered(300, 5)
    near = where[where[:, 0] < 120]
    errors = [float(np.sqrt(((r.correction(near) - near - bend(near)) ** 2).sum(1).mean())) for r in (result, affine)]
    assert errors[0] < 0.5 < 1.5 < errors[1]
    assert affine.quality.local_rms_px == 0 < 1 < result.quality.local_rms_px
    certainty = result.displacement.certainty
    assert certainty[:, :110].mean() > 2 * certainty[:, 180:].mean() and certainty[:, 180:].mean() < 0.2


def test_outliers_and_switched_off_points(pair: SyntheticPair) -> None:
    points = click(pair, 30, sigma=0.2)
    there = points.moving_xy.copy()
    there[::3] += np.random.default_rng(4).uniform(20, 60, (10, 2))  # a third is wrong
    off = np.ones(30, bool)
    off[[1, 2]] = False
    there[[1, 2]] = 0.0
    there[4] = np.nan
    given = dataclasses.replace(points, moving_xy=there, inlier=off)
    result = register(pair.moving, pair.reference, tie_points=given, tie_points_use="replace", local=False)
    assert pair.rmse(result.displacement.array) < 0.3
    assert len(result.tie_points) == 27
    wrong = np.isin(result.tie_points.reference_xy[:, 0], points.reference_xy[::3, 0])
    assert not result.tie_points.inlier[wrong].any() and result.tie_points.inlier[~wrong].all()
    assert any("27 of 30 tie points" in note and "2 are switched off" in note for note in result.notes)


def test_precise_points_weigh_more(pair: SyntheticPair) -> None:
    here = scattered(24)
    sigma = np.where(np.arange(24) % 2, 0.1, 3.0)
    there = pair.to_moving(here) + np.random.default_rng(2).normal(0, 1, (24, 2)) * sigma[:, None]
    options = {"tie_points_use": "replace", "local": False}
    told = register(pair.moving, pair.reference, tie_points=ties(here, there, sigma_px=sigma), **options)
    untold = register(pair.moving, pair.reference, tie_points=ties(here, there), **options)
    assert pair.rmse(told.displacement.array) < pair.rmse(untold.displacement.array)


@pytest.mark.parametrize("suffix", ["geojson", "gpkg", "csv", "points", "vrt", "tif"])
def test_a_results_own_points_from_every_format(tmp_path: Path, files: Files, file_result: Any, suffix: str) -> None:
    """Out through a file of another program and in again, the estimate stays what it was."""
    images = {"reference": file_result.reference, "moving": file_result.moving}
    path = somareg.write_tie_points(tmp_path / f"p.{suffix}", file_result.tie_points, **images)
    options = {"moving_bands": (1,), "tie_points": path, "tie_points_use": "replace", "local": False}
    again = register(files.moving, files.reference, **options)
    assert files.rmse(again) < 0.5
    np.testing.assert_allclose(again.affine.matrix, file_result.affine.matrix, atol=0.6)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (ties(scattered(2), scattered(2)), "2 tie points determine no affine"),
        (ties(np.array([[1.0, 1], [2, 2], [3, 3], [9, 9]]), scattered(4)), "on a line"),
        (ties(scattered(9), scattered(9), inlier=np.arange(9) < 2), "three are needed"),
    ],
)
@pytest.mark.parametrize("use", ["seed", "replace"])
def test_points_that_say_too_little(pair: SyntheticPair, points: TiePoints, words: str, use: str) -> None:
    with pytest.raises(InputError, match=words):
        register(pair.moving, pair.reference, tie_points=points, tie_points_use=use)


def test_points_of_other_images_are_refused(files: Files) -> None:
    with pytest.raises(InputError, match="check that they belong to these two images"):
        register(files.moving, files.reference, tie_points=ties(scattered(9), scattered(9) + 9000))


def test_options_of_tie_points(pair: SyntheticPair, tmp_path: Path, files: Files) -> None:
    with pytest.raises(ConfigError, match="needs tie_points"):
        register(pair.moving, pair.reference, tie_points_use="replace")
    with pytest.raises(ConfigError, match="'replace'"):
        register(pair.moving, pair.reference, tie_points=click(pair), tie_points_use="replce")
    plan = api.plan(files.moving, files.reference, tie_points="a.csv", tie_points_use="replace")
    assert plan["tie_points"] == "a.csv (replace)" and plan["model"] == "orientation"


# --- images that only ground control points place ------------------------------------------------------------------


@pytest.fixture(scope="module")
def radar(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The SAR image has no geotransform, only points."""
    grid = swath()
    files = write_pair(tmp_path_factory.mktemp("radar"), grid, shift=(5.0, -3.5))
    assert grid.control is not None
    place_by_points(files.moving, grid.control)
    return files


def test_a_swath_in_radar_geometry(radar: Files, tmp_path: Path) -> None:
    result = register(radar.moving, radar.reference)
    assert radar.rmse(result) < 0.5
    assert result.verdict.decision == "go"
    assert any("72 ground control points" in note and "terrain" in note for note in result.notes)
    points = scattered(50)
    np.testing.assert_allclose(radar.claimed(result.transform(points)), result.correction(points), atol=0.05)
    saved = result.save(tmp_path / "out")
    with rasterio.open(saved / "aligned.tif") as aligned, rasterio.open(radar.reference) as reference:
        assert aligned.transform == reference.transform and aligned.shape == reference.shape
    by_file = somareg.warp(radar.moving, saved)
    with rasterio.open(saved / "aligned.tif") as aligned:
        np.testing.assert_allclose(by_file.data, aligned.read(), atol=1e-3)


def test_a_reference_in_radar_geometry(radar: Files, tmp_path: Path) -> None:
    """The other way round: the optical image is brought into the swath, and the outputs carry its points."""
    options = {"moving_modality": "optical", "reference_modality": "sar"}
    result = register(radar.reference, radar.moving, **options)
    assert result.verdict.decision == "go"
    xy = np.random.default_rng(0).uniform(80, 200, (50, 2))
    # The same ground: what the swath claims, less the shift between the two, is where the optical image has it.
    np.testing.assert_allclose(result.transform(xy), radar.claimed(xy) - radar.shift, atol=1.0)
    saved = result.save(tmp_path / "out")
    with rasterio.open(saved / "aligned.tif") as aligned, rasterio.open(radar.moving) as swath_file:
        assert aligned.shape == swath_file.shape
        theirs, crs = swath_file.gcps
        assert len(aligned.gcps[0]) == len(theirs) and aligned.gcps[1] == crs
    again = somareg.warp(radar.reference, saved, resolution="native")
    assert again.grid.control is not None


def test_the_curve_is_chosen_by_name(radar: Files) -> None:
    result = register(radar.moving, radar.reference, gcp_method="polynomial")
    assert any("polynomial of order 2" in note for note in result.notes)
    assert result.settings["gcp_method"] == "polynomial"
    assert radar.rmse(result) < 3.0  # the match mends what the curve leaves of the bend


def test_an_array_of_points_is_refused_with_the_way_out(turned: SyntheticPair) -> None:
    with pytest.raises(InputError, match=r"tie_points is a ndarray; give the path of a file, such as a CSV"):
        register(turned.moving, turned.reference, tie_points=np.zeros((4, 4)))


@pytest.mark.parametrize("use", ["seed", "replace"])
@pytest.mark.parametrize("ratio", [3, 5])
def test_points_of_images_of_very_different_pixels(ratio: int, use: str) -> None:
    """The moving image is brought to the reference's pixels before it is matched; the answer is in its own."""
    pair = make_pair(5, 360, shift=(4.0, -6.0))
    height, width = (side // ratio * ratio for side in pair.moving.shape[-2:])
    fine = np.moveaxis(pair.moving[..., :height, :width], 0, -1)
    coarse = cv2.resize(fine, (width // ratio, height // ratio), interpolation=cv2.INTER_AREA).reshape(
        height // ratio, width // ratio, -1
    )
    here = np.random.default_rng(0).uniform(20, 340, (9, 2))
    there = (pair.to_moving(here) + 0.5) / ratio - 0.5
    result = register(np.moveaxis(coarse, -1, 0), pair.reference, tie_points=ties(here, there), tie_points_use=use)
    error = np.hypot(*(result.transform(here) - there).T)
    assert error.max() * ratio < 1.5
