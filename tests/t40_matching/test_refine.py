"""Refinement reaches any affine that the windows show, and says how well they support it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from somareg.features.orientation import OrientationCfg
from somareg.geometry import AffineTransform
from somareg.matching.affine import NO_SHAPE, departure
from somareg.matching.describe import OrientationFeatures
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.posterior import RIGHT, log_likelihood, support_at
from somareg.matching.refine import Refined, refine_affine
from somareg.matching.steps import NEAR, ShapeCfg, StepCfg
from somareg.matching.windows import WindowCorrelation
from tests.t40_matching.textures import off, reference_view, view

SIZE = (128, 144)
CENTRE = np.array([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2])
STILL = AffineTransform.identity()
NEVER = tuple(replace(step, shape=ShapeCfg(gain=math.inf)) for step in NEAR)
SHAPES = [(0.75, 0.0), (0.75, 0.1), (0.9, -0.1), (1.0, 0.1), (1.15, 0.1), (1.33, 0.0), (1.33, -0.1)]


def made(
    aspect: float, shear: float = 0.0, degrees: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
) -> AffineTransform:
    """x stretched against y, both axes leaning by half of the shear, then a similarity, about the centre."""
    root = math.sqrt(aspect)
    turned = AffineTransform.from_parameters(rotation_deg=degrees, scale=scale).matrix[:, :2]
    linear = turned @ np.array([[root, shear / 2], [shear / 2, 1 / root]])
    return AffineTransform(np.column_stack([linear, CENTRE + shift - linear @ CENTRE]))


def matcher(truth: AffineTransform, seed: int = 0, other: int | None = None) -> Matcher:
    """Of two views of one ground; of two grounds with `other`, the moving one's."""
    reference = reference_view(SIZE, seed)
    moving = view(torch.tensor(truth.matrix)[None], SIZE, seed if other is None else other)
    pair = Pair(reference, torch.ones_like(reference), moving, torch.ones_like(moving))
    return Matcher(pair, OrientationFeatures(OrientationCfg()))


def apart(found: AffineTransform, truth: AffineTransform) -> float:
    """RMS distance over the reference, pixels."""
    return off(torch.tensor(found.matrix)[None], torch.tensor(truth.matrix)[None], SIZE)


@torch.inference_mode()
def refine(
    seeing: Matcher,
    start: AffineTransform,
    steps: tuple[StepCfg, ...] = NEAR,
    expected: tuple[float, float] = NO_SHAPE,
) -> Refined:
    return refine_affine(seeing, start, steps, expected=expected)


@pytest.mark.parametrize(("aspect", "shear"), SHAPES)
def test_any_aspect_and_shear_is_reached_from_a_similarity(aspect: float, shear: float) -> None:
    truth, near = made(aspect, shear, 3.0, 1.02, (2.0, -3.0)), made(1.0, 0.0, 3.0, 1.02, (2.0, -3.0))
    seeing = matcher(truth)
    found = refine(seeing, near)
    assert apart(near, truth) > 2.5
    assert apart(found.affine, truth) < 0.5
    np.testing.assert_allclose(departure(found.affine), departure(truth), atol=0.015)
    # Were a near-similarity all that is believed, it would stay off, and the windows would say so.
    similar = refine(seeing, near, NEVER)
    assert apart(similar.affine, truth) > 2.0
    assert found.support > similar.support + 0.3


@pytest.mark.parametrize(("aspect", "shear"), [(0.75, 0.1), (1.33, 0.0)])
def test_a_shape_that_is_known_is_kept_and_refined(aspect: float, shear: float) -> None:
    truth = made(aspect, shear, -4.0, 0.97, (-5.0, 3.0))
    seeing = matcher(truth, seed=1)
    start = truth.after(AffineTransform.from_parameters(rotation_deg=1.5, scale=0.98, shift=(2.0, 2.0), centre=CENTRE))
    assert apart(start, truth) > 2
    for steps in (NEAR, NEVER):
        assert apart(refine(seeing, start, steps, departure(start)).affine, truth) < 0.5


def test_a_similarity_stays_one() -> None:
    truth = made(1.0, 0.0, 2.0, 1.03, (4.0, -2.0))
    found = refine(matcher(truth), STILL)
    assert apart(found.affine, truth) < 0.2
    assert math.hypot(*departure(found.affine)) < 0.003


@pytest.mark.parametrize("seed", range(3))
def test_on_unrelated_ground_the_shape_of_the_start_stays_what_is_expected(seed: int) -> None:
    """Windows that see nothing in common bend no map, whatever is expected of it."""
    seeing = matcher(STILL, seed, other=seed + 50)
    start = made(1.2, 0.05)
    kept, similar = (refine(seeing, start, NEVER, expected) for expected in (departure(start), NO_SHAPE))
    np.testing.assert_allclose(departure(kept.affine), departure(start), atol=0.03)
    np.testing.assert_allclose(departure(similar.affine), NO_SHAPE, atol=0.03)
    for found in (kept, refine(seeing, start, NEAR, departure(start))):
        assert found.support < 0.5 < refine(matcher(STILL, seed), STILL).support


# --- support ----------------------------------------------------------------------------------------------------------


def surfaces(temperature: float | None, side: int = 7) -> WindowCorrelation:
    values = 0.2 * torch.randn(4, side, side, generator=torch.Generator().manual_seed(0))
    values[:, 2, 4] = 0.9  # a displacement by (+1, -1)
    return WindowCorrelation(values, torch.zeros(4, 2), torch.tensor([1.0, 0.5, 1.0, 0.0]), temperature)


def at(x: float, y: float) -> Tensor:
    return torch.tensor([[x, y]]).expand(4, 2)


@pytest.mark.parametrize("temperature", [None, 8.0])
def test_support_is_the_log_likelihood_against_a_window_that_says_nothing(temperature: float | None) -> None:
    """log (1 - r + r n^2 p), weighed by what is valid of the window."""
    windows = surfaces(temperature)
    p = torch.softmax(log_likelihood(windows), dim=-1).view(4, 7, 7)
    for x, y in ((1, -1), (0, 0), (-3, 2)):
        expected = torch.log(1 - RIGHT + RIGHT * 49 * p[:, 3 + y, 3 + x]) * windows.valid
        torch.testing.assert_close(support_at(windows, at(x, y)), expected, atol=1e-5, rtol=0)
    between = torch.log(1 - RIGHT + RIGHT * 49 * (p[:, 2, 4] + p[:, 2, 3]) / 2) * windows.valid
    torch.testing.assert_close(support_at(windows, at(0.5, -1)), between, atol=1e-5, rtol=0)


def test_no_window_can_veto_and_one_that_sees_nothing_says_nothing() -> None:
    windows = surfaces(8.0)
    least = math.log(1 - RIGHT)
    for displacement in (at(-3, 3), at(40, 0), at(0, -9)):
        assert bool((support_at(windows, displacement) >= least - 1e-6).all())
    torch.testing.assert_close(support_at(windows, at(40, 0)), least * windows.valid)  # beyond the margin it is wrong
    assert support_at(windows, at(1, -1))[3] == 0  # nothing valid
    flat = replace(windows, surfaces=torch.zeros(4, 7, 7))
    torch.testing.assert_close(support_at(flat, at(1, -1)), torch.zeros(4), atol=1e-6, rtol=0)
