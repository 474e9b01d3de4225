"""Where the estimate is off, and by how much: the expected error at places of the reference.

The predicted error of a pair is one number for the whole image. Far from every window that matched, and where the local
field is itself uncertain, the error is larger; how much larger is fitted on pairs whose truth is known
(`somareg.lab.evaluate.local_error` gathers the cells).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from somareg.types import FloatArray

SEEN = 0.1
"""Coverage below which a place counts as not seen: no match nearby tells anything of it."""

RMS_PER_MIDDLE = 1.4
"""RMS of the errors at places of which one error is expected, by that error: few are far larger."""

_LEAST_PX = 1e-3  # below any error that can be told; keeps logarithms finite


@dataclass(frozen=True)
class LocalModel:
    """Coefficients of the logarithm of the error at a place; see `expected_error`.

    Attributes:
        constant: of no condition.
        predicted: of the logarithm of the pair's predicted RMSE.
        unseen: of what the windows nearby left uncertain, 1 - coverage.
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
        predicted_px: RMSE that is predicted for the whole pair; inf where nothing was estimated.
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
    """Probability that the error is below 1 px, 0-1, where `error_px` is expected.

    What is expected is the middle of what such places have; chances are told by the RMS, which is larger. Both axes are
    taken to be normal and alike, so that the length follows Rayleigh's distribution. 0 where the error is infinite or
    NaN, that is, where nothing was seen.
    """
    error = np.asarray(error_px, float)
    with np.errstate(over="ignore"):
        certainty: FloatArray = -np.expm1(-1.0 / np.square(np.maximum(RMS_PER_MIDDLE * error, _LEAST_PX)))
    return np.where(np.isfinite(error), certainty, 0.0)
