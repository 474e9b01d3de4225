"""Fit of an engine's calibration to observations: probability, error, thresholds and local error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from somareg.errors import InputError
from somareg.lab.evaluate.verdict.observe import Row
from somareg.quality.ambiguity import is_doubted
from somareg.quality.calibration import Calibration
from somareg.quality.error_map import LocalModel
from somareg.quality.signs import SIGNS, vector
from somareg.types import BoolArray, FloatArray

GOOD_PX = 2.0  # error that counts as success
WORTH_PX = 3.0  # least probability of a "review"
DOUBTFUL_PX = 4.0  # errors up to this may come from an inexact label
LEARNED_PX = 8.0  # larger errors are failures and not used for the error model
GOOD_SHARE = 0.65  # prior: share of users' pairs that can be aligned
LEAST_GO = 0.9
FALSE_GO = 0.003  # target rate among unrelated pairs
RIDGE, ERROR_RIDGE = 0.02, 0.05  # ridge of the success model, and of the error model, which has fewer rows
CELL_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Table:
    """Observations as arrays.

    Attributes:
        sets, levels: (N,) of each.
        signs: (N, len(SIGNS)); zeros when the engine gave up.
        error: (N,) RMSE, pixels; inf for unrelated images and without an estimate.
        related, exact, failed: (N,).
        doubted: (N,) whether a doubt forbids "go" at any probability, see `somareg.quality.ambiguity`.
    """

    sets: NDArray[np.str_]
    levels: NDArray[np.str_]
    signs: FloatArray
    error: FloatArray
    related: BoolArray
    exact: BoolArray
    failed: BoolArray
    doubted: BoolArray

    def __len__(self) -> int:
        return len(self.error)

    def __getitem__(self, chosen: BoolArray) -> Table:
        return Table(**{name: getattr(self, name)[chosen] for name in self.__dataclass_fields__})

    @property
    def good(self) -> BoolArray:
        """Whether the error is small."""
        return np.asarray(self.error < GOOD_PX)

    @property
    def telling(self) -> BoolArray:
        """Whether the label is accurate enough to decide success."""
        doubtful = (self.error >= GOOD_PX) & (self.error < DOUBTFUL_PX)
        return np.asarray(self.exact | ~self.related | ~doubtful)


def table_of(rows: Sequence[Row]) -> Table:
    """Observations as arrays."""
    return Table(
        sets=np.array([row["set"] for row in rows]),
        levels=np.array([row["level"] for row in rows]),
        signs=np.array([vector(row["figures"]) if row["figures"] else np.zeros(len(SIGNS)) for row in rows]),
        error=np.array([math.inf if row["rmse"] is None else row["rmse"] for row in rows]),
        related=np.array([row["related"] for row in rows]),
        exact=np.array([row["exact"] for row in rows]),
        failed=np.array([row["failed"] for row in rows]),
        doubted=np.array([bool(row["figures"]) and is_doubted(row["figures"]) for row in rows]),
    )


def probabilities(table: Table, calibration: Calibration) -> FloatArray:
    """(N,) calibrated probability that the error is below 2 px."""
    logit = table.signs @ np.array(calibration.success[:-1]) + calibration.success[-1]
    return np.where(table.failed, 0.0, 1.0 / (1.0 + np.exp(-np.clip(logit, -30, 30))))


def predictions(table: Table, calibration: Calibration) -> FloatArray:
    """(N,) predicted RMSE, pixels."""
    return np.asarray(np.exp(table.signs @ np.array(calibration.error[:-1]) + calibration.error[-1]))


def fit(rows: Sequence[Row]) -> Calibration:
    """Coefficients and thresholds.

    Thresholds come from probabilities of every set by a fit to the others, because a user's pair is from an
    unseen set.

    Raises:
        InputError: the observations are from several models or an earlier version, or lack successes or failures.
    """
    weights = {row["weights"] for row in rows}
    if len(weights) != 1:
        raise InputError(f"the observations are of {len(weights)} models; observe anew, without --refit")
    try:
        table = table_of(rows)
    except KeyError as error:
        raise InputError(
            f"the observations lack the figure {error}: an earlier version made them; observe anew, in another folder"
        ) from error
    good = table.good & table.telling
    if not good.any() or good.all():
        raise InputError("the observations hold no success or no failure; observe more, without --limit")
    calibration = replace(_coefficients(table), weights=weights.pop())
    probability, predicted = left_out(table)
    go, review = _thresholds(table, probability)
    ratio = worst_of(rows) / predicted
    ratio = ratio[(probability >= go) & table.exact & np.isfinite(ratio)]
    ce90 = float(np.quantile(ratio, 0.9)) if len(ratio) else calibration.ce90_per_rmse
    calibration = replace(calibration, go=go, review=review, ce90_per_rmse=round(ce90, 3))
    return replace(calibration, local=_local(rows, table, calibration))


def worst_of(rows: Sequence[Row]) -> FloatArray:
    """(N,) 90 % quantile of the true error over each pair's cells, pixels; NaN where unknown."""
    return np.array([np.quantile([c[0] for c in row["cells"]], 0.9) if row["cells"] else math.nan for row in rows])


