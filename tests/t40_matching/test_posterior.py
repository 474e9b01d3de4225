"""Bayes' rule on a grid of displacements, by hand; and windows read with a trained temperature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from somareg.matching.posterior import between_cells, candidate_displacements, posterior, read_windows
from somareg.matching.windows import WindowCorrelation


def test_candidates_follow_the_surface() -> None:
    """Entry [m + j, m + i] is displacement (i, j) cells, +x right, +y down."""
    candidates = candidate_displacements(2, 4.0, torch.zeros(1)).reshape(5, 5, 2)
    for j in range(-2, 3):
        for i in range(-2, 3):
            assert candidates[2 + j, 2 + i].tolist() == [4.0 * i, 4.0 * j]
    assert candidate_displacements(1, 0.5, torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


def test_mean_and_covariance_by_hand() -> None:
    """Three displacements (-2, 0), (2, 0), (0, 2) with odds 1 : 3 : 4 and a prior so wide that it says nothing."""
    candidates = candidate_displacements(1, 2.0, torch.zeros(1, dtype=torch.float64))
    log_likelihood = torch.full((1, 9), -1e3, dtype=torch.float64)
    for place, odds in ((3, 1.0), (5, 3.0), (7, 4.0)):
        log_likelihood[0, place] = math.log(odds)
    found = posterior(log_likelihood, candidates, torch.zeros(1, 2, dtype=torch.float64), 1e6)
    torch.testing.assert_close(found.probability[0, [3, 5, 7]], torch.tensor([0.125, 0.375, 0.5]).double())
    torch.testing.assert_close(found.mean[0], torch.tensor([0.5, 1.0]).double())
    # var x = (0.125 + 0.375) * 4 - 0.25, var y = 0.5 * 4 - 1, cov = 0 - 0.5 * 1
    expected = torch.tensor([[1.75, -0.5], [-0.5, 1.0]]).double()
    torch.testing.assert_close(found.covariance[0], expected)


@pytest.mark.parametrize("predicted", [(0.0, 0.0), (1.2, -0.7), (-3.0, 2.0)])
@pytest.mark.parametrize("sigma", [0.8, 1.5])
def test_a_flat_likelihood_gives_the_prior_back(predicted: tuple[float, float], sigma: float) -> None:
    candidates = candidate_displacements(30, 0.5, torch.zeros(1, dtype=torch.float64))
    centre = torch.tensor(predicted, dtype=torch.float64)
    found = posterior(torch.zeros(len(candidates), dtype=torch.float64), candidates, centre, sigma)
    torch.testing.assert_close(found.mean, centre, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.covariance, sigma**2 * torch.eye(2).double(), atol=1e-3, rtol=0)


def test_a_gaussian_likelihood_multiplies_the_prior() -> None:
    """Precisions add, and the mean is weighted by them, also with correlated axes."""
    candidates = candidate_displacements(40, 0.25, torch.zeros(1, dtype=torch.float64))
    centre, prior = torch.tensor([0.4, -0.3]).double(), torch.tensor([-0.6, 0.2]).double()
    precision = torch.tensor([[1.5, 0.6], [0.6, 0.9]]).double()
    away = candidates - centre
    log_likelihood = -0.5 * torch.einsum("ni,ij,nj->n", away, precision, away)
    sigma = 1.1
    found = posterior(log_likelihood, candidates, prior, sigma)
    both = precision + torch.eye(2) / sigma**2
    torch.testing.assert_close(found.covariance, torch.linalg.inv(both), atol=1e-4, rtol=0)
    mean = torch.linalg.solve(both, precision @ centre + prior / sigma**2)
    torch.testing.assert_close(found.mean, mean, atol=1e-4, rtol=0)


def test_any_leading_dimensions_and_one_width_each() -> None:
    generator = torch.Generator().manual_seed(0)
    candidates = candidate_displacements(3, 2.0, torch.zeros(1))
    log_likelihood = torch.randn(2, 5, 49, generator=generator)
    predicted = torch.randn(2, 5, 2, generator=generator)
    sigma = torch.rand(2, 5, 1, generator=generator) * 4 + 1
    together = posterior(log_likelihood, candidates, predicted, sigma)
    for b, n in np.ndindex(2, 5):
        alone = posterior(log_likelihood[b, n], candidates, predicted[b, n], float(sigma[b, n, 0]))
        torch.testing.assert_close(together.mean[b, n], alone.mean)
        torch.testing.assert_close(together.covariance[b, n], alone.covariance, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("margin", [4, 8])
@pytest.mark.parametrize("cell", [2.0, 8.0])
@pytest.mark.parametrize("certainty", [12.0, 30.0])
def test_a_certain_displacement_far_out_has_no_negative_variance(margin: int, cell: float, certainty: float) -> None:
    """The second moment minus the square of the mean would cancel to rounding of the square."""
    candidates = candidate_displacements(margin, cell, torch.zeros(1))
    count = len(candidates)
    generator = torch.Generator().manual_seed(margin)
    # Every candidate in turn is nearly certain; a little probability is left on the others.
    log_likelihood = certainty * torch.eye(count) + torch.randn(count, count, generator=generator)
    found = posterior(log_likelihood, candidates, torch.zeros(count, 2), 1e4)
    exact = posterior(log_likelihood.double(), candidates.double(), torch.zeros(count, 2).double(), 1e4)
    assert bool((found.covariance.diagonal(dim1=-2, dim2=-1) >= 0).all())
    torch.testing.assert_close(found.covariance, exact.covariance.float(), atol=1e-5 * cell**2, rtol=1e-3)


def test_it_can_be_trained_through() -> None:
    generator = torch.Generator().manual_seed(1)
    candidates = candidate_displacements(1, 2.0, torch.zeros(1, dtype=torch.float64))
    log_likelihood = torch.randn(2, 9, generator=generator, dtype=torch.float64, requires_grad=True)
    predicted = torch.randn(2, 2, generator=generator, dtype=torch.float64, requires_grad=True)

    def moments(likelihood: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
        found = posterior(likelihood, candidates, centre, 1.5)
        return found.mean, found.covariance

    assert torch.autograd.gradcheck(moments, (log_likelihood, predicted))


# --- windows ----------------------------------------------------------------------------------------------------------


def bumps(places: Tensor, height: float, width: float, temperature: float | None, margin: int = 5) -> WindowCorrelation:
    """A Gaussian bump in correlation at a sub-cell displacement (N, 2) for each window."""
    axis = torch.arange(-margin, margin + 1.0)
    dy, dx = torch.meshgrid(axis, axis, indexing="ij")
    squared = (dx - places[:, 0, None, None]).square() + (dy - places[:, 1, None, None]).square()
    surfaces = height * torch.exp(-squared / (2 * width**2)) + 1e-4
    count = len(places)
    return WindowCorrelation(surfaces, torch.zeros(count, 2), torch.ones(count), temperature)


def test_a_parabola_has_its_top_where_it_has_it() -> None:
    axis = torch.arange(5.0)
    tops = torch.tensor([[2.3, 1.6], [1.0, 3.0], [2.5, 2.5], [4.0, 2.2], [1.8, 0.3]])  # the last two on the rim
    away = 2 * (axis - tops[:, :1]).square()[:, None, :] + (axis - tops[:, 1:]).square()[:, :, None]
    column, row = torch.tensor([2, 1, 2, 4, 2]), torch.tensor([2, 3, 3, 2, 0])
    found = between_cells(5 - away, row, column)
    expected = torch.tensor([[0.3, -0.4], [0.0, 0.0], [0.5, -0.5], [0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


PLACES = torch.tensor([[0.0, 0.0], [0.3, -0.2], [-2.4, 1.1], [3.0, -3.4], [-0.5, 0.5]])


@pytest.mark.parametrize("temperature", [None, 25.0, 400.0])
def test_windows_are_read_between_the_cells(temperature: float | None) -> None:
    windows = bumps(PLACES, 0.6, 1.2, temperature)
    matches = read_windows(windows, 2.0, torch.zeros(5, 2), 40.0)
    torch.testing.assert_close(matches.displacement, 2 * PLACES, atol=0.25, rtol=0)
    assert bool((matches.variance >= 0).all())


def test_the_temperature_is_the_log_likelihood_of_a_coefficient() -> None:
    windows = bumps(PLACES, 0.3, 1.5, 8.0)
    predicted = torch.tensor([[0.5, 0.5]]).expand(5, 2)
    matches = read_windows(windows, 2.0, predicted, 3.0)
    candidates = candidate_displacements(5, 2.0, windows.surfaces)
    expected = posterior(8.0 * windows.surfaces.flatten(1), candidates, predicted, 3.0)
    variance = expected.covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
    torch.testing.assert_close(matches.variance, variance)
    correlation = (expected.probability * windows.surfaces.flatten(1)).sum(1)
    torch.testing.assert_close(matches.correlation, correlation)
    # Blurred posteriors stay where Bayes puts them.
    blurred = variance > 8
    assert bool(blurred.any())
    torch.testing.assert_close(matches.displacement[blurred], expected.mean[blurred], atol=0.01, rtol=0)
    # A higher temperature makes the same surface more certain, and no temperature ignores its height.
    sharper = read_windows(bumps(PLACES, 0.3, 1.5, 40.0), 2.0, predicted, 3.0)
    assert bool((sharper.variance < matches.variance).all())
    low, high = (read_windows(bumps(PLACES, h, 1.5, None), 2.0, predicted, 3.0) for h in (0.1, 0.8))
    torch.testing.assert_close(low.displacement, high.displacement, atol=0.01, rtol=0)


@pytest.mark.parametrize("variance", [0.7, 1.5])
@pytest.mark.parametrize("predicted", [(-2.0, 0.0), (2.0, 1.0), (0.4, -0.8)])
def test_likely_is_the_window_without_the_prior(variance: float, predicted: tuple[float, float]) -> None:
    """A quadratic surface is a Gaussian likelihood: the posterior is drawn to the prior, `likely` and its precision
    are the likelihood's own."""
    axis = torch.arange(-8, 9.0)
    dy, dx = torch.meshgrid(axis, axis, indexing="ij")
    temperature = 50.0
    surface = 0.9 - ((dx - 0.4).square() + (dy + 0.8).square()) / (2 * variance * temperature)
    windows = WindowCorrelation(surface[None], torch.zeros(1, 2), torch.ones(1), temperature)
    prior = torch.tensor([predicted])
    matches = read_windows(windows, 1.0, prior, 2.0)
    own = torch.tensor([[0.4, -0.8]])
    between = (own / variance + prior / 4) / (1 / variance + 1 / 4)
    torch.testing.assert_close(matches.displacement, between, atol=0.1, rtol=0)
    torch.testing.assert_close(matches.likely, own, atol=0.15, rtol=0)
    assert float(matches.precision[0]) == pytest.approx(1 / variance, rel=0.15)


