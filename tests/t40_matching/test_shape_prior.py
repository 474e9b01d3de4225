"""The prior that a whole map is nearly a similarity: its definition, its limits, and what it means for a residual."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from somareg.features.orientation import OrientationCfg
from somareg.geometry import AffineTransform
from somareg.matching import fit, refine
from somareg.matching.affine import (
    NO_SHAPE,
    Shape,
    ShapePrior,
    departure,
    fit_affine,
    fit_affine_batch,
    to_transform,
)
from somareg.matching.describe import OrientationFeatures
from somareg.matching.evidence import back_again
from somareg.matching.fit import ShapeBelief
from somareg.matching.matcher import Matcher
from somareg.matching.posterior import WindowMatches, support_at
from somareg.matching.refine import Fit, fit_windows
from somareg.matching.steps import NEAR, ShapeCfg, StepCfg
from somareg.matching.windows import WindowCorrelation, overlap
from tests.synthetic import Array, make_pair
from tests.t40_matching.conftest import as_pair
from tests.t40_matching.shapes import MIRROR, stretched, turned

RNG = np.random.default_rng(0)
XY = RNG.uniform(0, 300, (25, 2))
WEIGHT = RNG.uniform(0.1, 5, 25)
NOISY = RNG.normal(0, 4, (25, 2))
POINTS, ANY, WEIGHTS = (torch.from_numpy(a) for a in (XY, NOISY, WEIGHT))
EXTENT = 150.0
HARD = 1e6  # of 25 points; beyond about 1e7 the normal matrix would count as ill-conditioned

# --- the fit ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stiffness", [0.0, 0.7])
@pytest.mark.parametrize("extent", [None, EXTENT])
def test_without_strength_it_is_the_plain_fit(stiffness: float, extent: float | None) -> None:
    """The fit of both axes at once and that of one axis after the other are the same."""
    none = ShapePrior(0.0, (0.3, -0.2))
    plain = fit_affine(POINTS, ANY, WEIGHTS, stiffness=stiffness, extent=extent)
    found = fit_affine(POINTS, ANY, WEIGHTS, stiffness=stiffness, extent=extent, shape=none)
    torch.testing.assert_close(found, plain, atol=1e-10, rtol=0)


@pytest.mark.parametrize("strength", [0.3, 20.0])
def test_a_precision_matrix_and_a_weight_feel_it_alike(strength: float) -> None:
    prior = ShapePrior(strength, (0.02, -0.01))
    matrices = WEIGHTS[:, None, None] * torch.eye(2, dtype=torch.float64)
    scalar = fit_affine(POINTS, ANY, WEIGHTS, stiffness=0.4, shape=prior)
    torch.testing.assert_close(fit_affine(POINTS, ANY, matrices, stiffness=0.4, shape=prior), scalar)


@pytest.mark.parametrize("strength", [0.5, 40.0])
@pytest.mark.parametrize("known", [(0.0, 0.0), (0.03, -0.02)])
def test_it_is_the_least_squares_solution_with_two_more_rows(strength: float, known: tuple[float, float]) -> None:
    """Against numpy: one row each for aspect and shear of the whole map, with `strength` times the mean weight."""
    centre = (XY * WEIGHT[:, None]).sum(0) / WEIGHT.sum()
    one = np.column_stack([(XY - centre) / EXTENT, np.ones(25)]) * np.sqrt(WEIGHT)[:, None]
    design = np.kron(np.eye(2), one)
    values = (NOISY * np.sqrt(WEIGHT)[:, None]).T.ravel()
    pull = math.sqrt(strength * WEIGHT.mean())
    rows = pull * np.array([[1.0, 0, 0, 0, -1, 0], [0, 1, 0, 1, 0, 0]])
    wanted = -pull * np.array(known) * EXTENT
    solution, *_ = np.linalg.lstsq(np.vstack([design, rows]), np.concatenate([values, wanted]), rcond=None)
    found = fit_affine(POINTS, ANY, WEIGHTS, extent=EXTENT, shape=ShapePrior(strength, known)).numpy()
    np.testing.assert_allclose(found[:, :2], np.eye(2) + solution.reshape(2, 3)[:, :2] / EXTENT, atol=1e-10)
    np.testing.assert_allclose(found[:, :2] @ centre + found[:, 2] - centre, solution.reshape(2, 3)[:, 2], atol=1e-9)


def best_similarity(weight: Array) -> Array:
    """(2, 3) similarity of least squares, from its four parameters."""
    (x, y), root = XY.T, np.sqrt(weight)
    none, one = np.zeros(25), np.ones(25)
    design = np.concatenate([np.column_stack([x, -y, one, none]), np.column_stack([y, x, none, one])])
    values = (XY + NOISY).T.ravel()
    twice = np.tile(root, 2)
    (cos, sin, dx, dy), *_ = np.linalg.lstsq(design * twice[:, None], values * twice, rcond=None)
    return np.array([[cos, -sin, dx], [sin, cos, dy]])


def test_a_hard_prior_leaves_the_best_similarity() -> None:
    free = departure(to_transform(fit_affine(POINTS, ANY, WEIGHTS)))
    assert math.hypot(*free) > 0.005
    left = []
    for strength in (HARD / 100, HARD):
        found = fit_affine(POINTS, ANY, WEIGHTS, shape=ShapePrior(strength))
        left.append(math.hypot(*departure(to_transform(found))))
    assert left[1] < 1e-4 * math.hypot(*free)
    assert left[0] / left[1] == pytest.approx(100, rel=0.05)  # it fades as one over the strength
    np.testing.assert_allclose(
        found.numpy() @ np.vstack([XY.T, np.ones(25)]),
        best_similarity(WEIGHT) @ np.vstack([XY.T, np.ones(25)]),
        atol=1e-3,
    )


@pytest.mark.parametrize(
    "outer",
    [turned(0), turned(33, 1.3), turned(90), turned(-135, 0.7), turned(20).after(MIRROR)],
    ids=["upright", "33 degrees", "quarter turn", "-135 degrees", "mirrored"],
)
def test_the_prior_is_about_the_whole_map(outer: AffineTransform) -> None:
    """A sheared estimate comes back to a similarity; a prior on the residual alone would keep its shear for good."""
    sheared = outer.after(stretched())
    before = math.hypot(*departure(sheared))
    known = fit_affine(POINTS, 0 * ANY, WEIGHTS, shape=ShapePrior(HARD, departure(sheared)))
    alone = fit_affine(POINTS, 0 * ANY, WEIGHTS, shape=ShapePrior(HARD))
    assert before > 0.05
    assert math.hypot(*departure(sheared.after(to_transform(known)))) < before**2
    assert math.hypot(*departure(sheared.after(to_transform(alone)))) == pytest.approx(before)


def test_it_is_indifferent_to_turns_scales_and_shifts() -> None:
    truth = AffineTransform.from_parameters(rotation_deg=5, scale=1.08, shift=(7, -3), centre=(150, 150))
    displacement = torch.from_numpy(truth(XY) - XY)
    for strength in (1.0, HARD):
        found = fit_affine(POINTS, displacement, WEIGHTS, shape=ShapePrior(strength))
        np.testing.assert_allclose(found.numpy(), truth.matrix, atol=1e-7)


def test_with_it_points_on_a_line_are_enough() -> None:
    """A line determines a similarity, though no affine."""
    along = torch.linspace(0, 300, 30, dtype=torch.float64)
    points = torch.stack([along, 0.5 * along + 10], dim=1)
    truth = turned(4, 1.05)
    displacement = torch.from_numpy(truth(points.numpy())) - points
    without, having = (
        fit_affine_batch(points[None], displacement[None], torch.ones(1, 30), shape=prior)
        for prior in (None, ShapePrior(5.0))
    )
    assert bool(without.refused[0])
    assert not bool(having.refused[0])
    np.testing.assert_allclose(having.matrix[0].numpy(), truth.matrix, atol=1e-8)


def test_every_pair_of_a_batch_has_its_own_length() -> None:
    """`known` is a ratio: it means the same for a small and a large image."""
    prior = ShapePrior(3.0, (0.03, -0.02))
    points, displacement = torch.stack([POINTS, 7 * POINTS]), torch.stack([ANY, 7 * ANY])
    small, large = fit_affine_batch(points, displacement, WEIGHTS.expand(2, -1), shape=prior).matrix
    torch.testing.assert_close(large[:, :2], small[:, :2])
    torch.testing.assert_close(large[:, 2], 7 * small[:, 2])


# --- how strong it is -------------------------------------------------------------------------------------------------


def matches(count: int, spacing: float, variance: float = 2.0) -> WindowMatches:
    axis = torch.arange(count) * spacing
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).reshape(-1, 2).float()
    ones = torch.ones(len(points))
    return WindowMatches(points, 0 * points, variance * ones, ones, ones, 0.7 * ones, 0 * points, ones)


def strength(found: WindowMatches, cell: float, shared: float, deviation_px: float) -> float:
    known = torch.tensor([0.1]), torch.tensor([0.2])
    prior = ShapeBelief(deviation_px, shared, known).prior(found, cell)
    assert prior.known is known
    return float(prior.strength)


def test_strength_is_the_ratio_of_the_variances() -> None:
    """A window's variance over that of the prior, in pixels at `extent`, as often as windows overlap."""
    found = strength(matches(8, 32.0), 2.0, 1.0, 0.7)
    assert found == pytest.approx((2.0 + 1.2) / 0.7**2)  # a window's floor is 1.2 px^2 with cells of 2 px
    assert strength(matches(8, 32.0), 2.0, 1.0, 1.4) == pytest.approx(found / 4)
    assert strength(matches(8, 32.0), 2.0, 3.5, 0.7) == pytest.approx(found * 3.5)


