"""The weighted affine fit: exact where it can be, robust where it must be, honest where it cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform
from somareg.matching.affine import (
    apply_affine_batch,
    compose_batch,
    fade,
    fit_affine,
    fit_affine_batch,
    fit_affine_irls,
    invert_batch,
    to_transform,
)
from somareg.matching.refine import rescale
from tests.t40_matching.affines import POINTS, affines, line, scattered

ONES = torch.ones(40)
NUMBERS = st.floats(-1, 1, allow_nan=False)


@settings(max_examples=50, deadline=None)
@given(
    st.floats(-180, 180),
    st.floats(0.5, 2),
    st.floats(-20, 20),
    st.tuples(st.floats(-100, 100), st.floats(-100, 100)),
    st.integers(0, 1000),
)
def test_an_exact_affine_is_recovered(
    rotation: float, scale: float, shear: float, shift: tuple[float, float], seed: int
) -> None:
    truth = AffineTransform.from_parameters(rotation_deg=rotation, scale=scale, shear_deg=shear, shift=shift)
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.uniform(0, 500, (12, 2)))
    weight = torch.from_numpy(rng.uniform(0.1, 3, 12))
    displacement = torch.from_numpy(truth(points.numpy())) - points
    found = to_transform(fit_affine(points, displacement, weight))
    np.testing.assert_allclose(found.matrix, truth.matrix, atol=1e-7)


def test_no_displacement_is_exactly_the_identity() -> None:
    matrix = fit_affine(POINTS, torch.zeros_like(POINTS), ONES)
    torch.testing.assert_close(matrix, torch.eye(2, 3, dtype=torch.float64), atol=1e-14, rtol=0)


@pytest.mark.parametrize(
    "points",
    [line(), line(jitter=1e-4), torch.full((10, 2), 50.0), POINTS[:2]],
    ids=["line", "almost a line", "one spot", "two points"],
)
def test_points_that_determine_no_affine_are_refused(points: Tensor) -> None:
    with pytest.raises(EstimationError):
        fit_affine(points, torch.zeros_like(points), torch.ones(len(points)))


def test_points_without_weight_do_not_count() -> None:
    weight = torch.zeros(40)
    with pytest.raises(EstimationError, match="too few tie points"):
        fit_affine(POINTS, torch.zeros_like(POINTS), weight, what="tie points")
    weight[:2] = 1
    with pytest.raises(EstimationError, match="too few"):
        fit_affine(POINTS, torch.zeros_like(POINTS), weight)
    weight[:10] = 1
    displacement = torch.full_like(POINTS, 1e3)
    displacement[:10] = torch.tensor([2.0, -1.0])
    matrix = fit_affine(POINTS, displacement, weight)
    torch.testing.assert_close(matrix[:, 2], torch.tensor([2.0, -1.0], dtype=torch.float64), atol=1e-9, rtol=0)


def test_stiffness_pulls_the_linear_part_to_a_translation_and_no_further() -> None:
    truth = AffineTransform.from_parameters(rotation_deg=4, scale=1.1, shift=(5, -3), centre=(250, 250))
    displacement = torch.from_numpy(truth(POINTS.numpy())) - POINTS
    free, soft, hard = (
        fit_affine(POINTS, displacement, ONES, stiffness=s, extent=250.0)[:, :2] - torch.eye(2) for s in (0, 20, 1e6)
    )
    assert 0.2 * free.norm() < soft.norm() < 0.9 * free.norm()
    assert hard.norm() < 1e-4
    shift = fit_affine(POINTS, displacement, ONES, stiffness=1e5, extent=250.0)[:, 2]
    torch.testing.assert_close(shift, displacement.mean(0), atol=0.01, rtol=0)
    # With stiffness even points on a line give an answer: a translation.
    on_line = line()
    matrix = fit_affine(on_line, torch.full_like(on_line, 3.0), torch.ones(30), stiffness=1.0)
    np.testing.assert_allclose(to_transform(matrix)(on_line.numpy()), on_line.numpy() + 3.0, atol=1e-6)


def test_the_robust_factor_is_a_quarter_at_the_scale() -> None:
    """The weight of Geman and McClure's estimator rho = r^2 / (s^2 + r^2): rho' / (2 r / s^2)."""
    residual = torch.linspace(0, 9, 30, dtype=torch.float64, requires_grad=True)
    scale = 3.0
    (slope,) = torch.autograd.grad((residual**2 / (scale**2 + residual**2)).sum(), residual)
    factor = fade(residual.detach().square(), scale**2)
    torch.testing.assert_close(factor[1:], slope[1:] / (2 * residual.detach()[1:] / scale**2))
    assert fade(torch.tensor([0.0, 9.0]), scale**2).tolist() == [1.0, 0.25]


def test_wrong_matches_fade_instead_of_pulling() -> None:
    rng = np.random.default_rng(2)
    truth = AffineTransform.from_parameters(rotation_deg=2, scale=1.03, shift=(4, 6))
    displacement = torch.from_numpy(truth(POINTS.numpy()) + rng.normal(0, 0.1, (40, 2))) - POINTS
    displacement[:12] += torch.from_numpy(rng.uniform(-40, 40, (12, 2)))
    fit, factors = fit_affine_irls(POINTS[None], displacement[None], ONES[None], scale_px=2.0, rounds=20)
    robust, factor = fit.matrix[0], factors[0]
    plain = fit_affine(POINTS, displacement, ONES)
    target = torch.from_numpy(truth(POINTS.numpy()))
    error = (apply_affine_batch(robust, POINTS) - target).norm(dim=1).max()
    assert error < 0.3
    assert (apply_affine_batch(plain, POINTS) - target).norm(dim=1).max() > 10 * error
    assert factor[12:].min() > 0.8
    assert factor[:12].max() < 0.3
    assert ((factor >= 0) & (factor <= 1)).all()


def test_the_fit_can_be_trained_through() -> None:
    displacement = torch.zeros_like(POINTS).requires_grad_()
    weight = torch.ones(40, requires_grad=True)
    matrix = fit_affine(POINTS, displacement + 0.01 * POINTS.flip(1), weight)
    matrix.square().sum().backward()
    for leaf in (displacement, weight):
        assert leaf.grad is not None
        assert bool(torch.isfinite(leaf.grad).all())
    assert bool(displacement.grad.abs().sum() > 0)  # type: ignore[union-attr]


@pytest.mark.parametrize(("old", "new"), [(1, 2), (4, 1), (3, 2), (8, 4)])
def test_rescale_speaks_of_the_same_ground(old: int, new: int) -> None:
    """A pixel's centre at one reduction is (factor - 1) / 2 further in at full resolution."""
    transform = AffineTransform.from_parameters(rotation_deg=7, scale=1.1, shift=(3, -2))
    other = rescale(transform, old, new)

    def full(xy: np.ndarray, factor: int) -> np.ndarray:
        return factor * xy + (factor - 1) / 2

    ground = np.random.default_rng(0).uniform(0, 400, (20, 2))
    through_old = full(transform((ground - (old - 1) / 2) / old), old)
    through_new = full(other((ground - (new - 1) / 2) / new), new)
    np.testing.assert_allclose(through_new, through_old, atol=1e-9)
    np.testing.assert_allclose(rescale(AffineTransform.identity(), old, new).matrix, np.eye(2, 3), atol=1e-12)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_compose_and_apply_are_those_of_plane_geometry() -> None:
    outer, inner, points = affines(4, 0), affines(4, 1), scattered(4, 5)
    composed = compose_batch(outer, inner)
    for i in range(4):
        first, second = AffineTransform(outer[i].numpy()), AffineTransform(inner[i].numpy())
        np.testing.assert_allclose(composed[i].numpy(), first.after(second).matrix, atol=1e-12)
        np.testing.assert_allclose(apply_affine_batch(outer, points)[i].numpy(), first(points[i].numpy()), atol=1e-9)
    torch.testing.assert_close(
        apply_affine_batch(composed, points), apply_affine_batch(outer, apply_affine_batch(inner, points))
    )
    grid = points.reshape(4, 5, 1, 2).expand(4, 5, 3, 2)
    assert apply_affine_batch(outer, grid).shape == (4, 5, 3, 2)
    torch.testing.assert_close(apply_affine_batch(outer, grid)[:, :, 1], apply_affine_batch(outer, points))
    shared = apply_affine_batch(outer, points[:1])  # the same points through every map
    torch.testing.assert_close(shared, apply_affine_batch(outer, points[:1].expand(4, -1, -1)))
    torch.testing.assert_close(apply_affine_batch(outer[0], points[0]), shared[0])


