"""Type aliases of arrays, and the words of `somareg.choices`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.choices import ControlMethod, Decision, Modality, Reports, SarScale

__all__ = [
    "HEIGHTS",
    "IDENTITY",
    "BoolArray",
    "ControlMethod",
    "Decision",
    "FloatArray",
    "Geotransform",
    "Modality",
    "Progress",
    "Reports",
    "SarScale",
]

Progress = Callable[[str, float], None]
"""Called with a stage's name and the share of work done, 0-1."""

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]
Geotransform = tuple[float, float, float, float, float, float]

HEIGHTS: frozenset[Modality] = frozenset({"depth", "dem"})
"""Two words for one modality: heights above the ground or the sea, and depths below a sensor."""
IDENTITY: Geotransform = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
