"""The robust affine of matches of which many are wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from somareg.matching.affine import apply_affine_batch
from somareg.matching.magsac import fit_magsac
from somareg.matching.warping import cell_grid
from tests.t40_matching.textures import affine, off


def matches(truth: Tensor, wrong: float = 0.0, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    points = cell_grid((20, 20), 0, 16, torch.device("cpu")).reshape(-1, 2).float()
    generator = torch.Generator().manual_seed(3)
    displacement = (apply_affine_batch(truth, points[None].double())[0] - points).float()
    displacement = displacement + noise * torch.randn(400, 2, generator=generator)
    bad = torch.rand(400, generator=generator) < wrong
    anywhere = 320 * torch.rand(400, 2, generator=generator) - points
    confidence = 0.2 + 0.8 * torch.rand(400, generator=generator)
    return points, torch.where(bad[:, None], anywhere, displacement), confidence


TRUTH = affine((320, 320), degrees=8.0, scale=1.1, shift=(21.0, -13.0))


def test_exact_matches_give_the_exact_affine() -> None:
    found = fit_magsac(*matches(TRUTH))
    assert found is not None
    assert off(found[None], TRUTH, (320, 320)) < 0.05


@pytest.mark.parametrize("wrong", [0.3, 0.5])
def test_half_of_the_matches_may_be_wrong(wrong: float) -> None:
    found = fit_magsac(*matches(TRUTH, wrong, noise=2.0))
    assert found is not None
    assert off(found[None], TRUTH, (320, 320)) < 1.5


def test_the_robust_fit_can_be_repeated() -> None:
    given = matches(TRUTH, 0.5, noise=3.0)
    first = fit_magsac(*given)
    assert first is not None
    for _ in range(3):
        torch.rand(7)  # neither torch's nor numpy's nor OpenCV's common generator plays a part
        again = fit_magsac(*given)
        assert again is not None
        assert torch.equal(first, again)


def test_only_confident_matches_take_part() -> None:
    points, displacement, confidence = matches(TRUTH, 0.0)
    displacement[200:] += 300.0
    confidence[200:] = 0.01
    found = fit_magsac(points, displacement, confidence, keep=200)
    assert found is not None
    assert off(found[None], TRUTH, (320, 320)) < 0.1
    confidence[:] = 0.0
    assert fit_magsac(points, displacement, confidence) is None
    confidence[:3] = 1.0
    assert fit_magsac(points, displacement, confidence) is None


@pytest.mark.parametrize("jitter", [0.0, 0.01])
@pytest.mark.parametrize("direction", [(1.0, 0.0), (0.0, 1.0), (1.0, 0.7)])
def test_matches_on_a_line_determine_no_affine(direction: tuple[float, float], jitter: float) -> None:
    along = torch.linspace(0, 300, 40)[:, None] * torch.tensor(direction)
    points = along + 7.5 + jitter * torch.randn(40, 2, generator=torch.Generator().manual_seed(1))
    displacement = (apply_affine_batch(TRUTH, points[None].double())[0] - points).float()
    assert fit_magsac(points, displacement, torch.ones(40)) is None


def test_confident_matches_on_a_line_are_not_saved_by_cells_without_any() -> None:
    points, displacement, _ = matches(TRUTH)
    on_line = (points[:, 1] == points[0, 1]).float()
    assert fit_magsac(points, displacement, on_line) is None


def test_unrelated_positions_give_an_affine_that_is_at_least_finite_or_none() -> None:
    found = fit_magsac(*matches(TRUTH, wrong=1.0))
    assert found is None or bool(torch.isfinite(found).all())
    assert found is None or off(found[None], TRUTH, (320, 320)) > 5
