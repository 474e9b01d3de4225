"""The weighted affine fit: exact where it can be, robust where it must be, honest where it cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform
from somareg.matching.affine import apply_affine, fit_affine, fit_affine_robust, to_transform
from somareg.matching.refine import rescale

POINTS = torch.from_numpy(np.random.default_rng(0).uniform(0, 500, (40, 2)))
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


def line(*, jitter: float = 0.0) -> torch.Tensor:
    t = torch.linspace(0, 300, 30, dtype=torch.float64)
    wobble = torch.from_numpy(np.random.default_rng(1).normal(0, 1, 30))
    return torch.stack([t, 0.5 * t + 10 + jitter * wobble], dim=1)


@pytest.mark.parametrize(
    "points",
    [line(), line(jitter=1e-4), torch.full((10, 2), 50.0), POINTS[:2]],
    ids=["line", "almost a line", "one spot", "two points"],
)
def test_points_that_determine_no_affine_are_refused(points: torch.Tensor) -> None:
    with pytest.raises(EstimationError):
        fit_affine(points, torch.zeros_like(points), torch.ones(len(points)))


def test_points_without_weight_do_not_count() -> None:
    weight = torch.zeros(40)
    with pytest.raises(EstimationError, match="too few"):
        fit_affine(POINTS, torch.zeros_like(POINTS), weight)
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


def test_wrong_matches_fade_instead_of_pulling() -> None:
    rng = np.random.default_rng(2)
    truth = AffineTransform.from_parameters(rotation_deg=2, scale=1.03, shift=(4, 6))
    displacement = torch.from_numpy(truth(POINTS.numpy()) + rng.normal(0, 0.1, (40, 2))) - POINTS
    displacement[:12] += torch.from_numpy(rng.uniform(-40, 40, (12, 2)))
    robust, factor = fit_affine_robust(POINTS, displacement, ONES, scale_px=2.0, rounds=20)
    plain = fit_affine(POINTS, displacement, ONES)
    target = torch.from_numpy(truth(POINTS.numpy()))
    error = (apply_affine(robust, POINTS) - target).norm(dim=1).max()
    assert error < 0.3
    assert (apply_affine(plain, POINTS) - target).norm(dim=1).max() > 10 * error
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
