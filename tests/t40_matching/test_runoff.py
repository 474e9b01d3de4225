"""The run-off: who needs to be refined, how often, and what a challenger has to show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from somareg.errors import EstimationError
from somareg.features.orientation import OrientationCfg
from somareg.geometry import AffineTransform
from somareg.matching import runoff
from somareg.matching.affine import Shape, departure
from somareg.matching.describe import OrientationFeatures
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.refine import Refined, refine_affine, rescale
from somareg.matching.runoff import BEND, CHANCE_TRAINED, CHANCE_UNTRAINED, RunOff, Start
from somareg.matching.steps import NEAR, StepCfg
from somareg.matching.vote import Elected
from tests.synthetic import make_pair
from tests.t40_matching.conftest import as_pair

CHANCE = CHANCE_UNTRAINED
INDEPENDENT = 8.0  # windows of a stand-in refinement


class Trained(OrientationFeatures):
    def temperature(self, stride: int) -> float | None:
        return 9.0


def blank(trained: bool = False) -> Matcher:
    image = torch.zeros(1, 1, 64, 64)
    describe = (Trained if trained else OrientationFeatures)(OrientationCfg())
    return Matcher(Pair(image, torch.ones_like(image), image, torch.ones_like(image)), describe)


def candidate(likelihood: float, score: float = 1.0, shape: Shape = (0.0, 0.0)) -> Elected:
    """One whose refinement will have this support; negative for one that is refused."""
    return Elected(AffineTransform.from_parameters(shift=(100 * likelihood, 0.0)), shape, score)


@pytest.fixture
def refined(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Stands in for the refinement, and notes whom it was asked for."""
    asked: list[float] = []

    def stand_in(matcher: Matcher, start: AffineTransform, *rest: Any) -> Refined:
        likelihood = round(float(start.matrix[0, 2]) / 100, 9)
        asked.append(likelihood)
        if likelihood < 0:
            raise EstimationError("nothing to see")
        return Refined(start, None, likelihood, INDEPENDENT)  # type: ignore[arg-type]

    monkeypatch.setattr(runoff, "refine_affine", stand_in)
    return asked


def run_off(trained: bool = False) -> RunOff:
    return RunOff(blank(trained), 1, NEAR, 100)


def is_of(start: Start, one: Elected, likelihood: float) -> bool:
    return (start.affine, start.shape, start.score) == (one.transform, one.shape, one.score) and (
        start.likelihood == pytest.approx(likelihood)
    )


# --- who wins ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["favourite", "challenger"])
def test_a_single_candidate_wins_without_a_refinement(role: str, refined: list[float]) -> None:
    only, judge = candidate(0.9, 1.7, (0.1, 0.2)), run_off()
    start = judge(*(([only], []) if role == "favourite" else ([], [only])))
    assert is_of(start, only, 0.0)
    assert refined == []
    assert not judge.is_clear(start)  # nobody looked


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("first", [0.0, 0.2, 0.5, 1.1])
def test_a_challenger_must_be_likelier_than_chance_and_clearly_ahead(
    first: float, trained: bool, refined: list[float]
) -> None:
    chance = CHANCE_TRAINED if trained else CHANCE_UNTRAINED
    bar = max(chance, first + 0.12 * chance)
    favourite, below, above = (candidate(each) for each in (first, bar - 0.01, bar + 0.01))
    assert is_of(run_off(trained)([favourite], [below]), favourite, first)
    assert is_of(run_off(trained)([favourite], [above]), above, bar + 0.01)
    assert is_of(run_off(trained)([favourite], [below, above, candidate(bar - 0.02)]), above, bar + 0.01)


def test_the_likeliest_of_several_challengers_wins(refined: list[float]) -> None:
    favourite, good, best = candidate(0.3), candidate(0.9), candidate(1.2)
    assert is_of(run_off()([favourite], [good, best]), best, 1.2)
    assert is_of(run_off()([favourite], [best, good]), best, 1.2)


def test_supports_of_the_votes_do_not_count(refined: list[float]) -> None:
    """What a challenger's own vote says cannot be compared."""
    favourite, loud, quiet = candidate(0.5, 1.0), candidate(0.5, 9.0), candidate(1.0, 0.1)
    assert is_of(run_off()([favourite], [loud]), favourite, 0.5)
    assert is_of(run_off()([favourite], [loud, quiet]), quiet, 1.0)


