"""One road: whatever door a pair comes in by, it gets one verdict and one map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

import somareg
from somareg.io import read_estimate
from somareg.types import FloatArray, Result, Transform
from tests.t64_tiles.conftest import Pair, make_pair

OPTIONS = {"model": "orientation", "seed": 3}
SIDE = 1040  # four tiles side by side, with room for nine that overlap


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"), SIDE)


@pytest.fixture(scope="module")
def by_file(pair: Pair) -> Result:
    return somareg.register(pair.moving, pair.reference, **OPTIONS)


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(masked=True)


def apart(first: Transform, second: Transform) -> float:
    """RMS distance of two maps inside a rim, pixels."""
    axis = np.arange(40.0, SIDE - 40, 9.0)
    points: FloatArray = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    return float(np.sqrt(((first(points) - second(points)) ** 2).sum(1).mean()))


def test_array(pair: Pair, by_file: Result) -> None:
    found = somareg.register(read(pair.moving), read(pair.reference), **OPTIONS)
    assert found.verdict == by_file.verdict
    assert apart(found.correction, by_file.correction) < 1e-9
    np.testing.assert_array_equal(found.displacement.certainty, by_file.displacement.certainty)


def test_batch_of_one(pair: Pair, by_file: Result, tmp_path: Path) -> None:
    done = somareg.batch([(pair.moving, pair.reference)], tmp_path / "out", **OPTIONS)
    (entry,) = done.entries
    assert entry.verdict == by_file.verdict.decision
    assert entry.probability == pytest.approx(by_file.verdict.probability)
    assert apart(read_estimate(tmp_path / "out" / entry.name).correction, by_file.correction) < 0.01


@pytest.mark.parametrize("door", ["file", "array", "scene"])
def test_forced_tiles(pair: Pair, by_file: Result, tmp_path: Path, door: str) -> None:
    if door == "scene":
        found = somareg.register_scene(pair.moving, pair.reference, tmp_path / "out", **OPTIONS)
        assert found.folder == tmp_path / "out"
    elif door == "array":
        found = somareg.register(read(pair.moving), read(pair.reference), scene="always", **OPTIONS)
    else:
        found = somareg.register(pair.moving, pair.reference, scene="always", **OPTIONS)
    assert len(found.tiles) == 9
    assert found.verdict.decision == by_file.verdict.decision == "go"
    assert apart(found.correction, by_file.correction) < 0.2
    assert found.displacement.array.shape == (2, 65, 65)  # one node for 16 x 16 pixels


def test_a_pair_too_small_for_tiles_gets_its_verdict_all_the_same(tmp_path: Path) -> None:
    """Tiles of nearly the same pixels cannot vouch for each other: asked for tiles, a small pair is matched whole."""
    pair = make_pair(tmp_path, 520)
    plain, forced = (
        somareg.register(pair.moving, pair.reference, scene=scene, **OPTIONS) for scene in ("auto", "always")
    )
    assert forced.verdict == plain.verdict
    assert plain.verdict.decision == "go"
    assert not forced.tiles


def test_assess_and_xarray_take_tiles(pair: Pair) -> None:
    found = somareg.assess(pair.moving, pair.reference, scene="always", **OPTIONS)
    assert found.result.tiles
    assert found.verdict.decision == "review"
    assert found.misalignment_rmse_px == pytest.approx(11, abs=2)
    assert found.offset_px == pytest.approx((9, -7), abs=2)
    aligned = found.result.to_xarray()
    assert aligned.shape == (1, SIDE, SIDE)


def test_tie_points_seed_tiles(pair: Pair, by_file: Result) -> None:
    seeded = somareg.register(pair.moving, pair.reference, scene="always", tie_points=by_file.tie_points, **OPTIONS)
    assert seeded.tiles
    assert any("one of the starts" in note for note in seeded.notes)
    assert apart(seeded.correction, by_file.correction) < 0.2


def test_given_points_that_replace_the_match_need_no_tiles(pair: Pair, by_file: Result) -> None:
    given = {"tie_points": by_file.tie_points, "tie_points_use": "replace"}
    found = somareg.register(pair.moving, pair.reference, scene="always", **given, **OPTIONS)
    assert not found.tiles
    assert any("the images were not matched" in note for note in found.notes)
