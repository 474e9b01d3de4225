"""The expected error at places, and the probability that comes of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from somareg.quality import load_calibration
from somareg.quality.error_map import RMS_PER_MIDDLE, LocalModel, certainty_of, expected_error

MODEL = LocalModel()
SEEN = np.array([1.0])
STILL = np.array([0.0])


def at(predicted: float = 1.0, coverage: float = 1.0, spread: float = 0.0, away: float = 0.0) -> float:
    return float(expected_error(predicted, np.array([coverage]), np.array([spread]), MODEL, np.array([away]))[0])


@pytest.mark.parametrize("predicted", [0.2, 1.0, 7.0])
def test_the_middle_of_a_well_seen_pair_has_the_error_of_the_pair(predicted: float) -> None:
    assert at(predicted) == pytest.approx(predicted)


@pytest.mark.parametrize("worse", [{"coverage": 0.3}, {"spread": 2.0}, {"away": 1.0}, {"predicted": 1.5}])
def test_whatever_is_known_worse_raises_the_error(worse: dict[str, float]) -> None:
    assert at(**worse) > 1.1 * at()


def test_the_coefficients_are_those_of_the_logarithm() -> None:
    model = LocalModel(0.1, 0.8, 0.5, 0.6, 0.3)
    error = expected_error(2.0, np.array([0.25]), np.array([1.0]), model, np.array([0.5]))
    expected = 0.1 + 0.8 * math.log(2.0) + 0.5 * 0.75 + 0.6 * math.log1p(0.5) + 0.3 * 0.25
    assert math.log(error[0]) == pytest.approx(expected)


def test_nothing_estimated_is_no_certainty_and_no_overflow() -> None:
    error = expected_error(math.inf, SEEN, STILL, MODEL)
    assert np.isinf(error).all() and not certainty_of(error).any()
    assert np.isfinite(expected_error(0.0, SEEN, np.array([3.0]), MODEL)).all()


def test_certainty_is_the_share_of_errors_below_a_pixel() -> None:
    for rms in (0.3, 1.0, 4.0):
        drawn = np.random.default_rng(0).normal(0.0, rms / math.sqrt(2.0), (200_000, 2))
        share = float((np.hypot(*drawn.T) < 1.0).mean())
        assert float(certainty_of(np.array([rms / RMS_PER_MIDDLE]))[0]) == pytest.approx(share, abs=0.005)
    assert certainty_of(np.array([np.nan, np.inf, 0.0])).tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("engine", ["orientation", "learned"])
def test_every_calibration_tells_how_errors_differ_from_place_to_place(engine: str) -> None:
    local = load_calibration(engine).local  # type: ignore[arg-type]
    near = expected_error(1.0, SEEN, STILL, local)
    far = expected_error(1.0, np.array([0.0]), STILL, local, np.array([1.0]))
    assert far[0] > near[0] > 0
