"""Steps in a series of offsets, and offsets that lie off their neighbours.

Steps are looked for by seeded binary segmentation (Kovács, Li, Bühlmann and Munk, Biometrika 2023): the split that
lowers the cost most, in the whole series and in shorter parts of fixed places, so that a step up and a step down do not
hide each other. The cost is capped (see `levels`), so that no few wild scenes make a step.

A split is believed when it lowers the cost by more than noise would: the gain over the mean cost within both sides
follows Fisher's F with 2 and 2 (n - 2) degrees of freedom. That mean is not taken below 1, so that scenes must also
differ by more than their sigmas. `false_alarm` is shared out among all splits that are tried (Bonferroni).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from somareg.batches.audit.levels import cost, differences2, distance2, level, level_sigma, spread_variance
from somareg.types import BoolArray, FloatArray

FALSE_ALARM = 0.01
"""Chance that a series of pure noise shows a step, and chance that it shows an outlier."""
LEAST = 3
"""Offsets on either side of a step."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step between two offsets of a series.

    Attributes:
        index: of the first offset after it.
        before, after: levels (x, y) up to the step before or after this one.
        sigma: of their difference, per axis.
        chance: that noise alone shows so clear a step anywhere in the series, at most.
    """

    index: int
    before: tuple[float, float]
    after: tuple[float, float]
    sigma: float
    chance: float

    @property
    def jump(self) -> tuple[float, float]:
        """From before to after (x, y)."""
        return self.after[0] - self.before[0], self.after[1] - self.before[1]

    @property
    def size(self) -> float:
        """Length of the jump."""
        return math.hypot(*self.jump)


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """What a series shows.

    Attributes:
        steps: in order.
        levels: (N, 2) level at each offset.
        z: (N,) distance of each offset to its level in sigmas, its own and that of the scatter of the series.
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
    """Steps and outliers of a series.

    Args:
        values: (N, 2) offsets, in the order of time.
        sigma: (N,) of each, per axis, above 0.
        in_time: False where the order means nothing: then there are no steps.
        false_alarm: see `FALSE_ALARM`.
    """
    count = len(values)
    if not count:
        return NOTHING
    steps = find_steps(values, sigma, false_alarm=false_alarm) if in_time else ()
    levels = np.empty((count, 2))
    variance, scatter = sigma**2, 0.0
    for _ in range(2):  # the scatter is that around the levels, and the levels weigh by it
        for a, b in _parts(steps, count):
            levels[a:b] = level(values[a:b], variance[a:b])
        squared = ((values - levels) ** 2).sum(axis=1)
        # Offsets that a level was fitted to lie nearer to it than the truth does.
        free = count / max(1, count - len(steps) - 1)
        variance, scatter = spread_variance(squared * free, sigma**2, sigma)
    z = np.sqrt(distance2(values, levels, variance))
    return Course(steps, levels, z, z > outlier_limit(count, false_alarm), math.sqrt(scatter))


def outlier_limit(count: int, false_alarm: float = FALSE_ALARM) -> float:
    """Sigmas that the farthest of `count` normal offsets in the plane passes with a chance of `false_alarm` at most.

    Of fewer than three offsets none is an outlier.
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
    """Steps in their best places between their neighbours; the least likely is dropped until all are believed."""
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
    """The whole series, and parts half, a quarter ... as long that overlap by half, as long as a step fits in."""
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
    """The split of values a to b that lowers the cost most, with the logarithm of its chance in noise."""
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
    """The same of a chain, where each offset is that of a scene against the one before it.

    A jump is an offset beyond noise, around zero: each offset is what the archive moved by. A scene that is off by
    itself makes two jumps, there and back: it is an outlier. All other jumps are steps.

    Args:
        values, sigma: as for `course_of`, in the order of time.
        false_alarm: chance that noise shows a jump.
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
"""The course of no offsets."""
