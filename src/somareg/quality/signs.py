"""Features of an alignment that the calibration weighs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from somareg.matching.engine import Alignment
from somareg.types import FloatArray

Figures = Mapping[str, float]

SMALLEST_PX, LARGEST_PX = 0.05, 50.0  # longer lengths carry no more information


def figures_of(alignment: Alignment) -> dict[str, float]:
    """All measured figures that may distinguish right from wrong; lengths in pixels of the pair, NaN when missing."""
    evidence, doubts, flow = alignment.evidence, alignment.doubts, alignment.flow
    local = spread = coverage = 0.0
    unexplained = math.nan
    if flow is not None and flow.field.array.size:
        local = float(np.sqrt(np.square(flow.field.array).sum(0).mean()))
        spread, coverage = float(np.sqrt(np.square(flow.sigma_px).mean())), float(flow.coverage.mean())
        unexplained = flow.unexplained
    return {
        "windows": float(evidence.windows),
        "independent": evidence.independent,
        "zscore": evidence.zscore,
        "sharpness": evidence.sharpness,
        "hit_ratio": evidence.hit_ratio,
        "correlation": evidence.correlation,
        "correlation_before": evidence.correlation_before,
        "seen": evidence.coverage,
        "peak_offset": evidence.peak_offset_px,
        "split_half": alignment.split_half_px,
        "forward_backward": alignment.forward_backward_px,
        "support": alignment.support,
        "likelihood": alignment.likelihood,
        "rival": doubts.rival.height,
        "ridge": doubts.rival.ridge,
        "part": doubts.part.height,
        "second": doubts.second_px,
        "free": doubts.free_px,
        "spread": doubts.spread_px,
        "residual": doubts.residual_px,
        "bend": doubts.bend,
        "turn": doubts.turn_deg,
        "growth": doubts.growth,
        "local": local,
        "local_spread": spread,
        "coverage": coverage,
        "unexplained": unexplained,
    }


def _length(name: str) -> Callable[[Figures], float]:
    """Logarithm of a length; a missing one counts as the longest."""

    def sign(figures: Figures) -> float:
        value = figures[name]
        return math.log(min(max(value, SMALLEST_PX), LARGEST_PX)) if value == value else math.log(LARGEST_PX)

    return sign


def _bounded(name: str, low: float, high: float) -> Callable[[Figures], float]:
    """Clip a figure to two limits; a missing one counts as the upper limit."""

    def sign(figures: Figures) -> float:
        value = figures[name]
        return min(max(value, low), high) if value == value else high

    return sign


SIGNS: Mapping[str, Callable[[Figures], float]] = {
    "zscore": _bounded("zscore", -1.0, 6.0),
    "zscore_windows": lambda f: f["zscore"] * math.log1p(f["windows"]),
    "sharpness": _bounded("sharpness", -1.5, 1.0),
    "hit_ratio": _bounded("hit_ratio", 0.0, 1.0),
    "correlation": _bounded("correlation", -1.0, 1.0),
    "split_half": _length("split_half"),
    "forward_backward": _length("forward_backward"),
    "peak_offset": _bounded("peak_offset", 0.0, 12.0),
    "support": _bounded("support", 0.0, 4.0),
    "likelihood": _bounded("likelihood", -0.5, 4.0),
    "rival": _bounded("rival", 0.0, 2.0),
    "ridge": _bounded("ridge", -0.5, 1.0),
    "second": _length("second"),
    "free": _length("free"),
    "spread": _length("spread"),
    "residual": _length("residual"),
    "bend": _bounded("bend", 0.0, 0.4),
    "turn": _bounded("turn", 0.0, 30.0),
    "growth": _bounded("growth", 0.0, 0.4),
    "independent": lambda f: math.log1p(f["independent"]),
    "local": lambda f: math.log1p(f["local"]),
    "local_spread": lambda f: math.log1p(f["local_spread"]),
    "unexplained": lambda f: math.log(min(max(f["unexplained"], 0.1), 30.0)) if f["unexplained"] > 0 else 0.0,
}
"""The features that the calibration weighs, each computed from the figures of an alignment."""


def vector(figures: Figures) -> FloatArray:
    """(len(SIGNS),) the features in order."""
    return np.array([sign(figures) for sign in SIGNS.values()])
