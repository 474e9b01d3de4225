"""Repetition, one direction and readings that disagree are told in words."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from somareg.geometry import AffineTransform
from somareg.matching.doubts import Doubts, Rival
from somareg.matching.engine import Alignment
from somareg.matching.evidence import NO_EVIDENCE
from somareg.matching.parts import ALL, Part
from somareg.quality.ambiguity import ambiguities, disagreements, is_doubted
from somareg.quality.signs import figures_of

AGREEING = replace(NO_EVIDENCE, zscore=3.0)
FINE = Alignment(
    AffineTransform.identity(), evidence=AGREEING, doubts=Doubts(Rival(0.4, (20.0, 8.0), 0.1), second_px=0.3)
)


def with_rival(height, shift, ridge):
    return replace(FINE, doubts=replace(FINE.doubts, rival=Rival(height, shift, ridge)))


def test_nothing_is_said_of_a_clear_pair():
    assert ambiguities(FINE, 1) == disagreements(FINE, 1) == ()


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ((30.0, 2.0), "from left to right"),
        ((-2.0, 24.0), "from top to bottom"),
        ((20.0, 20.0), "from top left to bottom right"),
        ((20.0, -18.0), "from bottom left to top right"),
    ],
)
def test_one_direction_is_named(shift, words):
    (sentence,) = ambiguities(with_rival(0.95, shift, 0.9), 1)
    assert f"the shift {words} cannot be measured" in sentence


def test_a_repetition_is_told_in_pixels_of_the_reference():
    (sentence,) = ambiguities(with_rival(0.9, (12.0, -16.0), 0.1), 3)
    assert "60 px away, at (+36, -48)" in sentence and "repeats" in sentence


@pytest.mark.parametrize(("px", "told"), [(0.5, False), (1.5, True), (math.inf, False)])
def test_another_reading_is_told_when_it_is_apart(px, told):
    alignment = replace(FINE, doubts=replace(FINE.doubts, second_px=px))
    assert bool(disagreements(alignment, 2)) is told


def test_images_that_hardly_agree_are_not_said_to_repeat():
    alignment = replace(with_rival(1.0, (12.0, -16.0), 0.9), evidence=replace(NO_EVIDENCE, zscore=0.9))
    (sentence,) = ambiguities(alignment, 1)
    assert "(+12, -16) px more fits about as well" in sentence and "direction" not in sentence


def test_a_failure_needs_no_more_words():
    assert ambiguities(replace(with_rival(1.0, (9.0, 0.0), 1.0), failure="nothing"), 1) == ()


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [(2, 0, "bottom left"), (1, 1, "middle"), (0, 1, "top middle"), (ALL, 2, "right third"), (1, ALL, "middle third")],
)
@pytest.mark.parametrize(("height", "is_told"), [(1.1, False), (1.3, True)])
def test_a_displaced_part_is_told_by_its_place(height, is_told, row, column, words):
    alignment = replace(FINE, doubts=replace(FINE.doubts, part=Part(height, (12.0, -5.0), row, column)))
    told = ambiguities(alignment, 2)
    assert bool(told) is is_told is is_doubted(figures_of(alignment))
    if is_told:
        assert told[0].startswith(f"The {words} of the frame fits better 26 px away, at (+24, -10)")
    assert ambiguities(replace(alignment, failure="nothing"), 2) == ()