def test_the_inverse_is_that_of_plane_geometry_on_both_sides() -> None:
    many = affines(6).reshape(2, 3, 2, 3)
    back = invert_batch(many)
    np.testing.assert_allclose(back[1, 2].numpy(), AffineTransform(many[1, 2].numpy()).inverse.matrix, atol=1e-9)
    identity = torch.eye(2, 3, dtype=torch.float64).expand_as(many)
    torch.testing.assert_close(compose_batch(many, back), identity, atol=1e-9, rtol=0)
    torch.testing.assert_close(compose_batch(back, many), identity, atol=1e-9, rtol=0)


@pytest.mark.parametrize("linear", [[[0.0, 0.0], [0.0, 0.0]], [[1.0, 2.0], [2.0, 4.0]]])
def test_a_singular_map_has_a_finite_inverse_and_gradient_and_spares_its_neighbours(linear: list[list[float]]) -> None:
    singular = torch.tensor([[*row, 3.0] for row in linear], dtype=torch.float64)
    good = affines(1)[0]
    both = torch.stack([singular, good]).requires_grad_()
    back = invert_batch(both)
    back.sum().backward()
    assert both.grad is not None
    assert bool(torch.isfinite(back).all() & torch.isfinite(both.grad).all())
    torch.testing.assert_close(back[1], invert_batch(good))


