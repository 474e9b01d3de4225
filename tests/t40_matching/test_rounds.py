"""The rounds of a search: which votes are taken in which order, and when it ends; votes and run-off are replaced."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from somareg.errors import EstimationError
from somareg.features.orientation import OrientationCfg
from somareg.geometry import AffineTransform
from somareg.matching import start as module
from somareg.matching.describe import OrientationFeatures
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.runoff import RunOff, Start
from somareg.matching.search import ALL_AROUND, ANY_SCALE, SearchCfg
from somareg.matching.start import find_start, reduced_guess
from somareg.matching.vote import Elected, Guess, VoteCfg
from somareg.runtime.threads import Over

SIDE = 280  # a quarter of it is the low resolution, half of it the finer one
STILL = AffineTransform.identity()
WIDE = SearchCfg()
LOCAL = SearchCfg(rotation_deg=4.0, scale=(0.96, 1.04))
KINDS = ("coarse", "coarse_bent", "close", "fine", "fine_bent")
HINT = Guess(AffineTransform.from_parameters(rotation_deg=70, scale=1.3, shift=(50.0, 9.0)), (0.1, 0.0))

LOOK_AROUND = ["coarse 8", "close 2"]  # the best of the 9 were found around what is expected and around two others
BEYOND = f"coarse {len(replace(WIDE, widens=True).turns_beyond())}"


class Told(RunOff):
    """Votes that elect all guesses, each far from the others and a little worse than the one before, and a run-off that
    takes the last challenger; all of it is noted.

    Args:
        cfg: what is searched.
        clear_after: run-offs after which the result is clear.
        **supports: of the best by each kind of vote; 1 where nothing is said, and 0 for votes that show no window.
    """

    def __init__(self, cfg: SearchCfg, clear_after: int = 99, **supports: float) -> None:
        self.cfg, self.clear_after, self.supports = cfg, clear_after, supports
        self.steps: list[str] = []
        self.votes: list[tuple[str, list[Guess], float]] = []
        self.elected: list[tuple[list[Elected], list[Elected]]] = []

    def vote(
        self, matcher: Matcher, guesses: Sequence[Guess], radius_px: float, cfg: VoteCfg, over: Over
    ) -> list[Elected]:
        (kind,) = (name for name in KINDS if getattr(self.cfg, name) is cfg)
        self.steps.append(f"{kind} {len(guesses)}")
        self.votes.append((kind, list(guesses), radius_px))
        support, elected = self.supports.get(kind, 1.0), []
        for i, guess in enumerate(guesses if support else ()):
            away = AffineTransform.from_parameters(shift=(20.0 * i, 0.0)).after(guess.transform)
            elected.append(Elected(away, guess.shape, support - 1e-3 * i))
        return elected

    def hints(self) -> tuple[Guess, ...]:
        self.steps.append("hints")
        return (HINT,)

    def __call__(self, favourites: Sequence[Elected], challengers: Sequence[Elected]) -> Start:
        self.elected.append((list(favourites), list(challengers)))
        self.steps.append(f"run-off {len(favourites)}:{len(challengers)}")
        best = [*favourites, *challengers][-1]
        return Start(best.transform, best.shape, best.score, 0.5)

    def is_clear(self, start: Start) -> bool:
        return len(self.elected) >= self.clear_after

    def votes_of(self, kind: str) -> list[tuple[list[Guess], float]]:
        return [(guesses, radius) for name, guesses, radius in self.votes if name == kind]


class Search:
    """Runs a search with what `Told` stands in for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        image = torch.zeros(1, 1, SIDE, SIDE)
        pair = Pair(image, torch.ones_like(image), image, torch.ones_like(image))
        self.full = Matcher(pair, OrientationFeatures(OrientationCfg()))

    def __call__(self, told: Told, *starts: Guess, hints: bool = True) -> Start:
        self.monkeypatch.setattr(module, "vote", told.vote)
        more = {"hints": told.hints} if hints else {}
        return find_start(self.full, starts or (Guess(STILL),), told.cfg, told, **more)


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Search:
    return Search(monkeypatch)


# --- when it ends -----------------------------------------------------------------------------------------------------


def test_a_settled_vote_around_what_is_expected_ends_a_wide_search(search: Search) -> None:
    told = Told(WIDE, coarse=WIDE.doubtful, close=WIDE.settled)
    start = search(told)
    assert told.steps == ["coarse 1", "close 1"]
    assert (start.score, start.likelihood) == (WIDE.settled, 0.0)