@pytest.mark.parametrize("cell", [1.0, 4.0])
def test_strength_does_not_depend_on_the_size_of_a_pixel(cell: float) -> None:
    """The same windows, told in pixels of another size."""
    usual = strength(matches(6, 32.0, 4 * 0.8), 2.0, 1.0, 2 * 0.7)
    other = strength(matches(6, 16 * cell, cell**2 * 0.8), cell, 1.0, cell * 0.7)
    assert other == pytest.approx(usual)


def test_windows_that_overlap_are_witnesses_together() -> None:
    """Four times as many windows on the same ground show every place four times as often."""
    apart, dense = (overlap(matches(*rows).points.double(), 32.0) for rows in ((9, 32.0), (17, 16.0)))
    assert apart == pytest.approx(1.0)
    assert dense == pytest.approx((17 / 9) ** 2)
    assert overlap(matches(5, 80.0).points.double(), 32.0) == 1.0  # with gaps between them


def surfaces(
    truth: AffineTransform, cells: int = 64, margin: int = 6, noise: float = 0.0, wrong: float = 0.0, seed: int = 0
) -> WindowCorrelation:
    """Windows that see `truth` (between reference pixels, two per cell) as a bump.

    Args:
        truth: reference pixels -> moving pixels.
        cells, margin: of the reference, and of the windows.
        noise: how far the bumps lie off the truth, cells.
        wrong: share of the windows whose bump lies anywhere.
        seed: of both.
    """
    generator = torch.Generator().manual_seed(seed)
    axis = torch.arange(8.0, cells - 8, 8)
    centres = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).reshape(-1, 2)
    points = centres.double() * 2 + 0.5
    seen = (torch.from_numpy(truth(points.numpy())) - points) / 2
    seen = seen + noise * torch.randn(seen.shape, generator=generator, dtype=torch.float64)
    lost = torch.randperm(len(seen), generator=generator)[: round(wrong * len(seen))]
    seen[lost] = margin * (2 * torch.rand(len(lost), 2, generator=generator, dtype=torch.float64) - 1)
    offsets = torch.arange(-margin, margin + 1).double()
    away = (offsets - seen[:, :1]).square()[:, None, :] + (offsets - seen[:, 1:]).square()[:, :, None]
    return WindowCorrelation((0.5 * torch.exp(-away / 2)).float(), centres, torch.ones(len(centres)))