def left_out(table: Table) -> tuple[FloatArray, FloatArray]:
    """(N,) probabilities and (N,) predicted RMSEs, of each set by a fit to all others."""
    probability, predicted = np.zeros(len(table)), np.ones(len(table))
    for name in np.unique(table.sets):
        own = table.sets == name
        others = table[~own]
        if not (others.good.any() and (~others.good).any()):
            others = table
        calibration = _coefficients(others)
        probability[own] = probabilities(table[own], calibration)
        predicted[own] = predictions(table[own], calibration)
    return probability, predicted


def _coefficients(table: Table) -> Calibration:
    labelled = table[table.telling & ~table.failed]
    centre, scale = labelled.signs.mean(0), labelled.signs.std(0) + 1e-9
    design = np.column_stack([(labelled.signs - centre) / scale, np.ones(len(labelled))])
    success = _logistic(design, labelled.good, _balance(labelled))
    raw = Calibration(tuple(_unscale(success, centre, scale)), (0.0,) * len(design[0]), LEAST_GO, LEAST_GO / 3, 1.5)
    likely = probabilities(labelled, raw)
    close = labelled.exact & (labelled.error < LEARNED_PX)
    error = _median_regression(design[close], np.log(labelled.error[close]), 0.05 + likely[close])
    return replace(raw, error=tuple(_unscale(error, centre, scale)))


def _balance(table: Table) -> FloatArray:
    """Weights that give successes their prior share, and large sets little more than small ones."""
    weight = np.ones(len(table))
    for good in (True, False):
        own = table.good == good
        for name in np.unique(table.sets[own]):
            these = own & (table.sets == name)
            weight[these] = 1.0 / math.sqrt(float(these.sum()))
        share = GOOD_SHARE if good else 1 - GOOD_SHARE
        weight[own] *= share * len(table) / max(float(weight[own].sum()), 1e-9)
    return weight


def _logistic(design: FloatArray, good: BoolArray, weight: FloatArray) -> FloatArray:
    """Ridge logistic regression by Newton's method."""
    beta = np.zeros(design.shape[1])
    penalty = RIDGE * len(design) / 4 * np.diag([*np.ones(design.shape[1] - 1), 0.0])
    for _ in range(80):
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -30, 30)))
        gradient = design.T @ (weight * (good - p)) - penalty @ beta
        hessian = (design * (weight * p * (1 - p))[:, None]).T @ design + penalty + 1e-6 * np.eye(len(beta))
        beta = beta + np.clip(np.linalg.solve(hessian, gradient), -2, 2)
    return beta


def _median_regression(design: FloatArray, target: FloatArray, weight: FloatArray) -> FloatArray:
    """Ridge regression of the median by reweighting, robust to gross errors."""
    penalty = ERROR_RIDGE * weight.sum() * np.diag([*np.ones(design.shape[1] - 1), 0.0])
    robust = weight
    for _ in range(20):
        beta: FloatArray = np.linalg.solve(
            (design * robust[:, None]).T @ design + penalty, design.T @ (robust * target)
        )
        robust = weight / np.maximum(np.abs(target - design @ beta), 0.2) * 0.5
    return beta


def _unscale(beta: FloatArray, centre: FloatArray, scale: FloatArray) -> list[float]:
    slope = beta[:-1] / scale
    return [*(float(s) for s in slope), float(beta[-1] - slope @ centre)]


def _thresholds(table: Table, probability: FloatArray) -> tuple[float, float]:
    """Thresholds of the probability for "go" and "review"."""
    unrelated = probability[~table.related]
    go = float(np.quantile(unrelated, 1 - FALSE_GO)) + 0.005 if len(unrelated) else LEAST_GO
    go = min(max(LEAST_GO, go), 0.99)
    worth = table.error < WORTH_PX
    for review in np.arange(0.02, go, 0.02):
        between = (probability >= review) & (probability < go)
        if between.any() and worth[between].mean() >= 0.5:
            return round(go, 4), round(float(review), 4)
    return round(go, 4), round(go / 2, 4)


def _local(rows: Sequence[Row], table: Table, calibration: Calibration) -> LocalModel:
    """Fit the local error model to the cells of pairs with "go" or "review"."""
    probability, predicted = probabilities(table, calibration), predictions(table, calibration)
    x, y = [], []
    for row, p, e, exact in zip(rows, probability, predicted, table.exact, strict=True):
        if p < calibration.review or not exact or row["rmse"] is None or row["rmse"] > LEARNED_PX:
            continue
        for error, coverage, spread, away in row["cells"]:
            x.append([math.log(e), 1.0 - coverage, math.log1p(spread / e), away**2, 1.0])
            y.append(math.log(max(error, 0.03)))
    if len(x) < 50:
        return LocalModel()
    design, target = np.array(x), np.array(y)
    slope = _median_regression(design, target, np.ones(len(design)))
    predicted_by, unseen, spread_by, outward, constant = (float(v) for v in slope)
    return LocalModel(constant, predicted_by, max(unseen, 0.0), max(spread_by, 0.0), max(outward, 0.0))
