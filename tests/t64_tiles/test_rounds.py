"""Tiles in rounds: a quarter of them where that is enough, all where it is not, the same however a run came to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from somareg import SceneResult
from somareg.errors import ConfigError
from somareg.jobs.dask import Dask
from somareg.jobs.one import Failure, Outcome
from somareg.quality import load_calibration
from somareg.register.tiles import rounds
from somareg.register.tiles.job import TileJob
from somareg.register.tiles.journal import Journal
from somareg.register.tiles.layout import Layout, SceneCfg, lay_tiles
from somareg.register.tiles.model import fit_scene
from somareg.register.tiles.rounds import Aim, Rounds, match_in_rounds, nearer, wanted
from somareg.register.tiles.ties import collect
from somareg.register.tiles.tile import TileResult
from somareg.register.tiles.votes import count_votes
from tests.t64_tiles.conftest import Pair, run

Array = np.ndarray[Any, Any]
Ground = Callable[[Array], Array]
SHAPE = 4000, 4000
SIZES = SceneCfg(tile_px=192, overlap_px=32, overview_px=384)  # 49 tiles of a pair of 1024 px, 16 of them first
NAMES = ("tie_points.geojson", "gcps.points", "displacement.tif", "aligned.tif")


def smooth(xy: Array, wavelength: float = 4000.0) -> Array:
    x, y = 2 * np.pi * xy.T / wavelength
    return np.stack([3 + 2 * np.sin(x + 0.4) * np.cos(y), -1 + 2 * np.cos(0.8 * x) * np.sin(y + 0.9)], axis=-1)


def short(xy: Array) -> Array:
    return smooth(xy, 1500.0)


def very_short(xy: Array) -> Array:
    return smooth(xy, 800.0)


def straight(xy: Array) -> Array:
    return 0.002 * xy - 3.0


def across(xy: Array) -> Array:
    """Signed distance from the fault, which lies between two columns of the first round."""
    return np.asarray(xy[:, 0] - 1760.0 + 0.2 * (xy[:, 1] - 2000.0))


def fault(xy: Array) -> Array:
    step = 0.5 * (1 + np.tanh(across(xy) / 20.0))
    return smooth(xy) + 3.0 * step[:, None] * (0.6, -0.8)


@pytest.fixture(scope="module")
def layout() -> Layout:
    return lay_tiles(SHAPE, SceneCfg(), 1024)


def see(layout: Layout, index: int, ground: Ground, probability: float = 0.95) -> TileResult:
    """What a tile tells of a ground: 81 windows of a noise of 0.6 px."""
    rng = np.random.default_rng(index)
    axis = np.linspace(28, 484, 9)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2) + np.array(layout.blocks[index][:2])
    beyond = ground(points) + rng.normal(0, 0.6, points.shape)
    ones = np.ones(len(points))
    return TileResult(index, "matched", "", points, beyond, 1.5 * ones, ones, {"probability": probability})


def aim(**changes: Any) -> Aim:
    return replace(Aim(SHAPE, True, 0.5, load_calibration("learned")), **changes)


class Plain:
    """A runner that answers in an order of its own and counts what it is asked."""

    def __init__(self, answer: Callable[[TileJob], TileResult | None], order: int = 1) -> None:
        self.answer, self.order, self.asked = answer, order, list[int]()

    def run(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[tuple[int, Outcome[Any]]]:
        for number, job in list(enumerate(jobs))[:: self.order]:
            self.asked.append(job.index)
            tile = self.answer(job)
            yield number, Outcome(tile) if tile else Outcome(failure=Failure("MemoryError", "no room"))


def in_rounds(
    layout: Layout, ground: Ground, goal: Aim, journal: Journal | None = None, lost: Sequence[int] = (), order: int = 1
) -> tuple[Rounds, Plain]:
    runner = Plain(lambda job: None if job.index in lost else see(layout, job.index, ground), order)
    journal = journal or Journal(None, {})
    settings: Any = None  # the runner looks at nothing but the tile's number
    return match_in_rounds(layout, settings, journal, runner, goal, lambda done, asked, share: None), runner


def error(found: Any, ground: Ground) -> Array:
    xy = np.random.default_rng(9).uniform(30, 3970, (4000, 2))
    return np.asarray(np.hypot(*(found(xy) - xy - ground(xy)).T))


def rms(values: Array) -> float:
    return float(np.sqrt(np.square(values).mean()))


def whole(layout: Layout, ground: Ground) -> Any:
    return fit_scene(collect([see(layout, i, ground) for i in range(len(layout.blocks))]), layout, SHAPE, local=True)


# --- which tiles are first --------------------------------------------------------------------------------------------


@given(st.integers(600, 14_000), st.integers(600, 14_000), st.sampled_from([256, 1024]))
@settings(max_examples=60, deadline=None)
def test_the_first_round_reaches_every_edge_and_leaves_out_no_two_in_a_row(height: int, width: int, limit: int) -> None:
    layout = lay_tiles((height, width), SceneCfg(), limit)
    rows, columns = (sorted({divmod(i, layout.columns)[axis] for i in layout.first}) for axis in (0, 1))
    assert len(layout.first) == len(rows) * len(columns) == len(set(layout.first))
    for chosen, count in ((rows, layout.rows), (columns, layout.columns)):
        assert (chosen[0], chosen[-1]) == (0, count - 1)
        assert max(np.diff(chosen), default=0) <= 2
    if len(layout.first) == len(layout.blocks):
        assert len(layout.blocks) < 64
    else:
        assert rounds.ENOUGH_SURE < len(layout.first) < 0.6 * len(layout.blocks)


def test_neighbours_are_beside_a_tile(layout: Layout) -> None:
    assert layout.beside(0) == (1, 9, 10)
    assert layout.beside(40) == (30, 31, 32, 39, 41, 48, 49, 50)


# --- when more are asked ----------------------------------------------------------------------------------------------


def test_a_quarter_of_the_tiles_knows_a_smooth_scene(layout: Layout) -> None:
    found, runner = in_rounds(layout, smooth, aim())
    assert len(found.tiles) <= 30 < len(layout.blocks)
    assert len(runner.asked) == len(found.tiles) == sum(found.counts)
    assert rms(error(found.model, smooth)) < rms(error(whole(layout, smooth), smooth)) + 0.1


@pytest.mark.parametrize("ground", [short, very_short])
def test_a_wave_that_the_first_round_cannot_see_is_followed(layout: Layout, ground: Ground) -> None:
    first = fit_scene(collect([see(layout, i, ground) for i in layout.first]), layout, SHAPE, local=True)
    full = rms(error(whole(layout, ground), ground))
    assert rms(error(first, ground)) > full + 0.3
    found, _ = in_rounds(layout, ground, aim())
    assert rms(error(found.model, ground)) < 1.1 * full + 0.03


def test_a_fault_between_tiles_of_the_first_round_is_caught(layout: Layout) -> None:
    """Tiles are added along it and hardly elsewhere, until the model follows it as that of all tiles does."""
    found, _ = in_rounds(layout, fault, aim())
    more = [tile.index for tile in found.tiles if tile.index not in layout.first]
    away = np.abs(across(np.array([layout.middle(index) for index in more])))
    assert len(found.tiles) < len(layout.blocks)
    assert np.median(away) < 500
    full = error(whole(layout, fault), fault)
    here = error(found.model, fault)
    assert rms(here) < rms(full) + 0.05
    assert here.max() < full.max() + 0.3


def test_more_is_asked_for_a_higher_accuracy(layout: Layout) -> None:
    counts = [len(in_rounds(layout, fault, aim(accuracy_px=asked))[0].tiles) for asked in (2.0, 0.5, 0.1)]
    assert counts[0] < counts[1] < counts[2]
    assert counts[2] == len(layout.blocks)


def test_an_affine_needs_no_more(layout: Layout) -> None:
    found, _ = in_rounds(layout, straight, aim())
    assert found.counts == (25,)


def test_where_tiles_failed_more_are_asked(layout: Layout) -> None:
    """The corner is not known from afar: what lies around the tiles that failed is matched."""
    lost = [0, 2, 18, 20]
    found, _ = in_rounds(layout, smooth, aim(accuracy_px=0.4), lost=lost)
    more = {tile.index for tile in found.tiles} - set(layout.first)
    assert more & {1, 9, 10, 11, 19}
    assert {tile.index for tile in found.tiles if tile.status == "failed"} == set(lost)


def test_few_sure_tiles_are_no_verdict(layout: Layout) -> None:
    """A scene of water with a shore: with so few sure tiles in the first round all are asked."""
    tiles = [see(layout, i, smooth, 0.95 if i % 9 < 2 else 0.01) for i in layout.first]
    model = fit_scene(collect(tiles), layout, SHAPE, local=True)
    assert wanted(layout, tiles, model, aim()) == tuple(sorted(set(range(81)) - set(layout.first)))
    assert wanted(layout, tiles, None, aim()) == tuple(sorted(set(range(81)) - set(layout.first)))


def test_without_a_start_or_a_field_no_tile_helps(layout: Layout) -> None:
    found, _ = in_rounds(layout, smooth, aim(failure="nothing matched"))
    assert (found.counts, found.model, found.failure) == ((25,), None, "nothing matched")
    assert in_rounds(layout, very_short, aim(local=False))[0].counts == (25,)


# --- what is told -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ground", [smooth, fault, very_short])
def test_the_predicted_error_does_not_jump(layout: Layout, ground: Ground) -> None:
    """Tiles held out of a quarter lie further from the others than any place does from a tile: that is allowed for."""
    calibration = load_calibration("learned")
    everything = [see(layout, i, ground) for i in range(len(layout.blocks))]
    before = count_votes(everything, layout, whole(layout, ground), calibration)
    found, _ = in_rounds(layout, ground, aim())
    after = count_votes(found.tiles, layout, found.model, calibration, found.nearer)
    assert abs(after.probability - before.probability) < 0.02
    assert 0.5 * before.predicted_px < after.predicted_px < 2 * before.predicted_px + 0.1
    assert after.predicted_px > 0.5 * rms(error(found.model, ground))


def test_bending_within_tiles_is_part_of_the_predicted_error() -> None:
    """A wave about as long as a tile averages out over it: the median of a tile shows a fifth of the true error."""
    shape = 2600, 2600
    layout = lay_tiles(shape, SceneCfg(), 1024)
    tiles = [see(layout, i, very_short) for i in range(len(layout.blocks))]
    model = fit_scene(collect(tiles), layout, shape, local=True)
    xy = np.random.default_rng(9).uniform(30, 2570, (4000, 2))
    true = rms(np.hypot(*(model(xy) - xy - very_short(xy)).T))
    assert true > 1.0, "it is not followed"
    assert 0.7 * true < count_votes(tiles, layout, model, load_calibration("learned")).predicted_px < 1.3 * true


def test_with_all_tiles_nothing_is_allowed_for(layout: Layout) -> None:
    tiles = [see(layout, i, smooth) for i in range(len(layout.blocks))]
    assert nearer(layout, tiles, whole(layout, smooth)) == 1.0
    assert nearer(layout, tiles, None) == 1.0


# --- the same however a run came to it --------------------------------------------------------------------------------


def test_the_order_of_the_answers_changes_nothing(layout: Layout) -> None:
    one, other = (in_rounds(layout, fault, aim(), order=order)[0] for order in (1, -1))
    assert [tile.index for tile in one.tiles] == [tile.index for tile in other.tiles]
    assert one.counts == other.counts
    np.testing.assert_array_equal(error(one.model, fault), error(other.model, fault))


@pytest.mark.parametrize("kept", [5, 25, 30])
def test_a_run_that_goes_on_asks_for_the_same_tiles(layout: Layout, tmp_path: Path, kept: int) -> None:
    """Also when it stopped in the middle of a later round: those tiles do not change what the first ones ask for."""
    found, before = in_rounds(layout, fault, aim())
    journal = Journal(tmp_path / "journal", {})
    for index in before.asked[:kept]:
        journal.keep(see(layout, index, fault))
    journal = Journal(tmp_path / "journal", {})
    again, after = in_rounds(layout, fault, aim(), journal)
    assert [tile.index for tile in again.tiles] == [tile.index for tile in found.tiles]
    assert again.counts == found.counts
    assert after.asked == before.asked[kept:]


def test_progress_only_grows(layout: Layout) -> None:
    told: list[tuple[int, int, float]] = []
    runner = Plain(lambda job: see(layout, job.index, fault))
    settings: Any = None
    match_in_rounds(layout, settings, Journal(None, {}), runner, aim(), lambda *now: told.append(now))
    shares = [share for _, _, share in told]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1
    assert all(done <= asked for done, asked, _ in told)
    assert told[0][:2] == (0, 25)


# --- whole runs -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> SceneResult:
    return run(pair.moving, pair.reference, tmp_path_factory.mktemp("rounds") / "out", sizes=SIZES, accuracy=1.5)


def test_a_scene_in_rounds(pair: Pair, result: SceneResult) -> None:
    assert 16 <= len(result.tiles) < 49
    assert any(
        note.startswith(f"matched as a scene: {len(result.tiles)} of 49 tiles of 192 px") for note in result.notes
    )
    assert result.verdict.decision == "go"
    assert result.settings["accuracy"] == 1.5
    assert rms(pair.errors(result)) < 0.7


@pytest.mark.usefixtures("no_page")
def test_a_scene_in_rounds_is_killed_and_goes_on(pair: Pair, result: SceneResult, tmp_path: Path) -> None:
    stop_at = len(result.tiles) - 1  # in the last round

    def stop(stage: str, share: float) -> None:
        if stage == f"tile {stop_at}/{len(result.tiles)}":
            raise KeyboardInterrupt

    options: Any = {"sizes": SIZES, "accuracy": 1.5}
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(pair.moving, pair.reference, out, progress=stop, **options)
    again = run(pair.moving, pair.reference, out, resume=True, **options)
    assert [tile.index for tile in again.tiles] == [tile.index for tile in result.tiles]
    for name in NAMES:
        assert (out / name).read_bytes() == (result.folder / name).read_bytes(), name


@pytest.mark.usefixtures("no_page")
def test_finished_tiles_serve_another_accuracy(pair: Pair, tmp_path: Path) -> None:
    stages: list[str] = []

    def stop(stage: str, share: float) -> None:
        if stage.startswith("tile 16/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(pair.moving, pair.reference, tmp_path / "out", sizes=SIZES, accuracy=0.01, progress=stop)
    again = run(
        *(pair.moving, pair.reference, tmp_path / "out"),
        sizes=SIZES,
        accuracy=50.0,
        resume=True,
        progress=lambda stage, share: stages.append(stage),
    )
    assert next(stage for stage in stages if stage.startswith("tile")) == "tile 16/16"
    assert len(again.tiles) == 16


@pytest.mark.cluster
@pytest.mark.usefixtures("no_page", "one_thread")
def test_rounds_on_processes_give_the_same_files(dask: Dask, pair: Pair, result: SceneResult, tmp_path: Path) -> None:
    options: Any = {"sizes": SIZES, "accuracy": 1.5, "dask": dask.client}
    found = run(pair.moving, pair.reference, tmp_path / "out", **options)
    assert len(found.tiles) == len(result.tiles)
    for name in NAMES:
        assert (tmp_path / "out" / name).read_bytes() == (result.folder / name).read_bytes(), name


@pytest.mark.parametrize("accuracy", [0, -1, float("nan"), float("inf"), "high"])
def test_an_accuracy_is_a_length(pair: Pair, tmp_path: Path, accuracy: Any) -> None:
    with pytest.raises(ConfigError, match="accuracy"):
        run(pair.moving, pair.reference, tmp_path / "out", accuracy=accuracy)