def test_refinement_tells_a_similarity_from_noise() -> None:
    """Windows that scatter by a cell: aspect and shear of the fit are chance, and stay small with the prior."""
    windows = surfaces(SIMILAR, noise=1.0)
    free, held = (to_transform(fit_windows(windows, 2.0, step, 64.0).residual) for step in (FREE, LAST))
    assert math.hypot(*departure(held)) < 0.4 * math.hypot(*departure(free))
    corners = np.array([[0.0, 0.0], [127.0, 0.0], [0.0, 127.0], [127.0, 127.0]])
    apart = [np.linalg.norm(found(corners) - SIMILAR(corners), axis=1).max() for found in (free, held)]
    assert apart[1] < apart[0]


# --- which of the two shapes is believed ------------------------------------------------------------------------------

SIMILAR = AffineTransform.from_parameters(rotation_deg=1, scale=1.01, shift=(3, -2), centre=(64, 64))
BENT = SIMILAR.after(AffineTransform.from_parameters(scale=(1.06, 1 / 1.06), centre=(64, 64)))
LAST = replace(NEAR[-1], stiffness=0.0)
FREE = replace(LAST, shape=None)


def size(shape: Shape) -> float:
    return math.hypot(*shape)


def fitted(windows: WindowCorrelation, step: StepCfg, known: Shape = NO_SHAPE) -> Shape:
    return departure(to_transform(fit_windows(windows, 2.0, step, 64.0, known).residual))


