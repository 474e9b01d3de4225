"""What is searched: the guesses of a range, those of a search that widens, and what needs none."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from somareg.matching.search import ALL_AROUND, ANY_SCALE, SearchCfg, Turn


def is_covered(rotation: float, scale: float, turns: list[Turn], cfg: SearchCfg) -> bool:
    """Whether a vote around some guess reaches this rotation and scale."""
    return any(
        abs((rotation - r + 180) % 360 - 180) <= cfg.coarse.rotation_deg + 1e-9
        and abs(math.log(s / scale)) <= cfg.coarse.scale + 1e-9
        for r, s in turns
    )


def between(low: float, high: float, share: float) -> float:
    """From `low` to `high` in equal ratios."""
    return low * (high / low) ** share


# --- the range that is asked for --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 179.9), st.floats(0.4, 1.0), st.floats(1.0, 2.5), st.floats(-1, 1), st.floats(0, 1))
def test_every_similarity_of_the_range_is_within_a_votes_reach_of_a_guess(
    widest: float, smallest: float, largest: float, turn: float, size: float
) -> None:
    cfg = SearchCfg(rotation_deg=widest, scale=(smallest, largest))
    turns = cfg.turns()
    assert turns[0] == (0.0, 1.0)
    assert len(set(turns)) == len(turns)
    assert is_covered(turn * widest, between(smallest, largest, size), turns, cfg)


def test_nothing_is_guessed_beyond_what_is_asked() -> None:
    rotations, scales = zip(*SearchCfg(22.0, scale=(0.78, 1.28)).turns(), strict=True)
    assert set(rotations) == {-16, 0, 16}
    assert sorted(set(scales)) == pytest.approx([1.185**i for i in range(-1, 2)])


def test_what_one_vote_covers_needs_no_guesses() -> None:
    assert not SearchCfg(rotation_deg=5.0, scale=(0.96, 1.04)).is_wide
    assert SearchCfg(rotation_deg=5.1, scale=(0.96, 1.04)).is_wide
    assert SearchCfg(rotation_deg=0.0, scale=(0.94, 1.04)).is_wide
    assert SearchCfg(rotation_deg=0.0, scale=(1.0, 1.06)).is_wide
    assert SearchCfg(rotation_deg=8.0, scale=(0.96, 1.04)).turns() == [(0.0, 1.0)]
    assert len(SearchCfg(rotation_deg=8.1, scale=(0.96, 1.04)).turns()) == 3
    assert len(SearchCfg(rotation_deg=0.0, scale=(0.9, 1.04)).turns()) == 2


@pytest.mark.parametrize(("step", "count"), [(10.0, 36), (11.0, 33), (90.0, 4)])
def test_all_around_is_a_circle_evenly(step: float, count: int) -> None:
    rotations = [r for r, _ in SearchCfg(rotation_deg=ALL_AROUND, rotation_step_deg=step, scale=(1.0, 1.0)).turns()]
    assert len(rotations) == count
    assert rotations[0] == 0
    np.testing.assert_allclose(np.diff([*rotations, rotations[0] + 360]), 360 / count)


# --- a search that widens ---------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 180), st.floats(0.4, 1.0), st.floats(1.0, 2.5), st.floats(-180, 180), st.floats(0, 1))
def test_what_lies_beyond_and_the_range_cover_everything_and_nothing_twice(
    widest: float, smallest: float, largest: float, rotation: float, size: float
) -> None:
    cfg = SearchCfg(rotation_deg=widest, scale=(smallest, largest), widens=True)
    turns, beyond = cfg.turns(), cfg.turns_beyond()
    assert is_covered(rotation, between(*ANY_SCALE, size), turns + beyond, cfg)
    assert len(set(turns + beyond)) == len(turns) + len(beyond)
    # A guess that is new leads somewhere: no vote was taken within half a step of it.
    half_turn, half_scale = cfg.rotation_step_deg / 2, math.log(cfg.scale_step) / 2
    for r, s in beyond:
        assert all(
            abs((r - tried + 180) % 360 - 180) > half_turn or abs(math.log(s / scale)) > half_scale
            for tried, scale in turns
        )


def test_a_search_that_does_not_widen_has_nothing_beyond() -> None:
    assert SearchCfg().turns_beyond() == []
    assert SearchCfg(rotation_deg=ALL_AROUND, scale=ANY_SCALE, widens=True).turns_beyond() == []


def test_the_usual_search_leaves_out_what_it_tried() -> None:
    cfg = SearchCfg(widens=True)
    full = SearchCfg(rotation_deg=ALL_AROUND, scale=ANY_SCALE).turns()
    beyond = cfg.turns_beyond()
    assert set(beyond) < set(full)
    assert len(full) - len(beyond) == len(cfg.turns())  # each guess of the range stands for one of all around


def test_from_which_support_on_nothing_else_is_tried() -> None:
    """A wide search asks more of what is expected than one that one vote covers."""
    wide, local = SearchCfg(settled=2.0, doubtful=1.3), SearchCfg(4.0, scale=(0.96, 1.04), settled=2.0, doubtful=1.3)
    assert (wide.is_wide, wide.enough) == (True, 2.0)
    assert (local.is_wide, local.enough) == (False, 1.3)
    assert replace(local, doubtful=1.0).enough == 1.0