def test_a_vote_that_is_not_doubtful_ends_a_local_search(search: Search) -> None:
    told = Told(LOCAL, fine=LOCAL.doubtful)
    start = search(told, Guess(STILL, (0.02, 0.01)))
    assert told.steps == ["fine 1"]
    assert (start.score, start.likelihood, start.shape) == (LOCAL.doubtful, 0.0, (0.02, 0.01))


def test_a_clear_run_off_ends_it_after_every_round(search: Search) -> None:
    """With support below what is settled the next round follows, for as long as no refined candidate is clear."""
    cfg = replace(WIDE, widens=True)
    whole = Told(cfg, coarse=1.4, close=1.4)
    search(whole)
    ends = [i + 1 for i, step in enumerate(whole.steps) if step.startswith("run-off")]
    assert len(ends) == 6
    for rounds, end in enumerate(ends, start=1):
        told = Told(cfg, clear_after=rounds, coarse=1.4, close=1.4)
        search(told)
        assert told.steps == whole.steps[:end]


def test_a_settled_vote_that_came_late_has_to_run_off(search: Search) -> None:
    """What many guesses were tried for is not believed by its own support."""
    told = Told(WIDE, coarse=WIDE.doubtful - 0.1, close=9.0)
    search(told)
    assert told.steps[-1].startswith("run-off")
    assert len(told.elected) > 1


# --- in which order ---------------------------------------------------------------------------------------------------


def test_hints_are_asked_for_last_where_they_hardly_help(search: Search) -> None:
    told = Told(WIDE, coarse=1.4, close=1.4)
    search(told)
    steps = ["coarse 1", "close 1", "run-off 1:0"]
    steps += ["fine_bent 1", "run-off 1:1", *LOOK_AROUND, "run-off 1:1"]
    steps += ["coarse_bent 1", "close 1", "run-off 1:2", "hints", "close 1", "run-off 1:3"]
    assert told.steps == steps


def test_hints_are_asked_for_before_turned_guesses_where_they_help(search: Search) -> None:
    told = Told(replace(WIDE, hints_first=True), coarse=1.4, close=1.4)
    search(told)
    steps = ["coarse 1", "close 1", "run-off 1:0"]
    steps += ["fine_bent 1", "run-off 1:1", "hints", "close 1", "run-off 1:2"]
    steps += [*LOOK_AROUND, "run-off 1:2", "coarse_bent 1", "close 1", "run-off 1:3"]
    assert told.steps == steps


def test_only_a_search_that_widens_looks_all_around_and_last(search: Search) -> None:
    narrow, wide = Told(WIDE, coarse=1.4, close=1.4), Told(replace(WIDE, widens=True), coarse=1.4, close=1.4)
    search(narrow)
    search(wide)
    assert wide.steps[: len(narrow.steps)] == narrow.steps
    assert wide.steps[len(narrow.steps)] == BEYOND
    assert wide.steps[-1] == "run-off 1:3"
    tried = [guess.transform.parameters() for guesses, _ in wide.votes_of("coarse") for guess in guesses]
    assert max(abs(one["rotation_deg"]) for one in tried) > 160


def test_a_local_search_bends_and_takes_hints_and_never_turns(search: Search) -> None:
    for cfg in (LOCAL, replace(LOCAL, widens=True)):
        told = Told(cfg)
        search(told)
        assert told.steps == ["fine 1", "run-off 1:0", "fine_bent 1", "run-off 1:1", "hints", "close 1", "run-off 1:2"]


def test_nobody_needs_to_have_hints_or_to_bend(search: Search) -> None:
    told = Told(replace(LOCAL, fine_bent=None))
    search(told, hints=False)
    assert [step for step in told.steps if not step.startswith("run-off")] == ["fine 1"]
    told = Told(replace(WIDE, fine_bent=None, coarse_bent=None), coarse=1.4, close=1.4)
    search(told, hints=False)
    assert [step for step in told.steps if not step.startswith("run-off")] == ["coarse 1", "close 1", *LOOK_AROUND]


def test_what_the_low_resolution_doubts_waits_for_the_others(search: Search) -> None:
    """All guesses are looked at small before any is looked at again, then widely at the finer resolution too."""
    told = Told(replace(WIDE, fine_bent=None, coarse_bent=None))
    search(told, hints=False)
    assert [step for step in told.steps if not step.startswith("run-off")] == [
        "coarse 1",
        "coarse 8",
        "close 3",
        "fine 4",
    ]


# --- what is looked at again ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 3, 5, 12])
def test_the_best_of_the_low_resolution_are_looked_at_once(keep: int, search: Search) -> None:
    cfg = replace(WIDE, keep=keep, fine_bent=None, coarse_bent=None)
    told = Told(cfg, coarse=1.4, close=1.4)
    search(told, hints=False)
    seen = [tuple(one.transform.matrix.ravel()) for guesses, _ in told.votes_of("close") for one in guesses]
    assert len(set(seen)) == len(seen) == min(keep, 9)