@pytest.mark.parametrize(("noise", "wrong"), [(1.0, 0.0), (1.0, 0.3), (0.0, 0.3), (1.5, 0.6)])
def test_windows_that_say_nothing_about_shape_leave_a_near_similarity(noise: float, wrong: float) -> None:
    """They scatter, or some of them are wrong: any affine that fits them better does so by chance."""
    found, free = [], []
    for seed in range(6):
        windows = surfaces(SIMILAR, noise=noise, wrong=wrong, seed=seed)
        found.append(size(fitted(windows, LAST)))
        free.append(size(fitted(windows, FREE)))
    assert max(free) > 0.03
    assert max(found) < 0.005


@pytest.mark.parametrize(("noise", "wrong"), [(0.0, 0.0), (0.6, 0.0), (0.0, 0.3), (0.3, 0.3)])
def test_windows_that_show_a_shape_are_believed(noise: float, wrong: float) -> None:
    for seed in range(6):
        windows = surfaces(BENT, noise=noise, wrong=wrong, seed=seed)
        never = replace(LAST, shape=ShapeCfg(gain=math.inf))
        assert fitted(windows, LAST) == fitted(windows, FREE)
        np.testing.assert_allclose(fitted(windows, LAST), departure(BENT), atol=0.07)
        assert size(fitted(windows, never)) < 0.01 < size(departure(BENT)) / 10


def test_the_rise_of_the_likelihood_decides() -> None:
    """That of all windows, counted as often as their ground: a threshold just above it and just below."""
    windows = surfaces(BENT, noise=0.6, wrong=0.3)
    never, always = (
        fit_windows(windows, 2.0, replace(LAST, shape=ShapeCfg(gain=gain)), 64.0) for gain in (math.inf, -math.inf)
    )
    assert never.support < always.support
    shared = overlap(windows.centres, LAST.window.size)
    assert shared > 2
    gain = len(windows.centres) * (always.support - never.support) / shared
    below, above = (
        fit_windows(windows, 2.0, replace(LAST, shape=ShapeCfg(gain=at * gain)), 64.0) for at in (0.99, 1.01)
    )
    assert torch.equal(below.residual, always.residual)
    assert torch.equal(above.residual, never.residual)
    assert (below.support, above.support) == (always.support, never.support)


