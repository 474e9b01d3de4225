"""Pictures at different sizes: two of the same frame, and how far one may be reduced."""

from __future__ import annotations

import numpy as np

from somareg.geometry.affine import AffineTransform
from somareg.types import Grid

LEAST_SIDE_PX = 64
"""Least side of a reduced image: a window with its margin, and the least input of a network."""
STRIP_PX = LEAST_SIDE_PX // 2
"""Least shorter side where the longer one has to be short enough: windows get smaller."""


def keep_side(factor: int, *sides: int, least: int = LEAST_SIDE_PX) -> int:
    """The factor of a reduction, or the largest below it that leaves `least` pixels of every side."""
    return max(1, min(factor, min(sides) // least))


def same_proportions(first: Grid, second: Grid) -> bool:
    """Whether the ratios of the sides are equal, allowing one rounded pixel."""
    scale_x, scale_y = second.width / first.width, second.height / first.height
    return abs(scale_x - scale_y) * max(first.width, first.height) <= 1.5


def scaling(first: Grid, second: Grid) -> AffineTransform:
    """Pixel centres of a picture -> pixel centres of the same picture at another size: corners fall on corners."""
    scale = np.array([second.width / first.width, second.height / first.height])
    return AffineTransform(np.column_stack([np.diag(scale), scale / 2 - 0.5]))
