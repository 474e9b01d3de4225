"""The expected error of an estimate at places of the reference.

The predicted error of a pair is one number for the whole image. Far from all matched windows, and where the local
field is itself uncertain, the error is larger; how much larger is fitted on pairs whose truth is known
(`somareg.lab.evaluate.local_error` gathers the cells).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from somareg.types import FloatArray

SEEN = 0.1
"""Coverage below which the error at a place is unknown because no match is near."""

RMS_PER_MIDDLE = 1.4
"""Ratio of the RMS of errors to the expected error at places with the same expectation: few are far larger."""

_LEAST_PX = 1e-3  # below any error that can be predicted; keeps logarithms finite


@dataclass(frozen=True)
class LocalModel:
    """Coefficients of the logarithm of the error at a place; see `expected_error`.

    Attributes:
        constant: the constant term.
        predicted: of the logarithm of the pair's predicted RMSE.
        unseen: of 1 - coverage, the uncertainty that nearby windows left.
        spread: of log(1 + spread / predicted).
        away: of the squared distance from the centre, in half-diagonals: errors of an affine grow outwards.
    """

    constant: float = 0.0
    predicted: float = 1.0
    unseen: float = 0.7
    spread: float = 1.0
    away: float = 0.2


def expected_error(
    predicted_px: float,
    coverage: FloatArray,
    spread_px: FloatArray,
    model: LocalModel,
    away: FloatArray | float = 0.0,
) -> FloatArray:
    """Expected error (N,) at places: length of the 2-D error, reference pixels.

    Args:
        predicted_px: predicted RMSE of the whole pair; inf without an estimate.
        coverage: (N,) 0-1, share of the uncertainty that windows nearby removed.
        spread_px: (N,) standard deviation per axis of the local displacement, reference pixels; 0 without one.
        model: coefficients.
        away: (N,) distance from the centre of the common ground, in half-diagonals of it: 1 in its corners.

    Returns:
        Above 0; inf everywhere where `predicted_px` is not finite.
    """
    coverage, spread = np.asarray(coverage, float), np.asarray(spread_px, float)
    if not np.isfinite(predicted_px):
        return np.full(coverage.shape, np.inf)
    predicted = max(float(predicted_px), _LEAST_PX)
    logarithm = model.constant + model.predicted * np.log(predicted)
    logarithm = logarithm + model.unseen * (1.0 - coverage) + model.spread * np.log1p(spread / predicted)
    error: FloatArray = np.exp(logarithm + model.away * np.square(away))
    return error


def certainty_of(error_px: FloatArray) -> FloatArray:
    """Probability, 0-1, that the error is below 1 px where `error_px` is expected.

    The expected error is the median over such places; probabilities need the RMS, which is larger. Both axes are
    assumed normal with equal variance, so that the length follows Rayleigh's distribution. 0 where the error is
    infinite or NaN, that is unknown.
    """
    return chance_below(1.0, error_px)


def chance_below(limit_px: float, error_px: FloatArray | float) -> FloatArray:
    """Probability, 0-1, that the error is below `limit_px` where `error_px` is expected; see `certainty_of`."""
    error = np.asarray(error_px, float)
    with np.errstate(over="ignore"):
        chance: FloatArray = -np.expm1(-np.square(limit_px / np.maximum(RMS_PER_MIDDLE * error, _LEAST_PX)))
    return np.where(np.isfinite(error), chance, 0.0)
