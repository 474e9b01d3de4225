"""Which smooth field the windows support: for one pair and for a batch, and with gradients for training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from somareg.matching import belief as module
from somareg.matching.belief import TYPICAL, BeliefCfg, relative_noise, weigh
from somareg.matching.gaussian_process import kernel, process_variance

SIDE = 56.0
LENGTH, VARIANCE = 24.0, 2.0


def windows(step: float = 24.0, count: int = 9) -> Tensor:
    """(count**2, 2) centres on a lattice."""
    y, x = torch.meshgrid(torch.arange(count).double(), torch.arange(count).double(), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=-1) * step + 30.0


def smooth(points: Tensor, size_px: float, seed: int, length: float = 1.5 * SIDE) -> Tensor:
    """(..., N, 2) draws of a field of this size and correlation length."""
    root = torch.linalg.cholesky(kernel(points, points, length) + 1e-6 * torch.eye(len(points)).double())
    generator = torch.Generator().manual_seed(seed)
    return size_px * root @ torch.randn(len(points), 2, generator=generator, dtype=torch.float64)


def noisy(points: Tensor, size_px: float, error_px: float, seed: int) -> tuple[Tensor, Tensor]:
    """The field, and what windows that overlap measure of it."""
    truth = smooth(points, size_px, seed)
    covariance = relative_noise(points, torch.ones(len(points)).double(), SIDE)
    generator = torch.Generator().manual_seed(1000 + seed)
    errors = torch.linalg.cholesky(covariance) @ torch.randn(len(points), 2, generator=generator, dtype=torch.float64)
    return truth, truth + error_px * errors


@pytest.mark.parametrize("apart", [0.0, 0.5, 6.0, 40.0])
@pytest.mark.parametrize("contrast", [1.0, 1e3])
def test_the_noise_is_a_covariance(apart: float, contrast: float) -> None:
    """Positive definite however densely the windows lie and however differently they are trusted."""
    points = (windows(1.0, 7) - 30.0) * apart
    precision = torch.logspace(0, np.log10(contrast), 49, dtype=torch.float64)
    precision = precision[torch.randperm(49, generator=torch.Generator().manual_seed(0))]
    noise = relative_noise(points, precision, SIDE) / precision.mean()
    torch.testing.assert_close(noise, noise.mT, atol=1e-9, rtol=0)
    correlation = noise * precision.sqrt()[:, None] * precision.sqrt()[None]
    assert torch.linalg.eigvalsh(correlation).min() > 0.049
    # Variances are those of the windows, 5 % more for what neighbours do not share.
    torch.testing.assert_close(
        noise.diagonal() * precision, torch.full((49,), 1.05, dtype=torch.float64), atol=1e-9, rtol=0
    )


def test_windows_err_together_as_far_as_they_overlap() -> None:
    points = torch.tensor([[0.0, 0.0], [24.0, 0.0], [200.0, 0.0]], dtype=torch.float64)
    noise = relative_noise(points, torch.tensor([1.0, 4.0, 0.25]).double(), 48.0)
    assert float(noise[0, 1] / noise[0, 0]) == pytest.approx(0.5 * (1 - 24 / (1.1 * 48)) / 1.05)
    assert noise[0, 2] == 0
    # So a crowd of overlapping windows is not trusted like as many independent ones.
    crowd = torch.zeros(20, 2, dtype=torch.float64) + torch.arange(20.0)[:, None] * 0.1
    where = crowd[:1]
    together = process_variance(crowd, relative_noise(crowd, torch.ones(20).double(), 48.0), LENGTH, VARIANCE, where)
    independent = process_variance(crowd, 1.05 * torch.eye(20).double(), LENGTH, VARIANCE, where)
    alone = process_variance(where, torch.full((1, 1), 1.05, dtype=torch.float64), LENGTH, VARIANCE, where)
    assert independent < 0.1 < 0.7 * alone < together <= alone + 1e-9


def test_a_field_is_believed_where_there_is_one() -> None:
    points = windows()
    trust = torch.ones(len(points)).double()
    for seed in range(3):
        truth, values = noisy(points, 2.0, 0.4, seed)
        found = weigh(points[None], values[None], trust[None], SIDE, BeliefCfg())
        assert float(found.of_a_field) > 0.95
        assert float((found.mean(points[None])[0] - truth).square().mean().sqrt()) < 0.6
        _, values = noisy(points, 0.0, 0.4, seed)
        nothing = weigh(points[None], values[None], trust[None], SIDE, BeliefCfg())
        assert float(nothing.of_a_field) < 0.2
        assert float(nothing.mean(points[None]).square().mean().sqrt()) < 0.1


def test_the_variance_is_that_of_the_error() -> None:
    points = windows()
    trust, errors, told = torch.ones(len(points)).double(), [], []
    for seed in range(6):
        truth, values = noisy(points, 2.0, 0.5, seed)
        found = weigh(points[None], values[None], trust[None], SIDE, BeliefCfg())
        errors.append(float((found.mean(points[None])[0] - truth).square().mean()))
        told.append(float(found.variance(points[None]).mean()))
    assert 0.5 < np.mean(told) / np.mean(errors) < 2.0


def test_a_window_that_disagrees_fades_out() -> None:
    points = windows()
    truth, values = noisy(points, 2.0, 0.3, 0)
    values[40] += torch.tensor([9.0, -7.0])
    found = weigh(points[None], values[None], torch.ones(1, len(points)).double(), SIDE, BeliefCfg())
    assert float(found.factor[0, 40]) < 0.05 < float(found.factor[0].median())
    assert float((found.mean(points[None])[0, 40] - truth[40]).norm()) < 1.5


def test_scatter_tells_what_a_field_leaves_unexplained() -> None:
    """About the expected variance where nothing is left, and more with the square of the displacement that is."""
    points = windows()
    told = []
    for size in (0.0, 1.0, 2.0):
        for seed in range(3):
            truth, values = noisy(points, size, 0.3, seed)
            precision = torch.full((1, len(points)), TYPICAL / 0.3**2, dtype=torch.float64)
            found = weigh(points[None], values[None], precision, SIDE, BeliefCfg())
            told.append((size, float(found.scatter()), float(found.scatter(truth[None]))))
            assert float(found.scatter(found.mean(found.points))) < 1.3
    assert all(0.5 < about_truth < 1.3 for _, _, about_truth in told)
    ignored = {size: np.median([still for each, still, _ in told if each == size]) for size in (0.0, 1.0, 2.0)}
    assert 0.5 < ignored[0.0] < 1.3
    assert 1.5 < ignored[1.0] < 0.4 * ignored[2.0]


def batch() -> tuple[Tensor, Tensor, Tensor]:
    points = windows()
    values = torch.stack([noisy(points, size, 0.4, seed)[1] for seed, size in enumerate((2.0, 0.0, 0.7, 5.0))])
    precision = torch.rand(4, len(points), generator=torch.Generator().manual_seed(5)).double() + 0.3
    return points.expand(4, -1, -1), values, precision


@pytest.mark.parametrize("is_readable", [True, False], ids=["values at hand", "as on a GPU"])
def test_a_batch_is_weighed_as_its_pairs_are(is_readable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    points, values, precision = batch()
    where = windows(40.0, 6)[None]
    alone = [weigh(points[:1], values[i : i + 1], precision[i : i + 1], SIDE, BeliefCfg()) for i in range(4)]
    expected = [(one.of_a_field, one.mean(where), one.variance(where), one.coverage(where)) for one in alone]
    monkeypatch.setattr(module, "is_readable", lambda values: is_readable)
    together = weigh(points, values, precision, SIDE, BeliefCfg())
    everywhere = where.expand(4, -1, -1)
    found = (
        together.of_a_field,
        together.mean(everywhere),
        together.variance(everywhere),
        together.coverage(everywhere),
    )
    for i, one in enumerate(expected):
        for a, b in zip(found, one, strict=True):
            torch.testing.assert_close(a[i : i + 1], b, atol=1e-9, rtol=1e-9)


def test_windows_without_weight_say_little() -> None:
    points, values, precision = batch()
    precision[0, ::2] = 0.0
    other = values.clone()
    other[0, ::2] += 5.0
    where = windows(40.0, 6)[None]
    one, two = (weigh(points[:1], v[:1], precision[:1], SIDE, BeliefCfg()).mean(where) for v in (values, other))
    assert float((one - two).abs().median()) < 0.1  # of 5 px
    blind = weigh(points[:1], 0 * values[:1], 0 * precision[:1], SIDE, BeliefCfg())
    assert float(blind.mean(where).abs().max()) == 0.0
    assert float(blind.coverage(where).max()) == 0.0


def test_gradients_reach_what_was_measured() -> None:
    """Probabilities and robust factors count as known; the rest is the derivative of the posterior mean."""
    points, values, precision = batch()
    values, precision = values[:1].requires_grad_(), precision[:1].requires_grad_()
    where = windows(40.0, 6)[None]
    found = weigh(points[:1], values, precision, SIDE, BeliefCfg())
    (found.mean(where).square().sum() + found.coverage(where).sum()).backward()
    for gradient in (values.grad, precision.grad):
        assert gradient is not None
        assert bool(torch.isfinite(gradient).all())
        assert float(gradient.abs().sum()) > 0
    plain = weigh(points[:1], values.detach(), precision.detach(), SIDE, BeliefCfg())
    torch.testing.assert_close(found.mean(where).detach(), plain.mean(where), atol=1e-9, rtol=1e-9)
