"""The fit with precision matrices, its gradients, and robust fits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from somareg.matching.affine import (
    apply_affine_batch,
    fit_affine,
    fit_affine_batch,
    fit_affine_irls,
)
from tests.t40_matching.affines import POINTS, affines, line, scattered

# --- precision matrices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stiffness", [0.0, 0.5, 20.0])
@pytest.mark.parametrize("extent", [None, 200.0])
def test_an_isotropic_precision_is_a_scalar_weight(stiffness: float, extent: float | None) -> None:
    points = scattered(3)
    displacement = 3 * torch.randn(points.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = torch.rand(3, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight[2, 1:] = 0
    isotropic = weight[..., None, None] * torch.eye(2, dtype=torch.float64)
    scalar = fit_affine_batch(points, displacement, weight, stiffness=stiffness, extent=extent)
    matrix = fit_affine_batch(points, displacement, isotropic, stiffness=stiffness, extent=extent)
    torch.testing.assert_close(matrix.matrix, scalar.matrix, atol=1e-10, rtol=0)
    torch.testing.assert_close(matrix.condition, scalar.condition, rtol=1e-6, atol=0)
    assert matrix.refused.tolist() == scalar.refused.tolist() == [False, False, True]


def edges(angles: Tensor) -> Tensor:
    """(..., 2, 2) precision of windows on edges: 1 across (the normal's angle), nothing along."""
    normal = torch.stack([angles.cos(), angles.sin()], dim=-1)
    return normal[..., :, None] * normal[..., None, :]


def test_edges_of_different_directions_determine_the_affine_together() -> None:
    """The aperture problem: along its edge every match is wrong by a lot, and says so."""
    truth, points = affines(2), scattered(2)
    generator = torch.Generator().manual_seed(0)
    angles = torch.rand(2, 30, generator=generator, dtype=torch.float64) * np.pi
    along = torch.stack([-angles.sin(), angles.cos()], dim=-1)
    slip = 30 * torch.randn(2, 30, 1, generator=generator, dtype=torch.float64)
    displacement = apply_affine_batch(truth, points) - points + slip * along
    fit = fit_affine_batch(points, displacement, edges(angles))
    assert not fit.refused.any()
    torch.testing.assert_close(fit.matrix, truth, atol=1e-8, rtol=0)
    scalar = fit_affine_batch(points, displacement, torch.ones(2, 30))
    assert (apply_affine_batch(scalar.matrix, points) - apply_affine_batch(truth, points)).norm(dim=-1).max() > 3


@pytest.mark.parametrize("stiffness", [0.0, 1.0])
def test_parallel_edges_determine_nothing_along_them(stiffness: float) -> None:
    points = scattered(1)
    for angle in (0.0, 0.4, np.pi / 2):
        weight = edges(torch.full((1, 30), angle, dtype=torch.float64))
        fit = fit_affine_batch(points, torch.ones_like(points), weight, stiffness=stiffness)
        assert bool(fit.refused[0])
        assert torch.equal(fit.matrix[0], torch.eye(2, 3, dtype=torch.float64))
        crossed = weight.clone()
        crossed[:, :8] = edges(torch.full((1, 8), angle + 1.2, dtype=torch.float64))
        assert not fit_affine_batch(points, torch.ones_like(points), crossed, stiffness=stiffness).refused[0]


def test_precision_matrices_are_the_generalised_least_squares() -> None:
    rng = np.random.default_rng(5)
    points, displacement = rng.uniform(0, 100, (9, 2)), rng.normal(0, 2, (9, 2))
    roots = rng.normal(0, 1, (9, 2, 2))
    precision = roots @ roots.transpose(0, 2, 1)
    rows, right = [], []
    for (x, y), d, root in zip(points, displacement, roots, strict=True):
        design = np.array([[x, y, 1, 0, 0, 0], [0, 0, 0, x, y, 1.0]])
        rows.append(root.T @ design)
        right.append(root.T @ d)
    solution, *_ = np.linalg.lstsq(np.vstack(rows), np.concatenate(right), rcond=None)
    found = fit_affine(*map(torch.from_numpy, (points, displacement, precision)))
    np.testing.assert_allclose(found.numpy(), solution.reshape(2, 3) + np.eye(2, 3), atol=1e-8)


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("matrices", [False, True])
def test_gradients_are_those_of_the_solution(matrices: bool) -> None:
    points = scattered(2, 6) / 100
    generator = torch.Generator().manual_seed(2)
    displacement = torch.randn(2, 6, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    root = torch.randn(2, 6, 2, 2, generator=generator, dtype=torch.float64)
    weight = root @ root.mT + 0.1 * torch.eye(2) if matrices else root[..., 0, 0].square() + 0.1
    weight = weight.detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda d, w: fit_affine_batch(points, d, w, stiffness=0.2, extent=3.0).matrix, (displacement, weight)
    )


@pytest.mark.parametrize("matrices", [False, True])
@pytest.mark.parametrize("why", ["no weight", "two points", "line", "one spot", "almost a line"])
@pytest.mark.parametrize("robust", [False, True])
def test_a_refused_sample_is_the_identity_and_harms_no_gradient(matrices: bool, why: str, robust: bool) -> None:
    points = scattered(2).clone()
    weight = torch.ones(2, 30, dtype=torch.float64)
    if why == "no weight":
        weight[0] = 0
    elif why == "two points":
        weight[0, 2:] = 0
    elif why == "one spot":
        points[0] = 50.0
    else:
        points[0] = line(jitter=1e-4 if why == "almost a line" else 0.0)
    if matrices:
        weight = weight[..., None, None] * torch.eye(2, dtype=torch.float64)
    displacement = (0.02 * points.flip(2)).requires_grad_()
    weight.requires_grad_()
    if robust:
        fit, factor = fit_affine_irls(points, displacement, weight, scale_px=2.0)
        assert factor.shape == (2, 30)
    else:
        fit = fit_affine_batch(points, displacement, weight)
    assert fit.refused.tolist() == [True, False]
    assert torch.equal(fit.matrix[0], torch.eye(2, 3, dtype=torch.float64))
    expected = torch.tensor([[1, 0.02, 0], [0.02, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(fit.matrix[1], expected, atol=1e-9, rtol=0)
    fit.matrix.square().sum().backward()
    for leaf in (displacement, weight):
        assert leaf.grad is not None
        assert bool(torch.isfinite(leaf.grad).all())
        assert not leaf.grad[0].any()
    assert displacement.grad is not None
    assert displacement.grad[1].abs().max() > 1e-4


def test_weights_that_are_not_numbers_are_refused() -> None:
    weight = torch.ones(3, 40)
    weight[0, 3], weight[1, 5] = torch.nan, torch.inf
    fit = fit_affine_batch(POINTS.expand(3, 40, 2), torch.ones(3, 40, 2), weight)
    assert fit.refused.tolist() == [True, True, False]
    assert bool(torch.isfinite(fit.matrix).all())


# --- robust fits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("matrices", [False, True])
@pytest.mark.parametrize("rounds", [5, 20])
def test_reweighting_resists_forty_percent_of_outliers(matrices: bool, rounds: int) -> None:
    """Wrong matches anywhere in a 400 px image, as coarse matches have them; all of 30 pairs must come out right."""
    rng = np.random.default_rng(0)
    truth, points = affines(30), scattered(30, 100)
    displacement = apply_affine_batch(truth, points) - points + torch.from_numpy(rng.normal(0, 0.3, (30, 100, 2)))
    displacement[:, :40] = torch.from_numpy(rng.uniform(0, 400, (30, 40, 2))) - points[:, :40]
    weight = torch.ones(30, 100, dtype=torch.float64)
    if matrices:
        weight = weight[..., None, None] * torch.eye(2, dtype=torch.float64)
    fit, factor = fit_affine_irls(points, displacement, weight, scale_px=4.0, rounds=rounds)
    plain = fit_affine_batch(points, displacement, weight)
    target = apply_affine_batch(truth, points)
    errors = [(apply_affine_batch(found.matrix, points) - target).norm(dim=-1).amax(1) for found in (fit, plain)]
    assert errors[0].max() < 0.7
    assert errors[1].min() > 10
    assert factor[:, 40:].min() > 0.6
    assert factor[:, :40].median() < 0.01
    assert ((factor >= 0) & (factor <= 1)).all()


@pytest.mark.parametrize("matrices", [False, True])
def test_no_match_at_all_is_refused(matrices: bool) -> None:
    weight = torch.ones(2, 0, 2, 2) if matrices else torch.ones(2, 0)
    for fit in (
        fit_affine_batch(torch.ones(2, 0, 2), torch.ones(2, 0, 2), weight),
        fit_affine_irls(torch.ones(2, 0, 2), torch.ones(2, 0, 2), weight, scale_px=2.0)[0],
    ):
        assert bool(fit.refused.all())
        assert torch.equal(fit.matrix, torch.eye(2, 3, dtype=torch.float64).expand(2, 2, 3))


def test_the_scale_is_where_a_quarter_is_left() -> None:
    displacement = torch.zeros(1, 40, 2, dtype=torch.float64)
    displacement[0, 0] = torch.tensor([3.0, 4.0])
    weight = torch.ones(1, 40, dtype=torch.float64)
    weight[0, 0] = 1e-9
    _, factor = fit_affine_irls(POINTS[None], displacement, weight, scale_px=5.0, rounds=1)
    assert float(factor[0, 0]) == pytest.approx(0.25, abs=1e-6)
    assert factor[0, 1:].min() > 0.999
    _, none = fit_affine_irls(POINTS[None], displacement, weight, scale_px=5.0, rounds=0)
    assert bool((none == 1).all())


def test_a_slip_along_its_edge_is_no_outlier() -> None:
    """What a window cannot see does not make it wrong; what it sees does."""
    truth, points = affines(1), scattered(1, 60)
    generator = torch.Generator().manual_seed(3)
    angles = torch.rand(1, 60, generator=generator, dtype=torch.float64) * np.pi
    across = torch.stack([angles.cos(), angles.sin()], dim=-1)
    along = torch.stack([-angles.sin(), angles.cos()], dim=-1)
    displacement = apply_affine_batch(truth, points) - points + 20 * along
    displacement[:, :6] += 25 * across[:, :6]
    fit, factor = fit_affine_irls(points, displacement, edges(angles), scale_px=4.0, rounds=20)
    torch.testing.assert_close(
        apply_affine_batch(fit.matrix, points), apply_affine_batch(truth, points), atol=0.1, rtol=0
    )
    assert factor[:, 6:].min() > 0.95
    assert factor[:, :6].max() < 0.05
