"""Tiles cover the scene, the spline field is exact Bayes, and the model survives tiles that are wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from somareg.errors import EstimationError
from somareg.quality.calibration import load_calibration
from somareg.register.tiles.field import (
    Lattice,
    Prior,
    choose_prior,
    coverage_at,
    gather_sums,
    prior_log_det,
    prior_precision,
    solve,
)
from somareg.register.tiles.holdout import deal
from somareg.register.tiles.layout import Layout, SceneCfg, lay_tiles
from somareg.register.tiles.model import SceneModel, field_on_nodes, fit_scene
from somareg.register.tiles.ties import collect
from somareg.register.tiles.tile import TileResult
from somareg.register.tiles.votes import count_votes

SHAPE = 3000, 2600


@given(st.integers(64, 9000), st.integers(64, 9000), st.sampled_from([1, 40, 256, 1024]))
@settings(max_examples=60, deadline=None)
def test_tiles_lie_inside_and_reach_every_edge(height: int, width: int, limit: int) -> None:
    cfg = SceneCfg()
    layout = lay_tiles((height, width), cfg, limit)
    blocks = layout.blocks
    assert len(blocks) == layout.rows * layout.columns
    assert len(blocks) <= max(limit, 4)
    assert all(b.x >= 0 and b.y >= 0 and b.x + b.width <= width and b.y + b.height <= height for b in blocks)
    if len(blocks) > 4:
        assert min(b.x for b in blocks) == min(b.y for b in blocks) == 0
        assert max(b.x + b.width for b in blocks) == width
        assert max(b.y + b.height for b in blocks) == height


@pytest.mark.parametrize("side", [3000, 6000, 12000])
def test_tiles_overlap_while_there_are_few(side: int) -> None:
    layout = lay_tiles((side, side), SceneCfg(), 1024)
    assert layout.spacing <= 512 - 64
    assert len(layout.blocks) < 1.25 * (side / 448) ** 2


def test_a_huge_scene_has_no_more_tiles_than_asked() -> None:
    layout = lay_tiles((60000, 60000), SceneCfg(), 1024)
    assert 900 < len(layout.blocks) <= 1024


def test_pixels_under_several_tiles_count_once() -> None:
    apart = lay_tiles((1024, 1536), SceneCfg(overlap_px=0), 1024)
    assert [apart.worth(range(count)) for count in (0, 1, 6)] == [0.0, 1.0, 6.0]
    close = lay_tiles((520, 530), SceneCfg(), 1024)
    assert len(close.blocks) == 4
    assert close.worth(range(4)) == pytest.approx(520 * 530 / 512**2)
    assert lay_tiles((1024, 1024), SceneCfg(), 1024).worth((0, 1, 2)) == pytest.approx(2.0)  # a row, half overlapping


def test_two_hands_are_dealt_like_a_chessboard() -> None:
    layout = lay_tiles(SHAPE, SceneCfg(), 1024)
    for tiles, step in ((range(len(layout.blocks)), 1), (layout.first, 2)):
        hands = deal(layout, tuple(tiles), 2)
        places = {divmod(index, layout.columns): hand for index, hand in hands.items()}
        for (row, column), hand in places.items():
            for beside in ((row + step, column), (row, column + step)):
                assert places.get(beside) != hand


def test_no_tile_is_held_out_with_one_beside_it() -> None:
    layout = lay_tiles((6000, 4200), SceneCfg(), 1024)
    hands = deal(layout, range(len(layout.blocks)), 4)
    assert np.bincount(list(hands.values())).min() > len(hands) / 5
    for index, hand in hands.items():
        row, column = divmod(index, layout.columns)
        for r, c in ((row + 1, column), (row, column + 1)):
            if r < layout.rows and c < layout.columns:
                assert hands[r * layout.columns + c] != hand


def lattice() -> Lattice:
    return Lattice.over((900, 700), 150.0)


def points(count: int = 400, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, (699, 899), (count, 2))


def test_splines_reproduce_linear_functions() -> None:
    grid, xy = lattice(), points()
    column, row = np.meshgrid(np.arange(grid.columns) - 1.0, np.arange(grid.rows) - 1.0)
    index, weight = grid.design(xy)
    np.testing.assert_allclose(weight.sum(1), 1.0, atol=1e-12)
    np.testing.assert_allclose((column.ravel()[index] * weight).sum(1) * grid.step, xy[:, 0], atol=1e-9)
    np.testing.assert_allclose((row.ravel()[index] * weight).sum(1) * grid.step, xy[:, 1], atol=1e-9)


def test_lattice_is_bounded() -> None:
    assert Lattice.over((60000, 60000), 100.0).size < 2300


def design(grid: Lattice, xy: np.ndarray) -> np.ndarray:
    matrix = np.zeros((len(xy), grid.size))
    index, weight = grid.design(xy)
    np.put_along_axis(matrix, index, weight, axis=1)
    return matrix


def test_solution_is_the_gaussian_posterior() -> None:
    """The same as conditioning the process on the points, which has a matrix as large as they are many."""
    grid, xy, rng = lattice(), points(150), np.random.default_rng(1)
    values, weight = rng.normal(size=(150, 2)), rng.uniform(0.2, 2.0, 150)
    prior = Prior(500.0, 0.7)
    field, _ = solve(grid, gather_sums(grid, xy, values, weight), prior)
    covariance = 0.7 * np.linalg.inv(prior_precision(grid, 500.0).numpy())
    known, asked = design(grid, xy), design(grid, points(50, 7))
    gain = asked @ covariance @ known.T @ np.linalg.inv(known @ covariance @ known.T + np.diag(1 / weight))
    np.testing.assert_allclose(field(points(50, 7)), gain @ values, atol=1e-7)


def test_marginal_likelihood_is_that_of_the_points() -> None:
    """Differences between priors agree with the Gaussian density of the points."""
    grid, xy, rng = lattice(), points(120), np.random.default_rng(2)
    values, weight = rng.normal(size=(120, 2)), rng.uniform(0.5, 2.0, 120)
    sums, known = gather_sums(grid, xy, values, weight), design(grid, xy)

    def density(prior: Prior) -> float:
        covariance = np.diag(1 / weight)
        if prior.ratio:
            covariance = (
                covariance
                + prior.ratio * known @ np.linalg.inv(prior_precision(grid, prior.range_px).numpy()) @ known.T
            )
        noise = (values * np.linalg.solve(covariance, values)).sum() / values.size
        return float(-120 * np.log(noise) - np.linalg.slogdet(covariance)[1])

    priors = [Prior(300.0, 0.0), Prior(300.0, 0.1), Prior(300.0, 2.0), Prior(900.0, 0.5)]
    ours = np.array([solve(grid, sums, prior)[1] for prior in priors])
    exact = np.array([density(prior) for prior in priors])
    np.testing.assert_allclose(np.diff(ours), np.diff(exact), atol=1e-6)


def test_determinant_of_the_prior() -> None:
    grid = lattice()
    assert prior_log_det(grid, 400.0) == pytest.approx(float(torch.linalg.slogdet(prior_precision(grid, 400.0))[1]))


def test_prior_has_unit_variance_inside() -> None:
    grid = Lattice.over((2000, 2000), 50.0)
    inner = design(grid, np.array([[1000.0, 1000.0], [900.0, 1100.0]]))
    covariance = inner @ np.linalg.inv(prior_precision(grid, 400.0).numpy()) @ inner.T
    np.testing.assert_allclose(np.diag(covariance), 1.0, atol=0.1)


def test_pure_noise_gets_no_field_and_a_wave_gets_one() -> None:
    grid, xy, rng = lattice(), points(800), np.random.default_rng(3)
    noise = rng.normal(0, 0.5, (800, 2))
    wave = np.stack([2 * np.sin(xy[:, 0] / 150), 2 * np.cos(xy[:, 1] / 180)], axis=-1)
    chosen = [
        choose_prior(grid, gather_sums(grid, xy, values, np.ones(800)), (300.0, 700.0), (0.02, 0.5, 12.0), 0.5)
        for values in (noise, noise + wave)
    ]
    assert chosen[0].ratio == 0
    assert chosen[1].ratio > 1


def test_coverage_falls_away_from_the_points() -> None:
    grid = lattice()
    xy = points(300) * (0.3, 1.0)  # the left third
    sums = gather_sums(grid, xy, np.zeros((300, 2)), np.ones(300))
    known = coverage_at(grid, sums, 300.0, 0.1, np.arange(0, 700, 10.0), np.arange(0, 900, 10.0))
    assert known.shape == (90, 70)
    assert known[10:-10, 2:18].min() > 0.8
    assert known[:, -10:].max() < 0.1


def wave(xy: np.ndarray) -> np.ndarray:
    x, y = xy.T / 1000.0
    return np.stack([3 + 2 * np.sin(2.5 * x) + 0.8 * y, -1 + 1.5 * np.cos(2 * y) - 0.5 * x], axis=-1)


def tiles(layout: Layout, wrong: float = 0.0, noise: float = 0.5, seed: int = 0) -> list[TileResult]:
    """Tiles that see `wave` with noise; a share of them is sure of a shift of its own instead."""
    rng, found = np.random.default_rng(seed), []
    for index, block in enumerate(layout.blocks):
        axis = np.linspace(28, 484, 9)
        own = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2) + np.array(block[:2])
        beyond = wave(own) + rng.normal(0, noise, own.shape)
        outliers = rng.uniform(size=len(own)) < 0.15
        beyond[outliers] += rng.uniform(-8, 8, (int(outliers.sum()), 2))
        if rng.uniform() < wrong:
            beyond += rng.choice([-1, 1], 2) * rng.uniform(6, 20, 2)
        ones, figures = np.ones(len(own)), {"probability": 0.9}
        found.append(TileResult(index, "matched", "", own, beyond, 2 * ones, ones, figures))
    return found


def error(model: SceneModel) -> float:
    xy = np.random.default_rng(9).uniform(30, (2570, 2970), (2000, 2))
    return float(np.sqrt(((model(xy) - xy - wave(xy)) ** 2).sum(1).mean()))


@pytest.fixture(scope="module")
def layout() -> Layout:
    return lay_tiles(SHAPE, SceneCfg(), 1024)


def test_model_finds_affine_and_field(layout: Layout) -> None:
    model = fit_scene(collect(tiles(layout)), layout, SHAPE, local=True)
    assert error(model) < 0.15
    held_out = np.array(list(model.held_out.values()))
    assert np.hypot(*held_out.T).max() < 0.6
    affine_only = fit_scene(collect(tiles(layout)), layout, SHAPE, local=False)
    assert error(affine_only) > 0.5
    assert not affine_only.field.coefficients.any()


def test_model_survives_wrong_tiles_and_points_at_them(layout: Layout) -> None:
    given_tiles = tiles(layout, wrong=0.2, seed=4)
    model = fit_scene(collect(given_tiles), layout, SHAPE, local=True)
    assert error(model) < 0.35
    off = {index for index, apart in model.held_out.items() if np.hypot(*apart) > 2.0}
    middle = [np.median(np.hypot(*(tile.beyond - wave(tile.points)).T)) for tile in given_tiles]
    assert off == {index for index, size in enumerate(middle) if size > 4}
    votes = count_votes(given_tiles, layout, model, load_calibration("orientation"))
    assert (votes.sure, votes.agreeing) == (len(given_tiles), len(given_tiles) - len(off))
    assert votes.probability < 1 - len(off) / len(given_tiles)


def test_tiles_that_contradict_each_other_are_not_believed(layout: Layout) -> None:
    model = fit_scene(collect(tiles(layout, wrong=1.0, seed=5)), layout, SHAPE, local=True)
    votes = count_votes(tiles(layout, wrong=1.0, seed=5), layout, model, load_calibration("orientation"))
    assert votes.probability < 0.15


def test_field_is_continuous_on_the_nodes(layout: Layout) -> None:
    """Bilinear between nodes 16 px apart, it stays with the spline itself, beyond the last node too."""
    model = fit_scene(collect(tiles(layout)), layout, SHAPE, local=True)
    nodes = field_on_nodes(model, SHAPE, 16)
    field = nodes.field
    xy = np.random.default_rng(1).uniform(8, (2590, 2990), (3000, 2))
    np.testing.assert_allclose(field(xy) - xy, model.field(xy), atol=5e-3)
    assert field.array.shape[1:] == nodes.coverage.shape == nodes.spread_px.shape == (188, 163)


def test_the_spread_of_a_field_is_its_error_in_size(layout: Layout) -> None:
    """It tells the truth within a factor of three, is larger where there are no tie points, and 0 without a field."""
    model = fit_scene(collect(tiles(layout)), layout, SHAPE, local=True)
    spread = field_on_nodes(model, SHAPE, 16).spread_px
    xy = np.random.default_rng(1).uniform(200, (2390, 2790), (3000, 2))
    off = model(xy) - (xy + wave(xy))
    assert 1 / 3 < float(spread[12:-12, 12:-12].mean()) / float(np.sqrt(np.square(off).mean())) < 3
    half = [tile for tile in tiles(layout) if layout.blocks[tile.index].x < SHAPE[1] / 2]
    known = field_on_nodes(fit_scene(collect(half), layout, SHAPE, local=True), SHAPE, 16)
    assert known.spread_px[:, -8:].mean() > 2 * known.spread_px[:, 20:60].mean()
    straight = fit_scene(collect(tiles(layout)), layout, SHAPE, local=False)
    assert not field_on_nodes(straight, SHAPE, 16).spread_px.any()


def test_too_few_tie_points() -> None:
    with pytest.raises(EstimationError, match="too few"):
        fit_scene(collect([TileResult(0, "empty")]), lay_tiles(SHAPE, SceneCfg(), 9), SHAPE, local=True)
