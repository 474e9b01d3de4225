"""Steps and outliers in a series of offsets.

Steps are searched by seeded binary segmentation (Kovács, Li, Bühlmann and Munk, Biometrika 2023): the split that
lowers the cost most, in the whole series and in shorter fixed intervals, so that a step up and a step down do not
hide each other. The cost is capped (see `levels`), so that a few outliers make no step.

A split is accepted when it lowers the cost by more than noise would: the gain over the mean cost within both sides
follows Fisher's F with 2 and 2 (n - 2) degrees of freedom. That mean is at least 1, so that scenes must also
differ by more than their sigmas. `false_alarm` is divided among all candidate splits (Bonferroni).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from somareg.batches.audit.levels import cost, differences2, distance2, level, level_sigma, spread_variance
from somareg.types import BoolArray, FloatArray

FALSE_ALARM = 0.01
"""Probability that a series of pure noise shows a step, and that it shows an outlier."""
LEAST = 3
"""Least number of offsets on either side of a step."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step between two offsets of a series.

    Attributes:
        index: of the first offset after it.
        before, after: levels (x, y) between this step and the neighbouring ones.
        sigma: of their difference, per axis.
        chance: upper bound of the probability that noise shows so clear a step anywhere in the series.
    """

    index: int
    before: tuple[float, float]
    after: tuple[float, float]
    sigma: float
    chance: float

    @property
    def jump(self) -> tuple[float, float]:
        """Vector from `before` to `after` (x, y)."""
        return self.after[0] - self.before[0], self.after[1] - self.before[1]

    @property
    def size(self) -> float:
        """Length of `jump`."""
        return math.hypot(*self.jump)


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """Steps, levels and outliers of a series.

    Attributes:
        steps: in order.
        levels: (N, 2) level at each offset.
        z: (N,) distance of each offset to its level in sigmas, from its own sigma and the scatter of the series.
        outliers: (N,) bool.
        scatter: sigma per axis between offsets beyond their own sigmas.
    """

    steps: tuple[Step, ...]
    levels: FloatArray
    z: FloatArray
    outliers: BoolArray
    scatter: float


def course_of(
    values: FloatArray, sigma: FloatArray, *, in_time: bool = True, false_alarm: float = FALSE_ALARM
) -> Course:
    """Find steps and outliers of a series.

    Args:
        values: (N, 2) offsets, in the order of time.
        sigma: (N,) of each, per axis, above 0.
        in_time: False when the order has no meaning, so that there are no steps.
        false_alarm: see `FALSE_ALARM`.
    """
    count = len(values)
    if not count:
        return NOTHING
    steps = find_steps(values, sigma, false_alarm=false_alarm) if in_time else ()
    levels = np.empty((count, 2))
    variance, scatter = sigma**2, 0.0
    for _ in range(2):  # scatter and levels depend on each other, so both are computed in turn
        for a, b in _parts(steps, count):
            levels[a:b] = level(values[a:b], variance[a:b])
        squared = ((values - levels) ** 2).sum(axis=1)
        # Offsets lie closer to a level fitted to them than to the true one.
        free = count / max(1, count - len(steps) - 1)
        variance, scatter = spread_variance(squared * free, sigma**2, sigma)
    z = np.sqrt(distance2(values, levels, variance))
    return Course(steps, levels, z, z > outlier_limit(count, false_alarm), math.sqrt(scatter))


def outlier_limit(count: int, false_alarm: float = FALSE_ALARM) -> float:
    """Sigmas that the farthest of `count` normal offsets in the plane exceeds with probability `false_alarm` at most.

    Fewer than three offsets have no outlier.
    """
    return math.sqrt(2 * math.log(count / false_alarm)) if count >= LEAST else math.inf


def find_steps(values: FloatArray, sigma: FloatArray, *, false_alarm: float = FALSE_ALARM) -> tuple[Step, ...]:
    """Steps of a series with at least `LEAST` offsets on either side; see `course_of`."""
    count = len(values)
    claimed_variance = (sigma[:-1] ** 2 + sigma[1:] ** 2) / 2
    variance, _ = spread_variance(differences2(values), claimed_variance, sigma)
    parts = _seeded(count)
    candidates = sum(b - a - 2 * LEAST + 1 for a, b in parts)
    steps: list[int] = []
    if not candidates:
        return ()
    best = {part: _split(values, variance, *part) for part in parts}
    waiting = [(0, count)]
    while waiting:
        a, b = waiting.pop()
        if b - a < 2 * LEAST:
            continue
        if (a, b) not in best:
            best[a, b] = _split(values, variance, a, b)
        inner = [split for (left, right), split in best.items() if a <= left and right <= b]
        cut = min(inner, key=lambda split: (split.log_chance, split.index))
        if not a + LEAST <= cut.index <= b - LEAST or cut.log_chance > math.log(false_alarm / candidates):
            continue
        steps.append(cut.index)
        waiting += [(a, cut.index), (cut.index, b)]
    return _settled(values, variance, sorted(steps), candidates, false_alarm)


@dataclass(frozen=True, slots=True)
class _Split:
    index: int
    log_chance: float


def _settled(
    values: FloatArray, variance: FloatArray, steps: list[int], candidates: int, false_alarm: float
) -> tuple[Step, ...]:
    """Move each step to its best place between its neighbours, and drop the least likely until all are accepted."""
    splits: list[_Split] = []
    while steps:
        ends = [0, *steps, len(values)]
        splits = [_split(values, variance, ends[i], ends[i + 2]) for i in range(len(steps))]
        worst = max(range(len(splits)), key=lambda i: splits[i].log_chance)
        if splits[worst].log_chance <= math.log(false_alarm / candidates):
            break
        del steps[worst]
    steps = sorted({split.index for split in splits}) if steps else []
    chances = {split.index: min(1.0, candidates * math.exp(split.log_chance)) for split in splits}
    parts = _parts([Step(i, (0, 0), (0, 0), 0, 0) for i in steps], len(values))
    places = [level(values[a:b], variance[a:b]).tolist() for a, b in parts]
    sigmas = [level_sigma(values[a:b], variance[a:b]) for a, b in parts]
    return tuple(
        Step(
            index=index,
            before=(places[i][0], places[i][1]),
            after=(places[i + 1][0], places[i + 1][1]),
            sigma=math.hypot(sigmas[i], sigmas[i + 1]),
            chance=chances[index],
        )
        for i, index in enumerate(steps)
    )


def _parts(steps: tuple[Step, ...] | list[Step], count: int) -> list[tuple[int, int]]:
    return list(pairwise([0, *(step.index for step in steps), count]))


def _seeded(count: int) -> list[tuple[int, int]]:
    """The whole series, and intervals of half, a quarter ... of its length, overlapping by half, while a step fits."""
    parts: list[tuple[int, int]] = []
    length, number = float(count), 1
    while length >= 2 * LEAST:
        shift = (count - length) / max(1, number - 1)
        for i in range(number):
            part = math.floor(i * shift), min(count, math.ceil(i * shift + length))
            if part not in parts:
                parts.append(part)
        length, number = length / 2, 2 * number + 1
    return parts


def _split(values: FloatArray, variance: FloatArray, a: int, b: int) -> _Split:
    """The split of values a to b that lowers the cost most, with the logarithm of its probability in noise."""
    own, spread = values[a:b], variance[a:b]
    whole = cost(own, spread)
    within, index = math.inf, LEAST
    for k in range(LEAST, b - a - LEAST + 1):
        both = cost(own[:k], spread[:k]) + cost(own[k:], spread[k:])
        if both < within:
            within, index = both, k
    freedom = 2 * (b - a - 2)
    gain = max(0.0, whole - within) / max(1.0, within / freedom)
    return _Split(a + index, -0.5 * freedom * math.log1p(gain / freedom))


def jumps(values: FloatArray, sigma: FloatArray, *, false_alarm: float = FALSE_ALARM) -> Course:
    """Steps and outliers of a chain, where each offset is that of a scene against the one before it.

    A jump is an offset beyond noise around zero, because each offset is a movement of the archive. A single scene that
    is off makes two jumps, there and back: it is an outlier. All other jumps are steps.

    Args:
        values, sigma: as for `course_of`, in the order of time.
        false_alarm: probability that noise shows a jump.
    """
    count = len(values)
    zero = np.zeros((count, 2))
    if not count:
        return NOTHING
    variance, scatter = spread_variance((values**2).sum(axis=1), sigma**2, sigma)
    z = np.sqrt(distance2(values, zero, variance))
    limit = outlier_limit(count, false_alarm)
    beyond, back = z > limit, np.zeros(count, bool)
    for i in range(count - 1):
        if beyond[i] and beyond[i + 1] and not back[i]:
            closed = ((values[i] + values[i + 1]) ** 2).sum() / (variance[i] + variance[i + 1])
            back[i + 1] = closed <= limit**2
    there = np.append(back[1:], False)
    steps = tuple(
        Step(
            int(i),
            (0.0, 0.0),
            (float(values[i, 0]), float(values[i, 1])),
            math.sqrt(variance[i]),
            min(1.0, count * math.exp(-0.5 * z[i] ** 2)),
        )
        for i in np.flatnonzero(beyond & ~back & ~there)
    )
    return Course(steps, zero, z, there, math.sqrt(scatter))


NOTHING = Course((), np.zeros((0, 2)), np.zeros(0), np.zeros(0, bool), 0.0)
"""The course of an empty series."""
