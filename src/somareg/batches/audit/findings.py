"""The findings of an audit: offsets of scenes, the course of each series, differences between kinds of scenes."""

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
"""One reference for all, each date against the one before it, or pairs that are said to be aligned."""
Unit = Literal["m", "px"]
Finding = Literal["fine", "unsure", "off", "suspect", "unmeasured", "failed", "pending"]

ALL = "all"
"""What the series of all scenes is called."""
_KINDS = ("platform", "orbit", "baseline")


@dataclass(frozen=True)
class SceneRecord:
    """One scene of an audit.

    Attributes:
        name, moving, reference: see `BatchPair`.
        facts: date, platform, orbit and baseline.
        series: that it belongs to.
        verdict, probability: on the measurement; None where there is none.
        offset: None where the verdict is no-go, and where nothing could be done.
        finding: see `finding_of`.
        z: sigmas that it lies off the level of its series; None without an offset.
        is_outlier: more than noise would put any.
        error: why it failed; "" else.
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
        series: it is one of, `ALL` for that of all scenes.
        last, first: names of the scenes before and after it.
        step: levels, sigma and chance in the unit of the audit.
        changes: what is different after it, as in "baseline 02.14 to 03.00".
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
        name: of it, `ALL` for that of all scenes.
        scenes: measured.
        level: of the scenes since its last step (x, y); in a chain, what each date moves by.
        sigma: of the level, per axis.
        scatter: sigma per axis of the scenes around the levels, outliers left out.
    """

    name: str
    scenes: int
    level: tuple[float, float]
    sigma: float
    scatter: float


@dataclass(frozen=True)
class DifferenceRecord:
    """How scenes of one platform, orbit or baseline lie against those of the one with most scenes.

    Attributes:
        kind: "platform", "orbit" or "baseline".
        value, against: the two.
        scenes: of the first.
        offset: their level minus the other's, in the unit of the audit.
        sigma: of that, per axis.
        z: its length in sigmas.
    """

    kind: str
    value: str
    against: str
    scenes: int
    offset: tuple[float, float]
    sigma: float
    z: float


def finding_of(verdict: Decision, offset: Offset | None, tolerance_px: float) -> Finding:
    """The finding on a pair.

    Its RMS displacement decides: "fine" up to the tolerance; "off" where it is above it by more than twice the expected
    error, or "suspect" where the measurement itself wants a look; "unsure" between.
    """
    if offset is None:
        return "unmeasured"
    if offset.rms_px <= tolerance_px:
        return "fine"
    if offset.rms_px - 2 * math.sqrt(2.0) * offset.sigma_px <= tolerance_px:
        return "unsure"
    return "off" if verdict == "go" else "suspect"


def unit_of(offsets: Sequence[Offset | None]) -> Unit:
    """Metres where every offset has them, else pixels."""
    known = [offset for offset in offsets if offset is not None]
    return "m" if known and all(offset.dx_m is not None for offset in known) else "px"


def values_of(offsets: Sequence[Offset], unit: Unit) -> tuple[FloatArray, FloatArray]:
    """Offsets (N, 2) and their sigmas (N,) in a unit."""
    rows = [[getattr(offset, f"{name}_{unit}") for name in ("dx", "dy", "sigma")] for offset in offsets]
    table = np.array(rows, np.float64).reshape(-1, 3)
    return table[:, :2], np.maximum(table[:, 2], 1e-9)


def series_name(facts: Facts, said: str) -> str:
    """What a table says, else platform and orbit; "" where neither is known."""
    orbit = f"R{facts.orbit}" if facts.orbit.isdigit() else facts.orbit
    return said or " ".join(filter(None, (facts.platform, orbit)))


def course_in(scenes: Sequence[SceneRecord], unit: Unit, mode: Mode) -> tuple[list[int], Course]:
    """Indices of the measured scenes that stand in time, or of all measured ones where none does, and their course."""
    measured = [i for i, scene in enumerate(scenes) if scene.offset is not None]
    dated = [i for i in measured if scenes[i].facts.date is not None]
    in_time = mode != "pairs"
    chosen = dated if dated and in_time else measured
    values, sigma = values_of([offset for i in chosen if (offset := scenes[i].offset)], unit)
    if mode == "consecutive":
        return chosen, jumps(values, sigma)
    return chosen, course_of(values, sigma, in_time=in_time)


def step_records(scenes: Sequence[SceneRecord], chosen: list[int], course: Course, series: str) -> list[StepRecord]:
    """The steps of a course with the scenes that they lie between, and what changed there."""
    ends = [0, *(step.index for step in course.steps), len(chosen)]
    records = []
    for number, step in enumerate(course.steps):
        before = [scenes[i] for i in chosen[ends[number] : step.index]]
        after = [scenes[i] for i in chosen[step.index : ends[number + 2]]]
        first = scenes[chosen[step.index]]
        last = scenes[chosen[step.index - 1]].name if step.index else first.reference
        records.append(StepRecord(series, last, first.name, step, tuple(_changes(before, after))))
    return records


def _changes(before: list[SceneRecord], after: list[SceneRecord]) -> list[str]:
    """What most scenes have on one side and most do not on the other."""
    found = []
    for kind in _KINDS:
        usual = [Counter(getattr(scene.facts, kind) for scene in side).most_common(1) for side in (before, after)]
        if all(usual) and usual[0][0][0] != usual[1][0][0]:
            found.append(f"{kind} {usual[0][0][0] or 'unknown'} to {usual[1][0][0] or 'unknown'}")
    return found


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
    """Each platform, orbit and baseline of at least three scenes against the one with most of them."""
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
