"""Closed lists of words: what options take and results hold. No NumPy here, for the command line's help needs them."""

from __future__ import annotations

from typing import Literal

Modality = Literal["sar", "optical", "multispectral", "nir", "infrared", "depth", "dem", "map", "other"]
SarScale = Literal["auto", "dB", "power", "amplitude", "complex"]
Decision = Literal["go", "review", "no-go"]
ControlMethod = Literal["polynomial", "tps"]
Reports = Literal["all", "problems", "none"]
"""Whose report.html is written: of every pair, of those whose verdict is not *go*, or of none."""
