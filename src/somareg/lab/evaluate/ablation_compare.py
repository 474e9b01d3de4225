"""Two rows of an ablation, sample by sample: which is better, and whether chance explains it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from somareg.types import FloatArray

LOST_PX = 5.0  # two errors beyond it are two failures, neither better than the other
TIE_PX = 0.2  # the labels are not better than that
CLEAR = 2.0  # standard errors


@dataclass(frozen=True)
class Comparison:
    """Samples that a row does better and worse than the full one."""

    better: int
    worse: int

    @property
    def z(self) -> float:
        """Standard errors between the row and "no difference", positive where the row is better.

        The sign test in McNemar's form, with continuity correction: were both alike, each sample that differs would be
        better or worse by the toss of a coin.
        """
        different, gain = self.better + self.worse, self.better - self.worse
        return math.copysign(max(abs(gain) - 1, 0), gain) / math.sqrt(different) if different else 0.0

    @property
    def is_clear(self) -> bool:
        """Whether chance in the choice of samples is an unlikely explanation."""
        return abs(self.z) > CLEAR


def compare(row: FloatArray, full: FloatArray) -> Comparison:
    """Compare errors (n,) in pixels sample by sample; within `TIE_PX`, or both beyond `LOST_PX`, they are alike."""
    gain = np.minimum(full, LOST_PX) - np.minimum(row, LOST_PX)
    return Comparison(int((gain > TIE_PX).sum()), int((gain < -TIE_PX).sum()))


def standard_error(share: float, count: int) -> float:
    """Standard error of a share (0-1) of `count` independent samples."""
    return math.sqrt(share * (1 - share) / count)