def test_a_sample_does_not_depend_on_its_batch() -> None:
    truth, points = affines(3), scattered(3)
    displacement = (
        apply_affine_batch(truth, points)
        - points
        + torch.randn(points.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    )
    weight = torch.rand(3, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight[1, 2:] = 0  # two points: refused
    fit = fit_affine_batch(points, displacement, weight, stiffness=0.3)
    assert fit.refused.tolist() == [False, True, False]
    assert torch.equal(fit.matrix[1], torch.eye(2, 3, dtype=torch.float64))
    assert torch.isinf(fit.condition[1])
    for i in (0, 2):
        alone = fit_affine(points[i], displacement[i], weight[i], stiffness=0.3)
        torch.testing.assert_close(fit.matrix[i], alone, atol=1e-12, rtol=0)
        assert 1 <= float(fit.condition[i]) < 100


def test_the_fit_is_the_weighted_least_squares_solution() -> None:
    """Against numpy's least squares on rows times the root of their weight, ridge rows for the stiffness."""
    rng = np.random.default_rng(3)
    points, displacement, weight = rng.uniform(0, 300, (25, 2)), rng.normal(0, 4, (25, 2)), rng.uniform(0.1, 5, 25)
    centre = (points * weight[:, None]).sum(0) / weight.sum()
    stiffness, extent = 0.7, 150.0
    design = np.column_stack([(points - centre) / extent, np.ones(25)]) * np.sqrt(weight)[:, None]
    ridge = np.sqrt(stiffness * weight.mean()) * np.eye(2, 3)
    rows, *_ = np.linalg.lstsq(
        np.vstack([design, ridge]), np.vstack([displacement * np.sqrt(weight)[:, None], np.zeros((2, 2))]), rcond=None
    )
    linear = np.eye(2) + rows[:2].T / extent
    expected = np.column_stack([linear, rows[2] - (linear - np.eye(2)) @ centre])
    found = fit_affine(*map(torch.from_numpy, (points, displacement, weight)), stiffness=stiffness, extent=extent)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_only_the_ratio_of_weights_matters(factor: float) -> None:
    displacement = 0.02 * POINTS.flip(1) + torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    weight = torch.rand(40, generator=torch.Generator().manual_seed(1))
    first = fit_affine(POINTS, displacement, weight, stiffness=0.4)
    torch.testing.assert_close(fit_affine(POINTS, displacement, weight * factor, stiffness=0.4), first)
    shape = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    matrices = weight[:, None, None] * shape
    one = fit_affine(POINTS, displacement, matrices, stiffness=0.4)
    torch.testing.assert_close(fit_affine(POINTS, displacement, matrices * factor, stiffness=0.4), one)
