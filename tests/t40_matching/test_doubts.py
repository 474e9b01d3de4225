"""What the images cannot tell: repetition, one direction, another reading, a free fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from somareg.features.orientation import OrientationCfg
from somareg.geometry import AffineTransform
from somareg.matching.describe import OrientationFeatures
from somareg.matching.doubts import NO_DOUBTS, find_rival, free_fit, second_reading, spread_of
from somareg.matching.evidence import gather, similarity
from somareg.matching.keypoints import KeypointCfg, keypoint_guesses
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.steps import NEAR

SIDE = 160
STILL = AffineTransform.identity()


def matcher(moving, reference):
    def tensor(image):
        image = np.asarray(image, np.float32)
        return torch.from_numpy((image - image.mean()) / image.std())[None, None]

    ones = torch.ones(1, 1, *np.shape(reference))
    pair = Pair(tensor(reference), ones, tensor(moving), torch.ones(1, 1, *np.shape(moving)))
    return Matcher(pair, OrientationFeatures(OrientationCfg()))


def texture(seed=0, shape=(SIDE, SIDE), smooth=3):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=shape)
    for _ in range(smooth):
        image = sum(np.roll(image, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9
    return image / image.std()


def seen_again(image, seed=1, noise=0.2):
    return -image + noise * texture(seed)


def test_unique_texture_has_no_rival():
    ground = texture()
    rival = find_rival(matcher(seen_again(ground), ground), STILL, 40.0)
    assert rival.height < 0.5


def test_a_long_strip_is_looked_at_without_losing_its_shorter_side():
    ground = texture(shape=(70, 12000))
    pair = matcher(ground, ground)
    assert similarity(pair, STILL) > 0.9
    assert find_rival(pair, STILL, 40.0).height < 0.5
    assert keypoint_guesses(pair.pair, KeypointCfg(longest_px=100.0, count=400))


@pytest.mark.parametrize("period", [20, 32, 40])
def test_repeated_texture_has_one_a_period_away(period):
    tile = texture(2, (period, period))
    count = SIDE // period + 1
    ground = np.tile(tile, (count, count))[:SIDE, :SIDE]
    rival = find_rival(matcher(seen_again(ground), ground), STILL, 48.0)
    assert rival.height > 0.75  # shifts of a period leave some windows beyond the edge
    multiples = np.array(rival.shift_px) / period
    np.testing.assert_allclose(multiples, np.rint(multiples), atol=3 / period)
    assert rival.ridge < 0.5  # between one period and the next nothing fits


@pytest.mark.parametrize("axis", [0, 1])
def test_texture_of_one_direction_fits_all_along_it(axis):
    line = np.repeat(texture(3)[:1], SIDE, axis=0)
    ground = line if axis else line.T
    rival = find_rival(matcher(seen_again(ground), ground), STILL, 40.0)
    assert rival.height > 0.8 and rival.ridge > 0.7
    along, across = np.abs(rival.shift_px) if axis == 0 else np.abs(rival.shift_px)[::-1]
    assert along > 8 and across <= 4


def test_images_that_share_nothing_have_rivals_as_good():
    assert find_rival(matcher(texture(5), texture(6)), STILL, 40.0).height > 0.8


def test_another_reading_agrees_where_the_estimate_is_right():
    ground = texture()
    right = matcher(seen_again(ground), ground)
    assert second_reading(right, STILL, NEAR[1:], 100) < 0.5
    off = AffineTransform.from_parameters(shift=(5.0, 0.0))
    assert second_reading(right, off, NEAR[1:], 100) > 2.0


def test_a_free_fit_and_the_spread_tell_right_from_wrong():
    ground = texture()
    right, wrong = matcher(seen_again(ground), ground), matcher(texture(7), ground)
    figures = []
    for each in (right, wrong):
        _, ties = gather(each, STILL, math.nan)
        figures.append((free_fit(ties, 2.0, (SIDE, SIDE)), *spread_of(ties)))
    (free, spread, residual), (free_wrong, spread_wrong, residual_wrong) = figures
    assert free < 0.5 < 2.0 < free_wrong
    assert spread < spread_wrong and residual < 1.0 < residual_wrong


def test_without_windows_everything_is_in_doubt():
    doubts = NO_DOUBTS.with_ties(None, 2.0, (SIDE, SIDE))
    assert doubts.free_px == doubts.spread_px == doubts.residual_px == doubts.second_px == math.inf
    assert doubts.rival.height >= 1.0
