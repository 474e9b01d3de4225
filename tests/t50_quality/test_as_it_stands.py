"""A pair is aligned as it stands if its displacement is small, and measured well enough to tell."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from somareg.quality import judge_as_it_stands
from somareg.types import Verdict
from tests.t50_quality.test_measure_and_judge import figures


@pytest.mark.parametrize(
    ("error", "shift", "decision", "words"),
    [
        (0.5, 0.9, "go", "The images lie together to 0.90 px RMS."),
        (1.0, 0.9, "go", "The images lie together to 0.90 px RMS."),
        (2.5, 0.9, "review", "the expected error of this measurement is 2.50 px; a go allows up to 1 px."),
        (1.0004, 0.9, "review", "measurement is 1.0004 px;"),
        (math.inf, 0.9, "review", "measurement is not known;"),
        (2.5, 4.0, "review", "The images are 4.00 px RMS apart"),
    ],
)
def test_a_pair_is_aligned_if_that_is_measured(error: float, shift: float, decision: str, words: str) -> None:
    quality = replace(figures(), shift_before_px=shift, predicted_rmse_px=error)
    verdict = judge_as_it_stands(Verdict("go", ("It agrees.",), 0.95, worst="Somewhere."), quality)
    assert verdict.decision == decision
    assert words in verdict.reasons[0]
    assert (verdict.reasons[1], verdict.worst) == ("It agrees.", "")
    doubtful = Verdict("review", ("It repeats.",), 0.95)
    assert judge_as_it_stands(doubtful, quality) == doubtful