def test_one_prior_width_per_window_and_none_at_all() -> None:
    windows = bumps(PLACES, 0.3, 1.5, 5.0)
    widths = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0])
    together = read_windows(windows, 2.0, torch.zeros(5, 2), widths)
    for i in range(5):
        one = WindowCorrelation(windows.surfaces[i : i + 1], torch.zeros(1, 2), torch.ones(1), 5.0)
        alone = read_windows(one, 2.0, torch.zeros(1, 2), float(widths[i]))
        torch.testing.assert_close(together.displacement[i : i + 1], alone.displacement)
        torch.testing.assert_close(together.precision[i : i + 1], alone.precision)
    empty = WindowCorrelation(torch.zeros(0, 11, 11), torch.zeros(0, 2), torch.zeros(0))
    assert read_windows(empty, 2.0, torch.zeros(0, 2), 1.0).displacement.shape == (0, 2)


def test_a_window_half_seen_counts_half() -> None:
    windows = bumps(PLACES, 0.5, 1.2, None)
    half = WindowCorrelation(windows.surfaces, windows.centres, torch.full((5,), 0.5))
    full, less = (read_windows(w, 2.0, torch.zeros(5, 2), 3.0) for w in (windows, half))
    torch.testing.assert_close(less.weight, 0.5 * full.weight)
    torch.testing.assert_close(less.precision, 0.5 * full.precision)
    torch.testing.assert_close(less.displacement, full.displacement)
