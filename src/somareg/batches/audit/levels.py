"""Robust location of a set of offsets: the level, its sigma, and the scatter between offsets.

Offsets are points in the plane, each with a sigma per axis. The cost of a point is its squared distance in sigmas, but
never above `CAP`: the biweight loss of Fearnhead and Rigaill, "Changepoint detection in the presence of outliers" (JASA
2019), under which one gross outlier costs no more than a mild one.
"""

from __future__ import annotations

import math

import numpy as np

from somareg.types import BoolArray, FloatArray

CAP = 16.0
"""Largest cost of a point in squared sigmas, which one of 3000 normal points in the plane exceeds. Two gross outliers
in a row gain 16 by a level of their own, less than the threshold of a step; three gain enough to be a step."""

_MEDIAN = 2.0 * math.log(2.0)  # median of chi-square with two degrees of freedom
_ROUNDS = 8


def level(values: FloatArray, variance: FloatArray) -> FloatArray:
    """The place (2,) of least capped cost, searched from the weighted median of each axis.

    Args:
        values: (N, 2), N > 0.
        variance: (N,) per axis, above 0.
    """
    weights = 1.0 / variance
    place = np.array([_weighted_median(column, weights) for column in values.T])
    near: BoolArray | None = None
    for _ in range(_ROUNDS):
        now = distance2(values, place, variance) < CAP
        if not now.any() or (near is not None and (now == near).all()):
            break
        near = now
        place = weights[near] @ values[near] / weights[near].sum()
    return place


def distance2(values: FloatArray, place: FloatArray, variance: FloatArray) -> FloatArray:
    """Squared distances (N,) of points to a place (2,), or to one each (N, 2), in sigmas."""
    away: FloatArray = ((values - place) ** 2).sum(axis=1) / variance
    return away


def cost(values: FloatArray, variance: FloatArray) -> float:
    """The cost of a set at its level: the sum of squared distances in sigmas, each capped at `CAP`."""
    return float(np.minimum(distance2(values, level(values, variance), variance), CAP).sum())


def level_sigma(values: FloatArray, variance: FloatArray) -> float:
    """Sigma per axis of the level, from its inliers; larger when they scatter more than their sigmas."""
    away = distance2(values, level(values, variance), variance)
    near = away < CAP
    if not near.any():
        return float(np.sqrt(variance.min()))
    freedom = 2 * (int(near.sum()) - 1)
    scale = max(1.0, float(away[near].sum()) / freedom) if freedom else 1.0
    return math.sqrt(scale / float((1.0 / variance[near]).sum()))


def spread_variance(squared: FloatArray, claimed_variance: FloatArray, sigma: FloatArray) -> tuple[FloatArray, float]:
    """Variance per axis of each offset that explains the scatter, never below that of its own sigma.

    Scatter beyond the sigmas may be the same for all offsets or grow with the sigmas; each offset gets the larger of
    both.

    Args:
        squared: (M,) squared lengths of offsets after subtraction of their level, or `differences2`;
            only medians are used, so that up to half of them may be outliers.
        claimed_variance: (M,) variance per axis of each of them by the sigmas.
        sigma: (N,) of the offsets.

    Returns:
        Variances (N,), and their common part that the sigmas do not explain.
    """
    variance: FloatArray = sigma**2
    if not len(squared):
        return variance, 0.0
    common = max(0.0, float(np.median(squared)) / _MEDIAN - float(np.median(claimed_variance)))
    factor = max(1.0, float(np.median(squared / claimed_variance)) / _MEDIAN)
    return np.maximum(variance + common, factor * variance), common


def differences2(values: FloatArray) -> FloatArray:
    """(N - 1,) half the squared lengths from each offset to the next; a step affects only one of them."""
    away: FloatArray = (np.diff(values, axis=0) ** 2).sum(axis=1) / 2
    return away


def _weighted_median(values: FloatArray, weights: FloatArray) -> float:
    order = np.argsort(values, kind="stable")
    ranked, total = values[order], np.cumsum(weights[order])
    half = total[-1] / 2
    at = int(np.searchsorted(total, half * (1 - 1e-12)))
    if at + 1 < len(ranked) and total[at] <= half * (1 + 1e-12):
        return float(ranked[at] + ranked[at + 1]) / 2
    return float(ranked[at])
