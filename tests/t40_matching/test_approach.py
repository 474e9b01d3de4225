"""A close look spares the search where what is expected holds, and nowhere else."""

from __future__ import annotations

import pytest

from somareg.errors import EstimationError
from somareg.features.orientation import OrientationCfg
from somareg.geometry import AffineTransform
from somareg.matching.approach import ApproachCfg, Begun, begin
from somareg.matching.describe import OrientationFeatures
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.runoff import CHANCE_UNTRAINED, Start
from somareg.matching.steps import NEAR
from somareg.matching.vote import Guess
from tests.synthetic import SyntheticPair, make_pair, pixel_points
from tests.t40_matching.conftest import as_pair

CLEAR = 1.25 * CHANCE_UNTRAINED


def settings(factor: int) -> ApproachCfg:
    return ApproachCfg(factor, NEAR, 100, CHANCE_UNTRAINED, CLEAR)


class Search:
    """Counts how often it is asked, and gives what it was made with."""

    def __init__(self, answer: AffineTransform | None = None) -> None:
        self.answer, self.asked = answer, 0

    def __call__(self) -> Start:
        self.asked += 1
        if self.answer is None:
            raise EstimationError("nothing was found")
        return Start(self.answer, score=3.0)


def begun(pair: SyntheticPair | Pair, guesses: tuple[AffineTransform, ...], search: Search, factor: int) -> Begun:
    images = pair if isinstance(pair, Pair) else as_pair(pair)
    full = Matcher(images, OrientationFeatures(OrientationCfg()))
    return begin(full, [Guess(guess) for guess in guesses], settings(factor), search)


def error(found: AffineTransform, pair: SyntheticPair) -> float:
    """Largest distance from the truth over the reference, pixels."""
    points = pixel_points(pair.reference.shape[1:])[::13]
    return float(abs(found(points) - pair.to_moving(points)).max())


STILL = AffineTransform.identity()


@pytest.mark.parametrize(("side", "factor", "left"), [(160, 1, NEAR[-1:]), (256, 2, NEAR[1:])])
def test_what_lies_where_it_is_expected_is_not_searched(side: int, factor: int, left: tuple[object, ...]) -> None:
    pair, search = make_pair(3, side, shift=(4.0, -3.0)), Search()
    found = begun(pair, (STILL,), search, factor)
    assert search.asked == 0
    assert found.steps == left
    assert found.support >= 2 * CHANCE_UNTRAINED
    assert error(found.affine, pair) < 1.5 * factor


def test_the_best_of_several_expectations_is_taken() -> None:
    pair, search = make_pair(4, 256, shift=(40.0, 25.0)), Search()
    off = AffineTransform.from_parameters(shift=(38.0, 28.0))
    found = begun(pair, (STILL, off), search, 2)
    assert search.asked == 0
    assert error(found.affine, pair) < 3


@pytest.mark.parametrize("shift", [(60.0, 0.0), (-45.0, 45.0)])
def test_what_lies_elsewhere_is_searched(shift: tuple[float, float]) -> None:
    pair = make_pair(5, 256, shift=shift)
    search = Search(AffineTransform.from_parameters(shift=(shift[0] + 3, shift[1] - 3)))
    found = begun(pair, (STILL,), search, 2)
    assert search.asked == 1
    assert found.support == 3.0
    assert error(found.affine, pair) < 3


@pytest.mark.parametrize("seed", range(4))
def test_strangers_are_searched(seed: int) -> None:
    one, other = as_pair(make_pair(20 + seed, 192)), as_pair(make_pair(70 + seed, 192))
    strangers = Pair(one.reference, one.reference_mask, other.moving, other.moving_mask, one.modalities)
    search = Search(STILL)
    begun(strangers, (STILL,), search, 1)
    assert search.asked == 1


def test_a_search_that_finds_nothing_says_so() -> None:
    pair = as_pair(make_pair(6, 128))
    blank = Pair(pair.reference * 0, pair.reference_mask, pair.moving * 0, pair.moving_mask, pair.modalities)
    with pytest.raises(EstimationError, match="nothing was found"):
        begun(blank, (STILL,), Search(), 1)


def test_a_start_that_is_found_in_full_images_has_all_steps_before_it() -> None:
    pair = make_pair(7, 160, rotation_deg=15.0)
    truth = AffineTransform.from_parameters(rotation_deg=15.0, centre=(79.5, 79.5))
    found = begun(pair, (STILL,), Search(truth), 1)
    assert found.steps == NEAR
    assert found.affine is truth
