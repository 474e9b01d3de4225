"""The results of `diagnose`: JSON-ready numbers and alarms."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor

from somareg.report.plain import plain

MOST_REFUSED = 0.2  # share of refused fits that raises an alarm
WORST_CONDITION = 1e5  # median condition number that raises one


@dataclass(frozen=True)
class Spread:
    """Distribution of a quantity: `count` values, mean and quantiles (5, 25, 50, 75, 95 %) and the largest."""

    count: int
    mean: float
    q05: float
    q25: float
    median: float
    q75: float
    q95: float
    largest: float

    @classmethod
    def of(cls, values: Tensor) -> Spread:
        """The distribution of a tensor; NaN counts as infinite, because it is a failure. All NaN without values."""
        flat = values.detach().double().flatten().cpu().nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
        if not len(flat):
            return cls(0, *[math.nan] * 7)
        ordered = flat.sort().values
        # Nearest ranks: interpolation beside an infinite value would give NaN.
        ranks = [min(len(flat) - 1, round(share * (len(flat) - 1))) for share in (0.05, 0.25, 0.5, 0.75, 0.95)]
        low, quarter, middle, three_quarters, high = (float(ordered[rank]) for rank in ranks)
        mean, largest = float(flat.mean()), float(ordered[-1])
        return cls(len(flat), mean, low, quarter, middle, three_quarters, high, largest)


@dataclass(frozen=True)
class StageError:
    """RMS error (pixels) of the estimate after a stage; "start" is the identity, "local flow" the final map."""

    name: str
    error_px: Spread


@dataclass(frozen=True)
class Attention:
    """Weights of one attention map, 0-1.

    Attributes:
        name: module and kind. "channel" and "spatial" are FGE's gates; "entropy" is that of the coarse attention,
            relative to looking everywhere alike.
        weight: distribution of the weights.
        alarm: "collapsed" towards zero, "open" when everything passes, else None.
    """

    name: str
    weight: Spread
    alarm: str | None


@dataclass(frozen=True)
class AffineHealth:
    """Fitted affines after a stage.

    Attributes:
        name: of the stage.
        condition: condition number of the fit's normal matrix.
        determinant: change of area.
        deviation: Frobenius distance of the linear part from the identity.
        refused: share of fits that were refused, 0-1.
        diverged: share of affines that are not finite, mirror, or change areas more than fourfold, 0-1.
    """

    name: str
    condition: Spread
    determinant: Spread
    deviation: Spread
    refused: float
    diverged: float


@dataclass(frozen=True)
class Similarity:
    """Mean cosine similarity of features of the two images.

    Attributes:
        name: "before FGE 1/2", "after FGE 1/2", "matched 1/2" and so on.
        corresponding: of features of the same ground.
        control: of features of different ground in the same images.
        points: number of correspondences.
    """

    name: str
    corresponding: float
    control: float
    points: int


@dataclass(frozen=True)
class Diagnosis:
    """All results of `diagnose`; see the parts.

    Attributes:
        samples: pairs.
        stages, attention, affine, similarity: the parts.
        error_px: final RMS error of each pair.
        inconsistency_px: forward-backward inconsistency of each pair, RMS.
        alarms: findings that need action, one sentence each.
    """

    samples: int
    stages: tuple[StageError, ...]
    attention: tuple[Attention, ...]
    affine: tuple[AffineHealth, ...]
    similarity: tuple[Similarity, ...]
    error_px: tuple[float, ...]
    inconsistency_px: tuple[float, ...]
    alarms: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; non-finite values become None."""
        record: dict[str, Any] = plain(dataclasses.asdict(self))
        return record


def find_alarms(
    stages: Sequence[StageError],
    attention: Sequence[Attention],
    affine: Sequence[AffineHealth],
    similarity: Sequence[Similarity],
) -> tuple[str, ...]:
    """One sentence for each finding that needs action."""
    alarms = [
        f"{after.name}: the median error grows from {before.error_px.median:.2f} to {after.error_px.median:.2f} px"
        for before, after in pairwise(stages)
        if after.error_px.median > 1.1 * before.error_px.median + 0.05  # beyond chance
    ]
    alarms += [f"{a.name}: attention is {a.alarm} (mean {a.weight.mean:.3f})" for a in attention if a.alarm]
    for health in affine:
        if health.refused > MOST_REFUSED:
            alarms.append(f"{health.name}: {health.refused:.0%} of the affine fits were refused")
        if health.diverged > 0:
            alarms.append(f"{health.name}: {health.diverged:.0%} of the affines diverged")
        if health.condition.median > WORST_CONDITION:
            alarms.append(f"{health.name}: fits are ill-conditioned (median {health.condition.median:.1e})")
    alarms += [
        f"{s.name}: features of the same ground are no more alike than others ({s.corresponding:.3f}, {s.control:.3f})"
        for s in similarity
        if s.name.startswith("matched") and s.points and not s.corresponding > s.control + 0.01
    ]
    return tuple(alarms)
