"""Where to start: what is looked at, how often, and that rotation, scale and shift are found from nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from somareg.errors import EstimationError
from somareg.features.orientation import OrientationCfg
from somareg.geometry import AffineTransform
from somareg.matching.affine import departure
from somareg.matching.approach import finer
from somareg.matching.describe import Levels, OrientationFeatures
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.refine import refine_affine
from somareg.matching.runoff import RunOff, Start
from somareg.matching.search import ALL_AROUND, SearchCfg
from somareg.matching.start import around, distinct, find_start, reduction, seen
from somareg.matching.steps import NEAR
from somareg.matching.vote import Elected, Guess
from somareg.soma.encoder import MIN_SIDE
from somareg.types import Modality
from tests.synthetic import SyntheticPair, make_pair, pixel_points
from tests.t40_matching.conftest import as_pair

STILL = AffineTransform.identity()
LOCAL = SearchCfg(rotation_deg=4.0, scale=(0.96, 1.04))


class Counting:
    """Orientation channels that note how many images they are given, and how large these are."""

    def __init__(self) -> None:
        self.inner = OrientationFeatures(OrientationCfg())
        self.strides = self.inner.strides
        self.asked: list[tuple[int, int]] = []

    def __call__(self, image: Tensor, mask: Tensor, modality: Modality) -> Levels:
        self.asked.append((len(image), max(image.shape[-2:])))
        return self.inner(image, mask, modality)

    def temperature(self, stride: int) -> float | None:
        return None

    @property
    def images(self) -> int:
        return sum(count for count, _ in self.asked)


def guesses(*starts: AffineTransform) -> tuple[Guess, ...]:
    return tuple(Guess(start) for start in starts or (STILL,))


def find(pair: Pair, *starts: AffineTransform, cfg: SearchCfg = SearchCfg()) -> Start:  # noqa: B008
    full = Matcher(pair, OrientationFeatures(OrientationCfg()))
    return find_start(full, guesses(*starts), cfg, RunOff(full, 1, NEAR, 100))


def error(found: AffineTransform, pair: SyntheticPair) -> float:
    """RMS distance from the truth over the reference, pixels."""
    points = pixel_points(pair.reference.shape[1:])[::13]
    return float(np.sqrt(((found(points) - pair.to_moving(points)) ** 2).sum(1).mean()))


def blank(height: int, width: int, away: tuple[int, int] | None = None) -> Pair:
    image, other = torch.zeros(1, 1, height, width), torch.zeros(1, 1, *(away or (height, width)))
    return Pair(image, torch.ones_like(image), other, torch.ones_like(other))


# --- at which resolution ----------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.tuples(*[st.integers(64, 900)] * 4), st.floats(40, 400))
def test_no_side_is_reduced_below_what_a_network_takes(sides: tuple[int, int, int, int], side_px: float) -> None:
    pair = blank(*sides[:2], away=sides[2:])
    factor = reduction(pair, side_px)
    small = pair.reduced(factor)
    assert min(*small.shape, *small.moving.shape[-2:]) >= MIN_SIDE
    assert factor >= 1
    # And it is reduced as far as that allows: either the aim is reached or the next step would go too far.
    aim = max(1, math.ceil(max(sides[:2]) / side_px - 0.2))
    assert factor == aim or (factor < aim and min(sides) // (factor + 1) < MIN_SIDE)


def test_images_that_are_too_small_already_stay_as_they_are() -> None:
    assert reduction(blank(40, 2000), 80.0) == 1
    assert reduction(blank(512, 512), 140.0) == 4
    assert reduction(blank(512, 512), 80.0) == 7
    assert reduction(blank(168, 168), 140.0) == 1  # a fifth too large is not worth a reduction
    assert reduction(blank(169, 169), 140.0) == 2


@pytest.mark.parametrize(("factor", "clear", "doubtful"), [(2, 1, 1), (3, 1, 1), (4, 1, 2), (7, 1, 3), (9, 2, 4)])
def test_refinement_passes_fewer_resolutions_when_one_is_clear(factor: int, clear: int, doubtful: int) -> None:
    assert finer(factor, is_clear=True) == clear
    assert finer(factor, is_clear=False) == doubtful


# --- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rotation", "scale", "shift"),
    [(17.0, 1.2, (12.0, -8.0)), (-15.0, 0.84, (0.0, -20.0)), (0.0, 1.0, (-20.0, 20.0)), (-21.0, 0.79, (9.0, 9.0))],
)
def test_rotation_scale_and_shift_are_found_from_nothing(
    rotation: float, scale: float, shift: tuple[float, float]
) -> None:
    pair = make_pair(4, 256, rotation_deg=rotation, scale=scale, shift=shift)
    full = Matcher(as_pair(pair), OrientationFeatures(OrientationCfg()))
    run_off = RunOff(full, 1, NEAR, 100)
    found = find_start(full, guesses(), SearchCfg(), run_off)
    assert error(STILL, pair) > 20
    assert found.score > SearchCfg().settled or run_off.is_clear(found)
    # Votes lie 3 px of 140 apart, and a run-off may be clear before the finest: the refinement goes on from there.
    assert error(found.affine, pair) < 12
    assert error(refine_affine(full, found.affine, NEAR, 100, found.shape).affine, pair) < 0.5


def test_any_rotation_is_found_when_all_around_is_searched() -> None:
    pair = make_pair(5, 192, rotation_deg=-128.0, scale=0.9, shift=(8.0, 3.0))
    found = find(as_pair(pair), cfg=SearchCfg(rotation_deg=ALL_AROUND))
    assert error(found.affine, pair) < 6  # voted on at half the resolution, where a cell has 4 px


@pytest.mark.parametrize("seed", range(3))
def test_unrelated_images_have_little_support(seed: int) -> None:
    """However many guesses are looked at."""
    reference, moving = make_pair(seed, 256), make_pair(77 + seed, 256)
    other = find(as_pair(replace(reference, moving=moving.moving)))
    assert other.score < 1.8 < SearchCfg().settled < find(as_pair(reference)).score


def test_one_good_expectation_among_bad_ones_is_enough() -> None:
    pair = make_pair(3, 192, rotation_deg=50, shift=(4.0, -6.0))
    bad = AffineTransform.from_parameters(shift=(60.0, 10.0))
    good = AffineTransform.from_parameters(rotation_deg=47, centre=(95.5, 95.5))
    beyond = AffineTransform.from_parameters(shift=(1e5, 0.0))
    for starts in ((bad, good), (good, bad), (beyond, good)):
        found = find(as_pair(pair), *starts, cfg=LOCAL)
        assert error(found.affine, pair) < 4
    assert error(find(as_pair(pair), bad, cfg=LOCAL).affine, pair) > 20


def test_the_radius_is_a_share_of_the_reference_around_what_is_expected() -> None:
    pair = make_pair(6, 192, shift=(30.0, 0.0))
    wide, narrow = (find(as_pair(pair), cfg=replace(LOCAL, radius=radius)) for radius in (0.18, 0.06))
    assert error(wide.affine, pair) < 4
    assert error(narrow.affine, pair) > 10
    assert narrow.score < wide.score
    near = AffineTransform.from_parameters(shift=(25.0, 4.0))
    assert error(find(as_pair(pair), near, cfg=replace(LOCAL, radius=0.06)).affine, pair) < 4


# --- strips -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pair", "factor"),
    [
        (blank(100, 2048), 3),  # 33 px are enough where it would stay longer than 512 px
        (blank(128, 2048), 4),
        (blank(2048, 2048, (2048, 100)), 3),
        (blank(128, 1024), 2),  # 64 x 512 px
        (blank(100, 1024), 2),  # 50 x 512 px: no narrower than it must be
        (blank(100, 512), 1),  # short already
        (blank(40, 2000), 1),  # too narrow for anything
    ],
)
def test_a_strip_that_stays_long_is_reduced_to_half_of_what_a_network_takes(pair: Pair, factor: int) -> None:
    assert reduction(pair, 140.0, 512.0) == factor


def test_a_turned_strip_is_not_looked_at_where_it_shows_no_strip() -> None:
    turns, still = SearchCfg().turns(), Guess(STILL)
    assert len(around(still, turns, blank(2048, 2048), 0.25)) == len(turns)
    large = [(turn, scale) for turn in (-16.0, 0.0, 16.0) for scale in (0.4, 2.5)]
    assert len(around(still, large, blank(512, 512), 0.25)) == len(large)  # a small part of the reference, by right
    kept = around(still, turns, blank(100, 2048), 0.25)
    assert {round(one.transform.parameters()["rotation_deg"]) for one in kept} == {0}
    assert len(kept) == 3  # the scales
    # The moving strip lies across the reference's, so what is expected shows little itself, and nothing is left out.
    all_around = SearchCfg(rotation_deg=ALL_AROUND, scale=(1.0, 1.0)).turns()
    centred = Guess(AffineTransform.from_parameters(shift=(-960.0, 960.0)))
    across = around(centred, all_around, blank(128, 2048, (2048, 128)), 0.25)
    assert len(across) == len(all_around)


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_shape_that_is_expected_turns_with_the_guess(mirrored: bool) -> None:
    """A stretch along x of what is expected is one along y for what is turned by 90 degrees."""
    stretched = AffineTransform.from_parameters(scale=(1.3, 0.9), shear_deg=4.0, shift=(3.0, -8.0))
    if mirrored:
        stretched = stretched.after(AffineTransform(np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 99.0]])))
    turns = [(0.0, 1.0), (90.0, 1.0), (-16.0, 1.185), (70.0, 0.8), (180.0, 1.0)]
    turned = around(Guess(stretched, departure(stretched)), turns, blank(100, 100), 0.0)
    for one in turned:
        np.testing.assert_allclose(one.shape, departure(one.transform), atol=1e-12)
    np.testing.assert_allclose(turned[1].shape, -np.array(turned[0].shape), atol=1e-12)
    # A shape that is not the map's own (of matches that are rough) turns likewise.
    rough = around(Guess(STILL, (0.2, 0.1)), turns, blank(100, 100), 0.0)
    np.testing.assert_allclose(rough[1].shape, (-0.2, -0.1), atol=1e-12)
    assert rough[0].shape == (0.2, 0.1)


def test_the_share_that_is_seen() -> None:
    pair = blank(40, 80)
    assert seen(STILL, pair) == 1.0
    assert seen(AffineTransform.from_parameters(shift=(40.0, 0.0)), pair) == pytest.approx(0.5, abs=0.02)
    assert seen(AffineTransform.from_parameters(shift=(0.0, 50.0)), pair) == 0.0
    assert seen(STILL, blank(40, 80, (20, 80))) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("turned", [False, True])
def test_a_strip_is_found_where_votes_look_at_32_of_its_pixels(turned: bool) -> None:
    made = make_pair(3, 512, rotation_deg=1.0, scale=1.02, shift=(9.0, -4.0))
    whole = as_pair(made)
    rows = slice(224, 288)
    strip = Pair(
        *(part[..., rows, :] for part in (whole.reference, whole.reference_mask, whole.moving, whole.moving_mask))
    )
    if turned:
        strip = Pair(*(part.mT for part in (strip.reference, strip.reference_mask, strip.moving, strip.moving_mask)))
    cfg = SearchCfg(strip_px=300.0)
    assert reduction(strip, cfg.fine_px, cfg.strip_px) == 2
    found = find(strip, cfg=cfg)
    points = np.array([(x, y) for x in range(0, 512, 16) for y in range(224, 288, 16)], float)
    truth = made.to_moving(points) - (0.0, 224.0)
    local = points - (0.0, 224.0)
    there = found.affine(local[:, ::-1])[:, ::-1] if turned else found.affine(local)
    assert np.sqrt(((there - truth) ** 2).sum(1).mean()) < 4


# --- how much is looked at --------------------------------------------------------------------------------------------


class Trusting(RunOff):
    """Takes what was elected at its word, looks at nothing and finds nothing clear."""

    def __init__(self) -> None:
        pass

    def is_clear(self, start: Start) -> bool:
        return False

    def __call__(self, favourites: Sequence[Elected], challengers: Sequence[Elected]) -> Start:
        best = max((*favourites, *challengers), key=lambda one: one.score)
        return Start(best.transform, best.shape, best.score)


SIMILAR = SearchCfg(coarse_bent=None, fine_bent=None)


def looked_at(pair: Pair, cfg: SearchCfg, *starts: AffineTransform) -> Counting:
    describe = Counting()
    full = Matcher(pair, describe)
    describe.asked.clear()  # the full image is the caller's
    find_start(full, guesses(*starts), cfg, Trusting())
    return describe


def test_support_for_what_is_expected_ends_the_search() -> None:
    """At each of two resolutions one reference and one moving image per start are described."""
    pair = as_pair(make_pair(0, 256, rotation_deg=2, shift=(5.0, -3.0)))
    small, large = 256 // reduction(pair, SearchCfg().coarse_px), 256 // reduction(pair, SearchCfg().fine_px)
    one = looked_at(pair, SearchCfg())
    assert [count for count, _ in one.asked] == [1, 1, 1, 1]
    assert {small, large} < {side for _, side in one.asked}
    several = looked_at(pair, SearchCfg(), STILL, AffineTransform.from_parameters(shift=(40.0, 40.0)))
    assert several.images == one.images + 1  # both small, the one with support finer


def test_without_support_all_guesses_are_looked_at_small_and_the_best_again() -> None:
    pair = as_pair(make_pair(0, 256, rotation_deg=2, shift=(5.0, -3.0)))
    never = replace(SIMILAR, settled=math.inf, apart_px=0.0, share=0.0)
    looks = looked_at(pair, never)
    small, large = reduction(pair, never.coarse_px), reduction(pair, never.fine_px)
    assert small > large
    references = [side for count, side in looks.asked if side in (256 // small, 256 // large)]
    assert sorted(references) == [256 // small, 256 // large]
    # What is expected, small and finer; then the 8 other guesses in two groups, and the best of all 9 finer, but for
    # what was looked at already.
    assert sum(count for count, _ in looks.asked) == 2 + 9 + never.keep


def test_doubt_calls_for_wide_votes_and_never_loses_support() -> None:
    """The low resolution may lead astray by more than the close votes reach."""
    pair = make_pair(0, 192, rotation_deg=12, shift=(5.0, -3.0))
    sure, doubting = (find(as_pair(pair), cfg=replace(SIMILAR, doubtful=d)) for d in (0.0, math.inf))
    assert doubting.score >= sure.score
    assert error(doubting.affine, pair) < 4
    blind = replace(SIMILAR, close=replace(SIMILAR.close, rotation_deg=0.0, scale=0.0), close_px=0.0)
    assert error(find(as_pair(pair), cfg=replace(blind, doubtful=math.inf)).affine, pair) < 4


def elected(score: float, shift: tuple[float, float]) -> Elected:
    return Elected(AffineTransform.from_parameters(shift=shift), score=score)


def test_distinct_keeps_the_best_of_neighbours_and_what_has_enough_support() -> None:
    shape, cfg = (80, 100), SearchCfg(keep=3, apart_px=6.0, share=0.7)
    best, near = elected(2.0, shift=(1.0, 0.0)), elected(1.9, shift=(6.0, 0.0))
    far, poor = elected(1.5, shift=(9.0, 0.0)), elected(1.3, shift=(-20.0, 0.0))
    assert distinct([poor, near, far, best], shape, cfg) == [best, far]
    assert distinct([near, best], shape, replace(cfg, apart_px=4.0)) == [best, near]
    assert distinct([far, near, best, poor], shape, replace(cfg, share=0.0)) == [best, far, poor]
    assert distinct([far, near, best, poor], shape, replace(cfg, keep=1)) == [best]
    assert distinct([], shape, cfg) == []


def test_distance_is_that_of_the_corners() -> None:
    """A rotation about the middle moves them most."""
    cfg = SearchCfg(keep=2, apart_px=6.0)
    still = elected(2.0, (0.0, 0.0))
    turned = Elected(AffineTransform.from_parameters(rotation_deg=4.0, centre=(49.5, 39.5)), score=1.9)
    assert len(distinct([still, turned], (80, 100), cfg)) == 1  # by 3.5 px
    assert len(distinct([still, turned], (80, 100), replace(cfg, apart_px=3.0))) == 2


def test_a_narrow_range_is_never_left() -> None:
    """Also without support: only aspect and shear are voted on, there is nothing else that the first vote has not
    covered.
    """
    reference, moving = make_pair(0, 192), make_pair(77, 192)
    pair = as_pair(replace(reference, moving=moving.moving))
    never = replace(LOCAL, doubtful=math.inf)
    assert looked_at(pair, never).images == 3
    assert looked_at(pair, replace(never, fine_bent=None)).images == 2


def test_what_was_found_first_stays_if_nothing_else_has_more_support() -> None:
    pair = make_pair(0, 192, rotation_deg=2, shift=(5.0, -3.0))
    early, late = (find(as_pair(pair), cfg=replace(SIMILAR, settled=s)) for s in (0.0, math.inf))
    assert late.score >= early.score
    assert error(late.affine, pair) < 4


# --- when there is nothing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfg", [SearchCfg(), LOCAL], ids=["wide", "local"])
def test_images_without_overlap_are_an_error(cfg: SearchCfg) -> None:
    pair = as_pair(make_pair(0, 128))
    with pytest.raises(EstimationError, match="no window"):
        find(pair, AffineTransform.from_parameters(shift=(1e4, 0.0)), cfg=cfg)
    with pytest.raises(EstimationError, match="no window"):
        find(replace(pair, reference_mask=torch.zeros_like(pair.reference_mask)), cfg=cfg)


@pytest.mark.parametrize("side", ["reference", "moving"])
def test_a_blank_image_is_an_error_or_has_no_support(side: str) -> None:
    pair = as_pair(make_pair(0, 128))
    flat = replace(pair, **{side: torch.zeros_like(getattr(pair, side))})
    assert find(flat).score < 1.0
