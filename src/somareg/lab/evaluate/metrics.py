"""Errors of a displacement against the truth, and statistics of such errors.

A method without an estimate has an infinite error, which counts in every figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from somareg.types import BoolArray, FloatArray

THRESHOLDS: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0, 5.0)
TIE_PX, LOST_PX = 0.2, 5.0  # of a paired comparison: accuracy of labels; two larger errors are both failures
MIN_GROUPS = 5  # fewer places cannot show the spread between places
_POINTS_PER_AXIS = 16  # lattice of check points per pair for CE90


def true_displacement(
    matrix: FloatArray, shape: tuple[int, int], warp: FloatArray | None = None
) -> NDArray[np.float64]:
    """(2, H, W) displacement of `matrix @ (x + warp(x))` on the reference grid, pixels.

    Args:
        matrix: (2, 3) affine to moving pixel centres.
        shape: (H, W) of the reference.
        warp: (2, H, W) displacement before the matrix, or None.
    """
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    u, v = (cols, rows) if warp is None else (cols + warp[0], rows + warp[1])
    x = matrix[0, 0] * u + matrix[0, 1] * v + matrix[0, 2]
    y = matrix[1, 0] * u + matrix[1, 1] * v + matrix[1, 2]
    return np.stack([x - cols, y - rows])


def point_errors(
    displacement: NDArray[np.float32] | None,
    truth: FloatArray,
    shape: tuple[int, int],
    *,
    moving_shape: tuple[int, int] | None = None,
    reference_mask: BoolArray | None = None,
    moving_mask: BoolArray | None = None,
) -> FloatArray:
    """Distance to the truth at every reference pixel of the valid overlap.

    Args:
        displacement: (2, H, W) pixels (dx, dy), or None for a failure.
        truth: (2, 3) affine, reference to moving pixel centres, or (2, H, W) displacement.
        shape: (H, W) of the reference.
        moving_shape: of the moving image; None: the same.
        reference_mask, moving_mask: True where the image holds data; None: everywhere.

    Returns:
        (H, W) pixels; NaN outside the overlap (the reference has no data, or the true position lies outside the moving
        frame or beside its data), infinite where the estimate is missing or not finite.
    """
    height, width = moving_shape or shape
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    field = truth if np.ndim(truth) == 3 else true_displacement(truth, shape)
    x, y = cols + field[0], rows + field[1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    if reference_mask is not None:
        inside &= reference_mask
    if moving_mask is not None:
        inside[inside] = moving_mask[np.rint(y[inside]).astype(int), np.rint(x[inside]).astype(int)]
    if displacement is None:
        error = np.full(shape, np.inf)
    else:
        error = np.hypot(cols + displacement[0] - x, rows + displacement[1] - y)
        error[~np.isfinite(error)] = np.inf
    masked: FloatArray = np.where(inside, error, np.nan)
    return masked


def rmse(errors: FloatArray) -> float:
    """Root mean square of `point_errors` over the overlap, pixels; infinite for a failure or an empty overlap."""
    valid = errors[~np.isnan(errors)]
    return float(np.sqrt(np.mean(valid**2))) if valid.size else float("inf")


def check_points(errors: FloatArray) -> FloatArray:
    """(N,) errors on a regular lattice of the overlap, the points of a pair for the pooled CE90."""
    height, width = errors.shape
    rows = np.linspace(0, height - 1, _POINTS_PER_AXIS).round().astype(int)
    cols = np.linspace(0, width - 1, _POINTS_PER_AXIS).round().astype(int)
    lattice = errors[np.ix_(rows, cols)].ravel()
    valid: FloatArray = lattice[~np.isnan(lattice)]
    return valid


def cmr(rmses: FloatArray, threshold: float) -> float:
    """Correct match rate: share of pairs whose RMSE is below `threshold` pixels, 0-1."""
    return float(np.mean(np.asarray(rmses) < threshold))


def cmr_interval(
    rmses: FloatArray, threshold: float, groups: Sequence[str] | None = None, *, seed: int = 0, draws: int = 2000
) -> tuple[float, float]:
    """95 % bootstrap interval of `cmr`.

    Args:
        rmses: (N,) pixels.
        threshold: pixels.
        groups: place of each pair. Samples of one place are not independent, so whole places are resampled when there
            are at least `MIN_GROUPS`; with fewer, samples are resampled and the interval is about these places only.
        seed: of the draws.
        draws: bootstrap repetitions.
    """
    hits = (np.asarray(rmses) < threshold).astype(float)
    rng = np.random.default_rng(seed)
    labels = np.unique(np.asarray(groups), return_inverse=True)[1] if groups is not None else np.arange(len(hits))
    if len(np.unique(labels)) < MIN_GROUPS:
        labels = np.arange(len(hits))
    sums, sizes = np.bincount(labels, hits), np.bincount(labels)
    picks = rng.integers(0, len(sizes), (draws, len(sizes)))
    rates = sums[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(low), float(high)


def auc(rmses: FloatArray, limit: float = 5.0) -> float:
    """Area under the CMR curve from 0 to `limit` pixels, divided by `limit`: 1 is perfect.

    The curve is a staircase, so the integral is exact: each pair contributes the part of the axis above its error.
    """
    return float(np.mean(np.clip(1.0 - np.asarray(rmses, float) / limit, 0.0, 1.0)))


def quantile(values: FloatArray, share: float) -> float:
    """Smallest value that at least `share` of the values do not exceed (infinities allowed)."""
    ordered = np.sort(np.asarray(values, float))
    index = int(np.ceil(share * len(ordered) - 1e-9)) - 1
    return float(ordered[max(index, 0)])


def ce90(points: Sequence[FloatArray]) -> float:
    """Circular error 90 %: radius in pixels that contains 90 % of all check points of all pairs."""
    return quantile(np.concatenate(points), 0.9)


def auroc(scores: FloatArray, success: NDArray[np.bool_]) -> float | None:
    """Probability that a success has a higher score than a failure (ties count half); None without both kinds."""
    scores, success = np.asarray(scores, float), np.asarray(success, bool)
    good, bad = scores[success], scores[~success]
    if not good.size or not bad.size:
        return None
    wins = (good[:, None] > bad[None]).mean() + 0.5 * (good[:, None] == bad[None]).mean()
    return float(wins)


def go_rates(decisions: Sequence[str | None], rmses: FloatArray, *, good_px: float = 2.0) -> dict[str, float] | None:
    """Rates of the decisions; None for a method without decisions.

    Returns:
        go: share of pairs that got "go"; go_of_good: share of pairs below `good_px` that got it; false_go: share of
        the "go" pairs that are not below `good_px` (0 when there is no "go").
    """
    if all(decision is None for decision in decisions):
        return None
    go = np.array([decision == "go" for decision in decisions])
    good = np.asarray(rmses) < good_px
    return {
        "go": float(go.mean()),
        "go_of_good": float(go[good].mean()) if good.any() else 0.0,
        "false_go": float((~good[go]).mean()) if go.any() else 0.0,
    }


def within_factor(predicted: FloatArray, truth: FloatArray, factor: float = 2.0) -> float | None:
    """Share of predicted errors within `factor` of the true one; None without any."""
    predicted, truth = np.asarray(predicted, float), np.asarray(truth, float)
    if not predicted.size:
        return None
    return float(np.mean((predicted <= factor * truth) & (predicted >= truth / factor)))


def paired_signs(rmses: FloatArray, reference: FloatArray) -> FloatArray:
    """Compare errors with those of a reference, sample by sample.

    Args:
        rmses, reference: (n,) pixels of the same samples, infinite for a failure.

    Returns:
        (n,) 1 where the error is smaller than the reference's by more than `TIE_PX`, -1 where larger, else 0; errors
        beyond `LOST_PX` are equal.
    """
    gain = np.minimum(reference, LOST_PX) - np.minimum(rmses, LOST_PX)
    found: FloatArray = np.sign(gain) * (np.abs(gain) > TIE_PX)
    return found


def sign_test(found: FloatArray, places: Sequence[str]) -> tuple[int, int, float]:
    """(better, worse, z) of `paired_signs` (n,): z is 0 without a difference, positive where more is better.

    Samples of one place, and one sample under several seeds, depend on each other, so each place enters with the sum of
    its signs. With one sample per place this is the sign test with continuity correction (McNemar).
    """
    sums = np.bincount(np.unique(places, return_inverse=True)[1], found)
    total, scale = float(sums.sum()), math.sqrt(float((sums**2).sum()))
    z = math.copysign(max(abs(total) - 1.0, 0.0), total) / scale + 0.0 if scale else 0.0
    return int((found > 0).sum()), int((found < 0).sum()), z
