"""Oriented filters and the gradient branch that they feed: true derivatives, blind to polarity."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from somareg.features.orientation import smooth
from somareg.soma.fge import FgeCfg, GradientBranch
from somareg.soma.filter_banks import FixedFilters, LearnableFilters, oriented_kernels
from tests.t42_soma.features import DIRECTIONS, SIGMAS, along, texture


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def banks(channels: int) -> list[nn.Module]:
    return [kind(channels, DIRECTIONS, SIGMAS) for kind in (FixedFilters, LearnableFilters)]


def per_direction(response: Tensor, channels: int) -> Tensor:
    return response.unflatten(1, (channels, DIRECTIONS))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_all_directions_are_distinct(sigma: float) -> None:
    """Neither equal to one another nor to one another's negative: 22.5 degrees apart is a cosine of 0.92."""
    unit = nn.functional.normalize(oriented_kernels(DIRECTIONS, sigma).flatten(1), dim=1)
    for first, second in combinations(unit, 2):
        assert abs(float(first @ second)) < 0.95
    neighbours = (unit[:-1] * unit[1:]).sum(1)
    torch.testing.assert_close(neighbours, torch.full((7,), math.cos(math.pi / 8)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("sigma", [0.5, *SIGMAS, 2.3])
@pytest.mark.parametrize("directions", [1, 4, 6, 8])
def test_kernels_are_derivatives(directions: int, sigma: float) -> None:
    """Mean 0; unit response to a unit ramp along their direction and none to one across it."""
    kernels = oriented_kernels(directions, sigma)
    size = kernels.shape[-1]
    torch.testing.assert_close(kernels.sum((-2, -1)), torch.zeros(directions), atol=1e-6, rtol=0)
    for number, kernel in enumerate(kernels):
        angle = 180.0 * number / directions
        assert float((kernel * along(angle, size)).sum()) == pytest.approx(1.0, abs=1e-5)
        assert float((kernel * along(angle + 90, size)).sum()) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("angle", [0.0, 22.5, 70.0, 90.0, 135.0, 200.0])
def test_a_ramp_is_answered_by_its_slope_along_each_direction(angle: float) -> None:
    ramp = torch.stack([along(angle), -3.0 * along(angle)])[None]
    for bank in banks(2):
        for response in bank(ramp):
            inner = per_direction(response, 2)[..., 8:-8, 8:-8]
            for k in range(DIRECTIONS):
                slope = abs(math.cos(math.radians(angle - 22.5 * k)))
                torch.testing.assert_close(inner[0, 0, k], torch.full_like(inner[0, 0, k], slope), atol=1e-4, rtol=0)
                torch.testing.assert_close(inner[0, 1, k], 3.0 * inner[0, 0, k], atol=1e-4, rtol=0)


@pytest.mark.parametrize("wanted", range(DIRECTIONS))
@pytest.mark.parametrize("sign", [1, -1])
def test_a_step_edge_is_answered_most_by_the_direction_across_it(wanted: int, sign: int) -> None:
    edge = sign * torch.sigmoid(along(22.5 * wanted) / 0.3)[None, None]
    on_edge = (along(22.5 * wanted).abs() < 0.6) & (torch.hypot(along(0), along(90)) < 10)
    for bank in banks(1):
        for response in bank(edge):
            strength = response[0][:, on_edge]
            assert set(strength.argmax(0).tolist()) == {wanted}
            runner_up = strength.topk(2, dim=0).values[1]
            assert bool((strength[wanted] > 1.03 * runner_up).all())


def test_contrast_inversion_changes_nothing() -> None:
    features = texture(4)
    for bank in banks(4):
        for straight, inverted in zip(bank(features), bank(-features), strict=True):
            assert torch.equal(straight, inverted)
            assert straight.mean() > 0.02
    branch = GradientBranch(16, "fixed", FgeCfg())
    torch.testing.assert_close(branch(texture()), branch(-texture()), atol=1e-5, rtol=0)


def test_each_channel_may_be_inverted_on_its_own() -> None:
    features, signs = texture(4), torch.tensor([1.0, -1.0, -1.0, 1.0]).view(1, 4, 1, 1)
    for bank in banks(4):
        for straight, mixed in zip(bank(features), bank(features * signs), strict=True):
            assert torch.equal(straight, mixed)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_turn_permutes_the_directions(turns: int) -> None:
    features = texture(3)
    for bank in banks(3):
        turned_responses = bank(torch.rot90(features, turns, (2, 3)))
        for straight, turned in zip(bank(features), turned_responses, strict=True):
            back = per_direction(torch.rot90(turned, -turns, (2, 3)), 3)
            expected = torch.roll(per_direction(straight, 3), turns * DIRECTIONS // 2, dims=2)
            torch.testing.assert_close(back, expected, atol=1e-5, rtol=0)
            if turns % 2:
                assert (back - per_direction(straight, 3)).abs().mean() > 0.02


def test_a_mirror_reverses_the_directions() -> None:
    features, order = texture(3), [0, 7, 6, 5, 4, 3, 2, 1]
    for bank in banks(3):
        for straight, mirrored in zip(bank(features), bank(features.flip(3)), strict=True):
            expected = per_direction(straight, 3)[:, :, order]
            torch.testing.assert_close(per_direction(mirrored.flip(3), 3), expected, atol=1e-5, rtol=0)


def test_responses_stay_where_the_structure_is() -> None:
    """The answer to a point is symmetric about the point: no part of a cell is gained or lost."""
    point = torch.zeros(1, 1, 21, 21)
    point[..., 10, 10] = 1.0
    for bank in banks(1):
        for response in bank(point):
            assert bool(response.max() > 0.01)
            torch.testing.assert_close(response, response.flip((2, 3)), atol=1e-6, rtol=0)


def test_learnable_filters_start_as_the_fixed_ones() -> None:
    features = texture(5)
    fixed, learnable = banks(5)
    for first, second in zip(fixed(features), learnable(features), strict=True):
        torch.testing.assert_close(first, second, atol=1e-6, rtol=0)


def test_constant_features_have_no_gradient() -> None:
    """Nor after training, and the replicated border is no edge."""
    constant = torch.tensor([3.0, -7.0, 0.5, 100.0]).view(1, 4, 1, 1).expand(2, 4, 12, 17)
    fixed, learnable = banks(4)
    for parameter in learnable.parameters():
        nn.init.normal_(parameter)
    for response in fixed(constant):
        assert response.abs().max() < 1e-4
    for response in learnable(constant):
        assert response.abs().max() < 1e-2  # 100 times kernels of size 1, in float32
    branch = GradientBranch(4, "fixed", FgeCfg())
    assert branch(constant).abs().max() < 0.05


def test_the_gradient_is_that_of_the_weight_free_engine() -> None:
    from somareg.features.orientation import gradients

    features, bank = texture(3), FixedFilters(3, DIRECTIONS, SIGMAS)
    for scale, sigma in enumerate(SIGMAS):
        expected = torch.stack(gradients(features, torch.ones_like(features[:, :1]), sigma), dim=2)
        torch.testing.assert_close(bank.gradient(features, scale), expected, atol=1e-5, rtol=0)


def test_pooling_after_the_mix_is_pooling_of_every_response() -> None:
    branch = GradientBranch(8, "fixed", FgeCfg(pooling=0.9))
    features = texture(8)
    mixed = [mix(smooth(r, 0.9)) for mix, r in zip(branch.mix, branch.responses(features), strict=True)]
    torch.testing.assert_close(branch(features), branch.norm(mixed[0] + mixed[1]), atol=1e-4, rtol=0)
