"""Comparison of two rows of an ablation, sample by sample, with its significance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from somareg.types import FloatArray

LOST_PX = 5.0  # two larger errors are both failures and count as equal
TIE_PX = 0.2  # accuracy of the labels
CLEAR = 2.0  # standard errors


@dataclass(frozen=True)
class Comparison:
    """Numbers of samples on which a row is better and worse than the full one."""

    better: int
    worse: int

    @property
    def z(self) -> float:
        """Standard errors between the row and "no difference", positive where the row is better.

        The sign test in McNemar's form, with continuity correction: under equality each differing sample would be
        better or worse with equal probability.
        """
        different, gain = self.better + self.worse, self.better - self.worse
        return math.copysign(max(abs(gain) - 1, 0), gain) / math.sqrt(different) if different else 0.0

    @property
    def is_clear(self) -> bool:
        """Whether the difference is unlikely to come from the choice of samples."""
        return abs(self.z) > CLEAR


def compare(row: FloatArray, full: FloatArray) -> Comparison:
    """Compare errors (n,) in pixels sample by sample; within `TIE_PX`, or both beyond `LOST_PX`, they are equal."""
    gain = np.minimum(full, LOST_PX) - np.minimum(row, LOST_PX)
    return Comparison(int((gain > TIE_PX).sum()), int((gain < -TIE_PX).sum()))


def standard_error(share: float, count: int) -> float:
    """Standard error of a share (0-1) of `count` independent samples."""
    return math.sqrt(share * (1 - share) / count)
