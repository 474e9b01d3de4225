"""Names of kinds: modalities, scales, decisions, arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Modality = Literal["sar", "optical", "multispectral", "nir", "infrared", "depth", "dem", "map", "other"]
SarScale = Literal["auto", "dB", "power", "amplitude", "complex"]
Decision = Literal["go", "review", "no-go"]
Reports = Literal["all", "problems", "none"]
"""Whose report.html is written: of every pair, of those whose verdict is not *go*, or of none."""
ControlMethod = Literal["polynomial", "tps"]
Progress = Callable[[str, float], None]
"""Called with a stage's name and the share of work done, 0-1."""

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]
Geotransform = tuple[float, float, float, float, float, float]

HEIGHTS: frozenset[Modality] = frozenset({"depth", "dem"})
"""Two words for one modality: heights above the ground or the sea, and depths below a sensor."""
IDENTITY: Geotransform = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