def test_the_support_is_that_of_the_residual() -> None:
    windows = surfaces(BENT, noise=0.6)
    fit = fit_windows(windows, 2.0, LAST, 64.0)
    points = windows.centres.double() * 2 + 0.5
    moved = torch.from_numpy(to_transform(fit.residual)(points.numpy())) - points
    assert fit.support == pytest.approx(float(support_at(windows, moved / 2).mean()), abs=1e-6)
    assert fit.support > 1.0 > float(support_at(windows, 0 * points).mean())


@pytest.mark.parametrize("known", [(0.08, 0.0), (-0.05, 0.06)])
def test_the_shape_that_is_expected_is_kept_where_windows_say_little(known: Shape) -> None:
    """`known` is what the estimate so far has beyond it: the residual takes it back, unless windows are clear."""
    wavering = surfaces(SIMILAR, noise=1.5, wrong=0.6)
    np.testing.assert_allclose(fitted(wavering, LAST), NO_SHAPE, atol=0.005)
    np.testing.assert_allclose(fitted(wavering, LAST, known), (-known[0], -known[1]), atol=0.015)
    clear = surfaces(SIMILAR)
    np.testing.assert_allclose(fitted(clear, LAST, known), NO_SHAPE, atol=0.01)


@pytest.mark.parametrize("expected", [NO_SHAPE, (0.03, 0.0175)])
def test_every_step_knows_the_shape_of_the_estimate_so_far(expected: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a start has of stretch and shear beyond what is expected counts, not what a step adds; on noise it does not
    pile up.
    """
    told: list[Shape] = []
    fits: list[AffineTransform] = []

    def record(*parts: Any) -> Fit:
        told.append(parts[-1])
        fit = fit_windows(*parts)
        fits.append(to_transform(fit.residual))
        return fit

    monkeypatch.setattr(refine, "fit_windows", record)
    pair = as_pair(make_pair(0, 128))
    start = AffineTransform.from_parameters(rotation_deg=1, scale=(1.02, 0.99), shear_deg=1.0, centre=(64, 64))
    matcher = Matcher(pair, OrientationFeatures(OrientationCfg()))
    found = refine.refine_affine(matcher, start, NEAR, expected=expected).affine
    current = start
    for known, residual in zip(told, fits, strict=True):
        bent = departure(current)
        assert known == pytest.approx((bent[0] - expected[0], bent[1] - expected[1]))
        current = current.after(residual)
    np.testing.assert_allclose(found.matrix, current.matrix)
    if expected == NO_SHAPE:
        assert size(departure(found)) < 0.2 * size(departure(start))


@pytest.mark.parametrize(("side", "expected"), [(64, 24), (160, 28)])
def test_the_windows_of_the_prior_are_those_that_were_correlated(
    side: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On 32 cells windows of 28 are cut to three quarters of them, on 80 they are not."""
    sides: list[float] = []

    def record(centres: Tensor, side: float) -> float:
        sides.append(side)
        return overlap(centres, side)

    monkeypatch.setattr(fit, "overlap", record)
    matcher = Matcher(as_pair(make_pair(0, side)), OrientationFeatures(OrientationCfg()))
    refine.refine_affine(matcher, AffineTransform.identity(), NEAR[:1])
    back_again(matcher, AffineTransform.identity(), NEAR[0], 100)
    assert sides == [expected] * 2


def test_a_large_image_shows_a_stretch_and_a_small_one_does_not() -> None:
    """2 % between the axes is 5 px at the rim of 512 px, and 1 px at that of 128 px, where it might be chance."""
    step, kept = replace(LAST, shape=ShapeCfg(gain=math.inf)), []
    for cells in (64, 256):
        truth = AffineTransform.from_parameters(scale=(1.01, 0.99), centre=(cells, cells))
        found = to_transform(fit_windows(surfaces(truth, cells), 2.0, step, float(cells)).residual)
        kept.append(departure(found)[0] / departure(truth)[0])
    assert 0 < kept[0] < 0.3
    assert 0.9 < kept[1] < 1.1
