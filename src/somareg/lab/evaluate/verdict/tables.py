"""Tables on the verdict: every set is judged by a calibration fitted to the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from somareg.config import make_config
from somareg.lab.evaluate.verdict.fit import GOOD_PX, WORTH_PX, Table, left_out, table_of, worst_of
from somareg.lab.evaluate.verdict.observe import Row
from somareg.lab.evaluate.verdict.questions import UNRELATED
from somareg.quality.calibration import Calibration
from somareg.types import BoolArray, FloatArray

FAMILIES = {
    "10 m, SAR and optical": ("ombria", "sen12patches", "sen12scenes", "sih"),
    "other radar satellites": ("multisensor",),
    "VHR": ("vhr", "vhrcity", "vhrpublished"),
    "other modalities": ("crossmodal",),
    "SAR and SAR": ("sar-sar",),
    "ambiguous texture": ("situations",),
}
"""Groups of sets in the tables."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Observations and their verdicts.

    Attributes:
        table: the observations.
        probability, predicted: (N,) of each set by a fit to the others.
        go, review: (N,) decisions.
        ce90: (N,) predicted CE90, pixels.
        worst: (N,) 90 % quantile of the true error over the cells; NaN where unknown.
    """

    table: Table
    probability: FloatArray
    predicted: FloatArray
    go: BoolArray
    review: BoolArray
    ce90: FloatArray
    worst: FloatArray

    @property
    def off(self) -> BoolArray:
        """Related pairs with an error far beyond what *go* promises."""
        return np.asarray(self.table.related & (self.table.error > np.maximum(3.0, 3.0 * self.predicted)))


def judged(rows: Sequence[Row], calibration: Calibration) -> Judged:
    """Judge every set by a fit to the others, with the thresholds of a calibration."""
    table = table_of(rows)
    probability, predicted = left_out(table)
    most = make_config({}).max_error or math.inf
    go = (probability >= calibration.go) & (predicted <= most) & ~table.doubted
    review = ~go & (probability >= calibration.review)
    return Judged(table, probability, predicted, go, review, predicted * calibration.ce90_per_rmse, worst_of(rows))


def bars(result: Judged) -> list[tuple[str, str, str]]:
    """Requirements on the verdict, measured values, and whether they are met."""
    table = result.table
    unrelated, ten = ~table.related, np.isin(table.sets, FAMILIES["10 m, SAR and optical"])
    good = ten & table.related & (table.error < GOOD_PX)
    judged_go = result.go & table.related & table.exact
    ratio = result.predicted[judged_go] / table.error[judged_go]
    near = (ratio > 0.5) & (ratio < 2.0)
    inside = (result.worst <= result.ce90)[judged_go & np.isfinite(result.worst)]
    false = int(result.go[unrelated].sum())
    limit = upper_limit(false, int(unrelated.sum()))
    off = {
        name: _share(result.off, result.go & table.related & np.isin(table.sets, sets))
        for name, sets in FAMILIES.items()
    }
    worth = table.error < WORTH_PX

    def row(what: str, value: str, is_met: bool) -> tuple[str, str, str]:
        return what, value, "met" if is_met else "missed"

    share = _share(result.go, good)
    return [
        row(
            "*go* among unrelated pairs: at most 0.5 %, upper 95 % limit at most 1 %",
            f"{false} of {unrelated.sum()} ({false / max(unrelated.sum(), 1):.2%}, limit {limit:.2%})",
            false <= 0.005 * unrelated.sum() and limit <= 0.01,
        ),
        *(
            row(
                f"*go* off by more than max(3 px, 3 x predicted), {name}: at most 1 %",
                f"{count} of {of}",
                count <= 0.01 * of,
            )
            for name, (count, of) in off.items()
        ),
        row("*go* among pairs below 2 px, 10 m: at least 85 %", _percent(share), share[0] >= 0.85 * share[1]),
        row(
            "predicted error of *go* within a factor 2: at least 80 %",
            f"{near.mean():.1%} of {len(near)}",
            near.mean() >= 0.8,
        ),
        row(
            "true p90 of *go* within the predicted CE90: 85-95 %",
            f"{inside.mean():.1%} of {len(inside)}",
            0.85 <= inside.mean() <= 0.95,
        ),
        row(
            "*review* below 3 px: at least half",
            _percent(_share(worth, result.review)),
            float(worth[result.review].mean() if result.review.any() else 1.0) >= 0.5,
        ),
    ]


def by_set(result: Judged) -> list[tuple[str, ...]]:
    """One line per set: good estimates, *go* decisions, and wrong ones."""
    table = result.table
    lines: list[tuple[str, ...]] = []
    for name in np.unique(table.sets):
        own = table.sets == name
        related, unrelated = own & table.related, own & ~table.related
        good = related & (table.error < GOOD_PX)
        exact = result.go & related & table.exact
        ratio = result.predicted[exact] / table.error[exact]
        near = f"{((ratio > 0.5) & (ratio < 2.0)).mean():.0%}" if len(ratio) else "–"
        lines.append(
            (
                str(name),
                f"{int(good.sum())} of {int(related.sum())}",
                _percent(_share(result.go, good)),
                _counts(_share(result.off, result.go & related)),
                near,
                _counts(_share(result.go, unrelated)),
                _counts(_share(result.review, unrelated)),
            )
        )
    return lines


def by_situation(result: Judged) -> list[tuple[str, ...]]:
    """One line per artefact, for related and unrelated pairs."""
    table = result.table
    lines: list[tuple[str, ...]] = []
    names = sorted(
        {level.removeprefix(f"{UNRELATED}, ") for level in table.levels if level.startswith(f"{UNRELATED}, ")}
    )
    for name in (*names, "repeated", "one direction"):
        related, unrelated = table.levels == name, table.levels == f"{UNRELATED}, {name}"
        good = related & (table.error < GOOD_PX)
        lines.append(
            (
                name,
                f"{int(good.sum())} of {int(related.sum())}",
                _counts(_share(result.go, good)),
                _counts(_share(result.off, result.go & related)),
                _counts(_share(result.go, unrelated)),
            )
        )
    return lines


def upper_limit(count: int, of: int) -> float:
    """Upper 95 % limit of a rate (Clopper and Pearson, one-sided), by bisection on the binomial distribution."""
    low, high = count / max(of, 1), 1.0
    for _ in range(60):
        rate = (low + high) / 2
        logs = [
            math.lgamma(of + 1)
            - math.lgamma(k + 1)
            - math.lgamma(of - k + 1)
            + k * math.log(rate)
            + (of - k) * math.log1p(-rate)
            for k in range(count + 1)
        ]
        low, high = (rate, high) if sum(math.exp(value) for value in logs) > 0.05 else (low, rate)
    return high


def markdown(rows: Sequence[Row], calibration: Calibration) -> str:
    """All tables of an engine."""
    result = judged(rows, calibration)
    parts: list[tuple[tuple[str, ...], Sequence[Sequence[str]]]] = [
        (("asked", "measured", ""), bars(result)),
        (
            (
                "set",
                "below 2 px",
                "of them *go*",
                "*go* that is off",
                "within a factor 2",
                "unrelated *go*",
                "unrelated *review*",
            ),
            by_set(result),
        ),
        (("situation", "below 2 px", "of them *go*", "*go* that is off", "unrelated *go*"), by_situation(result)),
    ]
    return "\n\n".join(_table(head, lines) for head, lines in parts) + "\n"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|".join("---" if i == 0 else "---:" for i in range(len(head)))
    body = ["| " + " | ".join(line) + " |" for line in (head, *lines)]
    return "\n".join([body[0], f"|{rule}|", *body[1:]])


def _share(what: BoolArray, of: BoolArray) -> tuple[int, int]:
    return int((what & of).sum()), int(of.sum())


def _counts(share: tuple[int, int]) -> str:
    return f"{share[0]} of {share[1]}" if share[1] else "–"


def _percent(share: tuple[int, int]) -> str:
    return f"{share[0] / share[1]:.1%} of {share[1]}" if share[1] else "–"
