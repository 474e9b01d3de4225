"""Closed lists of words in options and results. This module does without NumPy, because `--help` imports it."""

from __future__ import annotations

from typing import Literal

Modality = Literal["sar", "optical", "multispectral", "nir", "infrared", "depth", "dem", "map", "other"]
SarScale = Literal["auto", "dB", "power", "amplitude", "complex"]
Decision = Literal["go", "review", "no-go"]
ControlMethod = Literal["polynomial", "tps"]
Reports = Literal["all", "problems", "none"]
"""Pairs with a `report.html`: all, those whose verdict is not *go*, or none."""