def test_those_with_much_less_support_are_not_looked_at(search: Search) -> None:
    """With shares that leave the first three of nine."""
    cfg = replace(WIDE, keep=9, share=(1.4 - 2.5e-3) / 1.4, fine_bent=None, coarse_bent=None)
    told = Told(cfg, coarse=1.4, close=1.4)
    search(told, hints=False)
    assert sum(len(guesses) for guesses, _ in told.votes_of("close")) == 4  # two have the largest support


def test_several_expectations_are_each_voted_on(search: Search) -> None:
    other = Guess(AffineTransform.from_parameters(shift=(60.0, 0.0)), (0.1, -0.02))
    told = Told(LOCAL)
    start = search(told, Guess(STILL), other)
    ((guesses, _),) = told.votes_of("fine")
    assert [one.shape for one in guesses] == [(0.0, 0.0), (0.1, -0.02)]
    assert told.steps[0] == "fine 2"
    assert start.shape == HINT.shape  # this run-off takes the last one
    assert {one.shape for one in told.elected[-1][1]} == {(0.0, 0.0), (0.1, -0.02), (0.1, 0.0)}
    # Of the favourites only the best one runs off.
    assert [len(favourites) for favourites, _ in told.elected] == [1] * len(told.elected)


@pytest.mark.parametrize(("close", "fine"), [(0.9, 1.2), (1.2, 0.9)])
def test_the_best_of_the_close_votes_and_of_the_wide_ones_run_off(close: float, fine: float, search: Search) -> None:
    """A wide vote tries more and finds more by chance: what it elects must not hide what a close one did."""
    told = Told(replace(WIDE, fine_bent=None, coarse_bent=None), close=close, fine=fine)
    search(told, hints=False)
    favourites, challengers = told.elected[-1]
    assert [one.score for one in favourites] == sorted((close, fine), reverse=True)
    assert challengers == []


# --- resolutions and radii --------------------------------------------------------------------------------------------


def test_every_vote_looks_at_its_own_resolution(search: Search) -> None:
    start = Guess(AffineTransform.from_parameters(shift=(30.0, -20.0)))
    told = Told(replace(WIDE, hints_first=True))
    search(told, start)
    for kind, factor in (("coarse", 4), ("coarse_bent", 4), ("fine_bent", 2), ("fine", 2)):
        guesses, radius = told.votes_of(kind)[0]
        np.testing.assert_allclose(guesses[0].transform.matrix, reduced_guess(start, 1, factor).transform.matrix)
        assert radius == pytest.approx(WIDE.radius * SIDE / factor)
    hinted, followed = told.votes_of("close")[:2]
    np.testing.assert_allclose(hinted[0][0].transform.matrix, reduced_guess(HINT, 1, 2).transform.matrix)
    assert hinted[1] == WIDE.close_px
    assert followed[1] == WIDE.close_px * 4 / 2


def test_the_result_is_about_the_full_images(search: Search) -> None:
    start = Guess(AffineTransform.from_parameters(rotation_deg=2, shift=(31.0, -20.0)))
    for told in (Told(WIDE, coarse=1.4, close=2.5), Told(LOCAL, fine=2.5)):
        np.testing.assert_allclose(search(told, start).affine.matrix, start.transform.matrix, atol=1e-9)


# --- when there is little ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfg", [replace(WIDE, widens=True), LOCAL], ids=["wide", "local"])
def test_votes_that_show_nothing_are_an_error_after_all_rounds(cfg: SearchCfg, search: Search) -> None:
    told = Told(cfg, **dict.fromkeys(KINDS, 0.0))
    with pytest.raises(EstimationError, match="no window could be matched"):
        search(told)
    assert "hints" in told.steps
    assert not told.elected


def test_a_challenger_alone_is_better_than_nothing(search: Search) -> None:
    told = Told(replace(WIDE, widens=True), coarse=0.0, coarse_bent=0.0, fine=0.0, fine_bent=0.0)
    start = search(told)
    np.testing.assert_allclose(start.affine.matrix, HINT.transform.matrix, atol=1e-9)
    assert start.shape == HINT.shape


def test_supports_without_bounds_do_not_stop_it(search: Search) -> None:
    told = Told(replace(WIDE, settled=math.inf, doubtful=math.inf, rotation_deg=ALL_AROUND, scale=ANY_SCALE))
    search(told)
    assert told.steps[-1].startswith("run-off")
