"""Two pictures of the same frame at different sizes."""

from __future__ import annotations

import numpy as np

from somareg.geometry.affine import AffineTransform
from somareg.types import Grid


def same_proportions(first: Grid, second: Grid) -> bool:
    """Whether the ratios of the sides are equal, allowing one rounded pixel."""
    scale_x, scale_y = second.width / first.width, second.height / first.height
    return abs(scale_x - scale_y) * max(first.width, first.height) <= 1.5


def scaling(first: Grid, second: Grid) -> AffineTransform:
    """Pixel centres of a picture -> pixel centres of the same picture at another size: corners fall on corners."""
    scale = np.array([second.width / first.width, second.height / first.height])
    return AffineTransform(np.column_stack([np.diag(scale), scale / 2 - 0.5]))
