"""The Gaussian process behind the local flow: exact where it is told exactly, nothing where it is told nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from somareg.matching.belief import relative_noise
from somareg.matching.gaussian_process import (
    GaussianProcess,
    kernel,
    lattice,
    process_mean,
    process_variance,
    profiled_likelihood,
)

LENGTH, VARIANCE = 40.0, 3.0


def spread_out(batch: int = 1, seed: int = 0, side: int = 4) -> Tensor:
    """(batch, side^2, 2) points about 60 px apart, so that the prior's covariance is well conditioned."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] * 60.0
    grid = np.stack([x.ravel(), y.ravel()], axis=-1)
    return torch.from_numpy(grid + rng.uniform(-12, 12, (batch, side**2, 2)))


def measured(points: Tensor, seed: int = 1) -> Tensor:
    return torch.randn(points.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def no_noise(points: Tensor) -> Tensor:
    return points.new_zeros(*points.shape[:-1], points.shape[-2])


def some_noise(points: Tensor, seed: int = 2) -> Tensor:
    precision = torch.rand(points.shape[:-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return relative_noise(points, 0.1 + 2 * precision, 48.0)


def test_without_noise_it_goes_through_the_measurements() -> None:
    points = spread_out(2)
    values = measured(points)
    found = process_mean(points, values, no_noise(points), LENGTH, VARIANCE, points)
    torch.testing.assert_close(found, values, atol=1e-8, rtol=0)
    variance = process_variance(points, no_noise(points), LENGTH, VARIANCE, points)
    assert variance.abs().max() < 1e-8
    # In between it is not simply the nearest measurement.
    between = (points[:, :-1] + points[:, 1:]) / 2
    nearest = process_mean(points, values, no_noise(points), LENGTH, VARIANCE, between) - values[:, :-1]
    assert nearest.abs().min() > 1e-3


def test_far_away_nothing_is_known() -> None:
    points = spread_out()
    values = measured(points) + 5.0
    where = torch.tensor([[[5000.0, 0.0], [0.0, -3000.0], [180.0 + 7 * LENGTH, 90.0]]], dtype=torch.float64)
    for noise in (no_noise(points), some_noise(points)):
        assert process_mean(points, values, noise, LENGTH, VARIANCE, where).abs().max() < 1e-6
        variance = process_variance(points, noise, LENGTH, VARIANCE, where)
        torch.testing.assert_close(variance, torch.full_like(variance, VARIANCE))


def test_variance_grows_with_the_distance_up_to_the_prior() -> None:
    points = spread_out(side=1)
    steps = torch.arange(0.0, 200.0, 5.0, dtype=torch.float64)
    where = points + torch.stack([steps, torch.zeros_like(steps)], dim=-1)
    noise = torch.full((1, 1, 1), 0.5, dtype=torch.float64)
    variance = process_variance(points, noise, LENGTH, VARIANCE, where)[0]
    assert bool((variance.diff() > -1e-12).all())
    assert float(variance[0]) == pytest.approx(1 / (1 / VARIANCE + 1 / 0.5))  # two Gaussians multiplied
    assert float(variance[-1]) == pytest.approx(VARIANCE, rel=1e-3)
    # And another measurement anywhere can only lower it.
    more = torch.cat([points, points + 50.0], dim=1)
    both = process_variance(more, 0.5 * torch.eye(2, dtype=torch.float64)[None], LENGTH, VARIANCE, where)[0]
    assert bool((both <= variance + 1e-12).all())


def test_one_measurement_by_hand() -> None:
    """mean = k / (1 + noise / variance) * value with k = exp(-d^2 / 2 l^2)."""
    points = torch.tensor([[10.0, 20.0]], dtype=torch.float64)
    values = torch.tensor([[2.0, -1.0]], dtype=torch.float64)
    noise = torch.tensor([[0.75]], dtype=torch.float64)
    where = torch.tensor([[10.0 + 30.0, 20.0 - 40.0]], dtype=torch.float64)
    gain = np.exp(-(50.0**2) / (2 * LENGTH**2)) / (1 + 0.75 / VARIANCE)
    found = process_mean(points, values, noise, LENGTH, VARIANCE, where)
    np.testing.assert_allclose(found.numpy(), [[2 * gain, -gain]], rtol=1e-10)
    variance = process_variance(points, noise, LENGTH, VARIANCE, where)
    expected = VARIANCE - (VARIANCE * np.exp(-(50.0**2) / (2 * LENGTH**2))) ** 2 / (VARIANCE + 0.75)
    np.testing.assert_allclose(variance.numpy(), [expected], rtol=1e-10)


def test_it_is_the_conditional_of_the_joint_gaussian() -> None:
    """Against the inverse of the joint covariance of measurements and field: its blocks give mean and variance."""
    points, where = spread_out()[0], spread_out(seed=5)[0, :6] + 20.0
    values, noise = measured(points), some_noise(points)
    everywhere = torch.cat([where, points])
    squared = (everywhere[:, None] - everywhere[None]).square().sum(-1)
    joint = VARIANCE * torch.exp(-squared / (2 * LENGTH**2)) + 1e-12 * torch.eye(len(everywhere))
    joint[6:, 6:] += noise
    information = torch.linalg.inv(joint)
    own = torch.linalg.inv(information[:6, :6])
    mean = -own @ information[:6, 6:] @ values
    torch.testing.assert_close(process_mean(points, values, noise, LENGTH, VARIANCE, where), mean, atol=1e-7, rtol=0)
    torch.testing.assert_close(
        process_variance(points, noise, LENGTH, VARIANCE, where), own.diagonal(), atol=1e-7, rtol=0
    )


def test_a_noisy_measurement_pulls_less() -> None:
    points = torch.tensor([[0.0, 0.0], [30.0, 0.0]], dtype=torch.float64)
    values = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    where = torch.tensor([[15.0, 0.0]], dtype=torch.float64)
    even, left, right = (
        float(process_mean(points, values, torch.diag(torch.tensor(n).double()), LENGTH, VARIANCE, where)[0, 0])
        for n in ([1.0, 1.0], [0.1, 5.0], [5.0, 0.1])
    )
    assert even == pytest.approx(0, abs=1e-12)
    assert left > 0.2
    assert right == pytest.approx(-left)


@pytest.mark.parametrize("side", [4, 6])
def test_a_batch_equals_its_samples(side: int) -> None:
    points, where = spread_out(6, side=side), spread_out(6, seed=9) + 10.0
    values, noise = measured(points), some_noise(points)
    mean = process_mean(points, values, noise, LENGTH, VARIANCE, where)
    variance = process_variance(points, noise, LENGTH, VARIANCE, where)
    assert mean.shape == (6, 16, 2)
    for i in range(6):
        alone = process_mean(points[i], values[i], noise[i], LENGTH, VARIANCE, where[i])
        torch.testing.assert_close(mean[i], alone, atol=1e-9, rtol=0)
        alone = process_variance(points[i], noise[i], LENGTH, VARIANCE, where[i])
        torch.testing.assert_close(variance[i], alone, atol=1e-9, rtol=0)
    nested = process_mean(
        points.reshape(2, 3, -1, 2), values.reshape(2, 3, -1, 2), noise.unflatten(0, (2, 3)), LENGTH, VARIANCE,
        where.reshape(2, 3, -1, 2),
    )  # fmt: skip
    torch.testing.assert_close(nested.flatten(0, 1), mean)


def test_the_kernel_knows_distances_only() -> None:
    a, b = spread_out(2, side=7), spread_out(2, seed=3, side=5)
    expected = torch.exp(-0.5 * (a[:, :, None] - b[:, None]).square().sum(-1) / LENGTH**2)
    torch.testing.assert_close(kernel(a, b, LENGTH), expected, atol=1e-9, rtol=0)
    moved = kernel(a + 20_000.0, b + 20_000.0, LENGTH)  # a large scene
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)


def test_it_can_be_trained_through() -> None:
    points, where = spread_out(2, side=2), spread_out(2, seed=4, side=2) + 15.0
    values = measured(points).requires_grad_()
    precision = torch.rand(2, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.2
    precision.requires_grad_()

    def run(v: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        noise = relative_noise(points, p, 48.0)
        return (
            process_mean(points, v, noise, LENGTH, VARIANCE, where),
            process_variance(points, noise, LENGTH, VARIANCE, where),
        )

    assert torch.autograd.gradcheck(run, (values, precision))


def test_a_fitted_process_foretells_what_the_formulas_do() -> None:
    points, where = spread_out()[0], spread_out(seed=5)[0]
    values, noise = measured(points), some_noise(points)
    fitted = GaussianProcess(points, values, noise, LENGTH, VARIANCE)
    torch.testing.assert_close(fitted.predict(where), process_mean(points, values, noise, LENGTH, VARIANCE, where))
    torch.testing.assert_close(fitted.uncertainty(where, 1.0), process_variance(points, noise, LENGTH, 1.0, where))
    nothing = GaussianProcess(points, values, noise, LENGTH, 0.0)
    assert float(nothing.predict(where).abs().max()) == 0.0


def test_the_profiled_likelihood_is_the_highest_over_the_factor() -> None:
    """Against the density of two independent axes; the constant of both is the same for every covariance."""
    points = spread_out()[0]
    values, count = measured(points), len(points)
    for ratio in (0.0, 0.5, 4.0):
        covariance = ratio * kernel(points, points, LENGTH) + some_noise(points)
        score, factor = (float(each) for each in profiled_likelihood(covariance, values, 1e-9))

        def exact(by: float, covariance: Tensor = covariance) -> float:
            axis = torch.distributions.MultivariateNormal(points.new_zeros(count), by * covariance)
            return float(axis.log_prob(values.T).sum())

        assert score - count * (1 + np.log(2 * np.pi)) == pytest.approx(exact(factor))
        assert exact(factor) > max(exact(0.98 * factor), exact(1.02 * factor))


def test_exact_values_leave_the_floor() -> None:
    points = spread_out()[0]
    assert profiled_likelihood(some_noise(points), 0 * points, 1e-6)[1] == 1e-6


@pytest.mark.parametrize(("shape", "step"), [((100, 161), 8.0), ((33, 17), 5.5), ((64, 64), 63.0)])
def test_a_lattice_spans_the_image(shape: tuple[int, int], step: float) -> None:
    field, nodes = lattice(shape, step)
    assert not field.array.any()
    rows, columns = field.array.shape[1:]
    grid = nodes.reshape(rows, columns, 2)
    assert grid[0, 0].tolist() == [0.0, 0.0]
    assert grid[1, 0].tolist() == [0.0, step]
    assert grid[0, 1].tolist() == [step, 0.0]
    for far, side in zip(grid[-1, -1].tolist(), (shape[1], shape[0]), strict=True):
        assert side - 1 <= far < side - 1 + step
    # The nodes are where the field is told: a field of their own places is the identity on them.
    told = replace(field, array=(nodes / 10).T.reshape(2, rows, columns).numpy())
    np.testing.assert_allclose(told.displacement(nodes.numpy()), nodes.numpy() / 10, atol=1e-12)
