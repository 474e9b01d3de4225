"""Findings of an audit: the state of each scene, steps of each series, and differences between kinds of scenes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from somareg.batches.audit.levels import CAP, level, level_sigma
from somareg.batches.audit.names import Facts
from somareg.batches.audit.steps import LEAST, Course, Step, course_of, jumps
from somareg.batches.offsets import Offset
from somareg.types import Decision, FloatArray

Mode = Literal["reference", "consecutive", "pairs"]
"""One reference for all scenes, each date against the one before it, or pairs that should be aligned."""
Unit = Literal["m", "px"]
Finding = Literal["fine", "unsure", "off", "suspect", "unmeasured", "failed", "pending"]

ALL = "all"
"""Name of the series of all scenes."""
_KINDS = ("platform", "orbit", "baseline")


@dataclass(frozen=True)
class SceneRecord:
    """One scene of an audit.

    Attributes:
        name, moving, reference: see `BatchPair`.
        facts: date, platform, orbit and baseline.
        series: name of its series.
        verdict, probability: of the measurement; None without one.
        offset: None for a no-go and for a scene that failed.
        finding: see `finding_of`.
        z: distance to the level of its series in sigmas; None without an offset.
        is_outlier: whether `z` is larger than noise explains.
        error: why it failed, "" otherwise.
    """

    name: str
    moving: str
    reference: str
    facts: Facts
    series: str
    verdict: Decision | None
    probability: float | None
    offset: Offset | None
    finding: Finding
    z: float | None = None
    is_outlier: bool = False
    error: str = ""


@dataclass(frozen=True)
class StepRecord:
    """A step of a series.

    Attributes:
        series: name of the series, `ALL` for that of all scenes.
        last, first: names of the scenes before and after it.
        step: levels, sigma and chance in the unit of the audit.
        changes: of facts at the step, such as "baseline 02.14 to 03.00".
    """

    series: str
    last: str
    first: str
    step: Step
    changes: tuple[str, ...]


@dataclass(frozen=True)
class SeriesRecord:
    """A series in the unit of the audit.

    Attributes:
        name: of the series, `ALL` for that of all scenes.
        scenes: number of measured scenes.
        level: (x, y) of the scenes since the last step; in a chain, the movement per date.
        sigma: of the level, per axis.
        scatter: sigma per axis of the scenes around the levels, without outliers.
    """

    name: str
    scenes: int
    level: tuple[float, float]
    sigma: float
    scatter: float


@dataclass(frozen=True)
class DifferenceRecord:
    """Offset of the scenes of one platform, orbit or baseline relative to those of the most frequent one.

    Attributes:
        kind: "platform", "orbit" or "baseline".
        value, against: the two values.
        scenes: number of scenes with the first.
        offset: their level minus the other's, in the unit of the audit.
        sigma: of the offset, per axis.
        z: length of the offset in sigmas.
    """

    kind: str
    value: str
    against: str
    scenes: int
    offset: tuple[float, float]
    sigma: float
    z: float


def finding_of(verdict: Decision, offset: Offset | None, tolerance_px: float) -> Finding:
    """Classify a pair.

    Its RMS displacement decides: "fine" up to the tolerance; "off" when it exceeds that by more than twice the expected
    error, or then "suspect" when the verdict on the measurement is review; "unsure" between.
    """
    if offset is None:
        return "unmeasured"
    if offset.rms_px <= tolerance_px:
        return "fine"
    if offset.rms_px - 2 * math.sqrt(2.0) * offset.sigma_px <= tolerance_px:
        return "unsure"
    return "off" if verdict == "go" else "suspect"


def unit_of(offsets: Sequence[Offset | None]) -> Unit:
    """Metres when every offset has them, else pixels."""
    measured = [offset for offset in offsets if offset is not None]
    return "m" if measured and all(offset.dx_m is not None for offset in measured) else "px"


def values_of(offsets: Sequence[Offset], unit: Unit) -> tuple[FloatArray, FloatArray]:
    """Offsets (N, 2) and their sigmas (N,) in a unit."""
    rows = [[getattr(offset, f"{name}_{unit}") for name in ("dx", "dy", "sigma")] for offset in offsets]
    table = np.array(rows, np.float64).reshape(-1, 3)
    return table[:, :2], np.maximum(table[:, 2], 1e-9)


def series_name(facts: Facts, column: str) -> str:
    """The series from a table, else platform and orbit; "" when unknown."""
    orbit = f"R{facts.orbit}" if facts.orbit.isdigit() else facts.orbit
    return column or " ".join(filter(None, (facts.platform, orbit)))


def course_in(scenes: Sequence[SceneRecord], unit: Unit, mode: Mode) -> tuple[list[int], Course]:
    """Indices of the measured scenes with a date, or of all measured ones when none has one, and their course."""
    places = [i for i, scene in enumerate(scenes) if scene.offset is not None]
    dated = [i for i in places if scenes[i].facts.date is not None]
    in_time = mode != "pairs"
    order = dated if dated and in_time else places
    values, sigma = values_of([offset for i in order if (offset := scenes[i].offset)], unit)
    if mode == "consecutive":
        return order, jumps(values, sigma)
    return order, course_of(values, sigma, in_time=in_time)


def step_records(scenes: Sequence[SceneRecord], order: list[int], course: Course, series: str) -> list[StepRecord]:
    """The steps of a course with the scenes that they lie between, and what changed there."""
    ends = [0, *(step.index for step in course.steps), len(order)]
    records = []
    for number, step in enumerate(course.steps):
        before = [scenes[i] for i in order[ends[number] : step.index]]
        after = [scenes[i] for i in order[step.index : ends[number + 2]]]
        first = scenes[order[step.index]]
        last = scenes[order[step.index - 1]].name if step.index else first.reference
        records.append(StepRecord(series, last, first.name, step, tuple(_changes(before, after))))
    return records


def _changes(before: list[SceneRecord], after: list[SceneRecord]) -> list[str]:
    """Facts that most scenes share on one side of a step and most lack on the other."""
    changes = []
    for kind in _KINDS:
        usual = [Counter(getattr(scene.facts, kind) for scene in side).most_common(1) for side in (before, after)]
        if all(usual) and usual[0][0][0] != usual[1][0][0]:
            changes.append(f"{kind} {usual[0][0][0] or 'unknown'} to {usual[1][0][0] or 'unknown'}")
    return changes


def series_record(
    name: str, scenes: Sequence[SceneRecord], steps: Sequence[Step], unit: Unit, scatter: float
) -> SeriesRecord:
    """Level since the last step, and scatter around the levels, of measured scenes in their order."""
    values, variance = _weighed([scene.offset for scene in scenes if scene.offset], unit, scatter)
    ends = [0, *(step.index for step in steps), len(values)]
    squared, last = np.zeros(len(values)), slice(0, 0)
    for a, b in pairwise(ends):
        last = slice(a, b)
        squared[last] = ((values[last] - level(values[last], variance[last])) ** 2).sum(axis=1)
    kept = squared / variance < CAP
    free = max(1, 2 * int(kept.sum()) - 2 * (len(steps) + 1))
    x, y = level(values[last], variance[last]).tolist()
    spread = math.sqrt(float(squared[kept].sum()) / free)
    return SeriesRecord(name, len(values), (x, y), level_sigma(values[last], variance[last]), spread)


def differences(scenes: Sequence[SceneRecord], unit: Unit, course: Course) -> list[DifferenceRecord]:
    """Compare each platform, orbit and baseline with at least three scenes with the most frequent one."""
    records = []
    for kind in _KINDS:
        groups: dict[str, list[Offset]] = {}
        for scene in scenes:
            if scene.offset and (value := getattr(scene.facts, kind)):
                groups.setdefault(value, []).append(scene.offset)
        large = sorted((name for name, own in groups.items() if len(own) >= LEAST), key=lambda n: (-len(groups[n]), n))
        places = {name: _weighed(groups[name], unit, course.scatter) for name in large}
        for name in large[1:]:
            (x, y), base = level(*places[name]).tolist(), level(*places[large[0]]).tolist()
            offset = x - base[0], y - base[1]
            sigma = math.hypot(level_sigma(*places[name]), level_sigma(*places[large[0]]))
            z = math.hypot(*offset) / sigma
            records.append(DifferenceRecord(kind, name, large[0], len(groups[name]), offset, sigma, z))
    return records


def _weighed(offsets: Sequence[Offset], unit: Unit, scatter: float) -> tuple[FloatArray, FloatArray]:
    values, sigma = values_of(offsets, unit)
    return values, sigma**2 + scatter**2