@pytest.mark.parametrize("aspect", [0.8, 0.95, 1.0, 1.1, 1.3])
@pytest.mark.parametrize("expected", [1.0, 1.3])
def test_a_shape_that_is_not_expected_has_to_explain_more(aspect: float, expected: float, refined: list[float]) -> None:
    """A stretch of three standard deviations costs as much as in a Gaussian prior: 4.5 over all windows."""
    start = AffineTransform.from_parameters(scale=(aspect, 1.0), shift=(100.0, 0.0))
    shape = departure(AffineTransform.from_parameters(scale=(expected, 1.0)))
    cost = (math.hypot(*np.subtract(departure(start), shape)) / BEND) ** 2 / 2 / INDEPENDENT
    left = max(0.0, 1.0 - cost)
    assert run_off().likelihood(Elected(start, shape, 1.0)) == pytest.approx(left)
    assert (cost < 1e-12) == (aspect == expected)
    bent = Elected(start, shape, 1.0)
    likelier, unlikelier = candidate(left + 0.01), candidate(left - 0.01)
    assert run_off()([], [bent, likelier]).affine == likelier.transform
    assert run_off()([], [unlikelier, bent]).affine == (bent.transform if left else unlikelier.transform)


def test_favourites_behind_the_first_need_a_lead_too(refined: list[float]) -> None:
    first, near, far = candidate(0.6), candidate(0.61), candidate(0.9)
    assert is_of(run_off()([first, near], []), first, 0.6)
    assert is_of(run_off()([first, near, far], []), far, 0.9)


def test_without_a_favourite_the_likeliest_wins_whatever_chance_does(refined: list[float]) -> None:
    poor, less = candidate(0.1), candidate(0.05)
    assert is_of(run_off()([], [less, poor]), poor, 0.1)


def test_one_that_cannot_be_refined_counts_for_nothing(refined: list[float]) -> None:
    refused, fair = candidate(-1.0), candidate(CHANCE + 0.01)
    judge = run_off()
    assert judge.likelihood(refused) == 0.0
    assert is_of(judge([refused], [fair]), fair, CHANCE + 0.01)
    assert is_of(judge([fair], [refused]), fair, CHANCE + 0.01)
    assert is_of(judge([], [refused, candidate(-2.0)]), refused, 0.0)
    assert is_of(judge([refused], [candidate(CHANCE - 0.01)]), refused, 0.0)


# --- how often, and with what -----------------------------------------------------------------------------------------


def test_each_is_refined_once(refined: list[float]) -> None:
    """The next round asks again, with more of them."""
    first, second, third = candidate(0.3), candidate(0.35), candidate(-1.0)
    judge = run_off()
    judge([first], [second, third])
    assert sorted(refined) == [-1.0, 0.3, 0.35]
    fourth = candidate(0.8)
    assert is_of(judge([first], [second, third, fourth]), fourth, 0.8)
    assert sorted(refined) == [-1.0, 0.3, 0.35, 0.8]
    twin = candidate(0.8)  # the same place, elected by another vote
    judge([first], [fourth, twin])
    assert refined.count(0.8) == 2


def test_what_is_clear_lies_a_quarter_above_chance(refined: list[float]) -> None:
    for trained, chance in ((False, CHANCE_UNTRAINED), (True, CHANCE_TRAINED)):
        judge, start = run_off(trained), Start(AffineTransform.identity())
        assert not judge.is_clear(replace(start, likelihood=1.24 * chance, score=9.0))
        assert judge.is_clear(replace(start, likelihood=1.26 * chance))


def test_candidates_of_the_full_images_are_refined_at_the_resolution_of_the_run_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[Matcher, AffineTransform, Sequence[StepCfg], int, Shape]] = []

    def stand_in(*parts: Any) -> Refined:
        told.append(parts)
        return Refined(parts[1], None, 0.9, 1e9)  # type: ignore[arg-type]

    monkeypatch.setattr(runoff, "refine_affine", stand_in)
    matcher = blank()
    one = Elected(AffineTransform.from_parameters(rotation_deg=3, shift=(8.0, -4.0)), (0.1, -0.05), 1.0)
    assert RunOff(matcher, 4, NEAR[:2], 77).likelihood(one) == pytest.approx(0.9)
    ((seen, start, steps, limit, expected),) = told
    assert seen is matcher.reduced(4)
    np.testing.assert_allclose(start.matrix, rescale(one.transform, 1, 4).matrix)
    assert (steps, limit, expected) == (NEAR[:2], 77, (0.1, -0.05))


@torch.inference_mode()
def test_on_images_the_true_map_wins_and_chance_is_not_exceeded_by_strangers() -> None:
    pair = make_pair(2, 128, rotation_deg=2, shift=(4.0, -3.0))
    near, far = Elected(AffineTransform.identity()), Elected(AffineTransform.from_parameters(shift=(30.0, 20.0)))
    matcher = Matcher(as_pair(pair), OrientationFeatures(OrientationCfg()))
    judge = RunOff(matcher, 1, NEAR, 100)
    start = judge([far], [near])
    assert start.affine is near.transform
    assert judge.is_clear(start)
    assert start.likelihood == pytest.approx(refine_affine(matcher, near.transform, NEAR, 100).support)
    for seed in range(2):
        strangers = as_pair(replace(make_pair(seed, 128), moving=make_pair(77 + seed, 128).moving))
        judge = RunOff(Matcher(strangers, OrientationFeatures(OrientationCfg())), 1, NEAR, 100)
        assert not judge.is_clear(judge([near], [far]))
