"""Figures of a diagnosis as PNG bytes, drawn from its numbers alone; nothing touches matplotlib's global state."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from somareg.lab.evaluate.diagnosis import Diagnosis, Spread, grows, is_ill
from somareg.report.style import LIGHT, NORMAL, SMALL, Theme, add_axes, label, legend, message, new_figure, png

_WIDTH, _LEFT, _RIGHT, _BOTTOM, _TOP = 7.2, 0.8, 0.15, 0.55, 0.4
_ROW = 0.26  # inches per horizontal bar
_SPREAD = "dot: median, bar: middle half, line: 5-95 %"


def diagnosis_figures(diagnosis: Diagnosis, theme: Theme = LIGHT) -> dict[str, bytes]:
    """All figures: "stages", "attention", "affine", "consistency", "similarity" -> PNG."""
    draw: dict[str, Callable[[Diagnosis, Theme], Figure]] = {
        "stages": stages_figure,
        "attention": attention_figure,
        "affine": affine_figure,
        "consistency": consistency_figure,
        "similarity": similarity_figure,
    }
    return {name: png(figure(diagnosis, theme)) for name, figure in draw.items()}


def stages_figure(diagnosis: Diagnosis, theme: Theme = LIGHT) -> Figure:
    """Registration error after each stage on a logarithmic axis; stages that make it worse in the second colour."""
    stages = diagnosis.stages
    figure, axes = _canvas(theme, 3.4, f"Error after each stage, {diagnosis.samples} pairs", _SPREAD, bottom=0.35)
    worse = [number > 0 and grows(stages[number - 1], stage) for number, stage in enumerate(stages)]
    _spreads(axes, theme, [stage.name for stage in stages], [stage.error_px for stage in stages], worse)
    axes.axhline(1.0, color=theme.muted, linewidth=0.8, linestyle="--", zorder=0)
    label(axes, theme, "", "RMS error (px)")
    return figure


def affine_figure(diagnosis: Diagnosis, theme: Theme = LIGHT) -> Figure:
    """Condition number of each stage's fit, with the shares of refused and diverged fits in words."""
    figure, axes = _canvas(theme, 3.4, "Affine fits: condition number of the normal matrix", _SPREAD, bottom=0.75)
    names = [f"{a.name}\nrefused {a.refused:.0%}\ndiverged {a.diverged:.0%}" for a in diagnosis.affine]
    ill = [is_ill(a) for a in diagnosis.affine]
    _spreads(axes, theme, names, [health.condition for health in diagnosis.affine], ill)
    label(axes, theme, "", "condition number")
    return figure


def attention_figure(diagnosis: Diagnosis, theme: Theme = LIGHT) -> Figure:
    """Distribution of every attention map; those with an alarm in the second colour."""
    maps = diagnosis.attention
    height = max(1, len(maps)) * _ROW + _BOTTOM + _TOP + 0.1
    figure, axes = _canvas(theme, height, "Attention gates", _SPREAD, left=2.5)
    if not maps:
        return _nothing(figure, axes, theme, "no attention in this network")
    axes.axvline(0.5, color=theme.muted, linewidth=0.8, linestyle=":", zorder=0)
    for row, attention in enumerate(maps):
        w, colour = attention.weight, theme.alert if attention.alarm else theme.accent
        axes.plot([w.q05, w.q95], [row, row], color=colour, linewidth=1.2, solid_capstyle="butt")
        axes.plot([w.q25, w.q75], [row, row], color=colour, linewidth=6, solid_capstyle="butt")
        axes.plot([w.median], [row], "o", color=theme.paper, markersize=5, markeredgecolor=colour, markeredgewidth=1.4)
    names = [short_name(attention.name) + (f": {attention.alarm}" if attention.alarm else "") for attention in maps]
    axes.set_yticks(range(len(maps)), names, fontsize=SMALL - 1)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(len(maps) - 0.4, -0.6)
    label(axes, theme, "weight 0-1; entropy: 0 one token, 1 all alike", "")
    return figure


def short_name(name: str) -> str:
    """`encoder.branches.sar.enhancers.2.channel` -> `FGE sar 1/2 channel`, and the like; others stay."""
    name = re.sub(r"^encoder\.branches\.(\w+)\.enhancers\.(\d+)\.", r"FGE \1 1/\2 ", name)
    name = re.sub(r"^glam\.coarse\.own\.(\d+)\.", r"coarse, self \1: ", name)
    return re.sub(r"^glam\.coarse\.cross\.(\d+)\.", r"coarse, cross \1: ", name)


def consistency_figure(diagnosis: Diagnosis, theme: Theme = LIGHT) -> Figure:
    """Forward-backward inconsistency of each pair against its true error: does it tell the failures?"""
    figure, axes = _canvas(theme, 4.2, "Forward and backward: does it reveal the failures?", "one dot a pair")
    points = np.array([diagnosis.error_px, diagnosis.inconsistency_px], float)
    finite = np.isfinite(points).all(0)
    if not finite.any():
        return _nothing(figure, axes, theme, "no pair with a finite error")
    error, returned = np.maximum(points[:, finite], 1e-3)
    low, high = min(error.min(), returned.min()) / 1.3, max(error.max(), returned.max()) * 1.3
    axes.plot([low, high], [low, high], color=theme.muted, linewidth=0.8)
    axes.plot(error, returned, "o", color=theme.accent, markersize=5, alpha=0.6, markeredgewidth=0)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    for axis in (axes.xaxis, axes.yaxis):
        _plain_ticks(axis, theme)
    failures = int((~finite).sum())
    beyond = f" ({failures} not finite left out)" if failures else ""
    label(axes, theme, f"true RMS error (px){beyond}", "forward and backward, RMS (px)")
    return figure


def similarity_figure(diagnosis: Diagnosis, theme: Theme = LIGHT) -> Figure:
    """Mean cosine similarity of features that show the same ground, beside that of others."""
    views = diagnosis.similarity
    height = 2 * max(1, len(views)) * _ROW + 0.35 + _TOP
    figure, axes = _canvas(theme, height, "Features of the two images: mean cosine similarity", left=1.35, bottom=0.35)
    if not views:
        return _nothing(figure, axes, theme, "no features to compare")
    rows = np.arange(len(views))
    sides = ((-0.2, theme.accent, "same ground"), (0.2, theme.alert, "other ground"))
    for (offset, colour, text), values in zip(
        sides, ([v.corresponding for v in views], [v.control for v in views]), strict=True
    ):
        bars = axes.barh(rows + offset, values, 0.38, color=colour, label=text)
        labels = [f"{value:.3f}" if math.isfinite(value) else "none" for value in values]
        axes.bar_label(bars, labels, padding=3, fontsize=SMALL - 1.5, color=theme.ink)
    axes.axvline(0.0, color=theme.muted, linewidth=0.8)
    axes.margins(x=0.12)
    axes.set_yticks(rows, [v.name for v in views])
    axes.set_ylim(len(views) - 0.4, -0.6)
    handles, _ = axes.get_legend_handles_labels()
    corner = (1 - _RIGHT / _WIDTH, 1.0)
    legend(figure, theme, handles, loc="upper right", bbox_to_anchor=corner, ncols=2, frameon=False, borderaxespad=0.1)
    return figure


def _canvas(
    theme: Theme, height: float, title: str, key: str = "", left: float = _LEFT, bottom: float = _BOTTOM
) -> tuple[Figure, Axes]:
    """Axes under a title, with the key to its signs on the right."""
    figure = new_figure(theme, (_WIDTH, height))
    line = 1 - 0.1 / height
    figure.text(0.1 / _WIDTH, line, title, color=theme.ink, fontsize=NORMAL, va="top")
    figure.text(1 - _RIGHT / _WIDTH, line, key, color=theme.ink, fontsize=SMALL - 1, va="top", ha="right")
    return figure, add_axes(figure, theme, (left, bottom, _WIDTH - left - _RIGHT, height - bottom - _TOP))


def _spreads(axes: Axes, theme: Theme, names: Sequence[str], spreads: Sequence[Spread], marked: Sequence[bool]) -> None:
    """Quantiles as vertical bars on a logarithmic axis; infinite ones reach the top, `marked` in the second colour."""
    positive = [v for s in spreads for v in (s.q05, s.q25, s.median, s.q75, s.q95) if math.isfinite(v) and v > 0]
    if not positive:
        message(axes, theme, "nothing finite to draw")
        return
    low, high = min(positive) / 1.5, max(positive) * 1.5

    def place(value: float) -> float:
        return high if math.isnan(value) else min(max(value, low), high)

    for x, (s, alert) in enumerate(zip(spreads, marked, strict=True)):
        colour = theme.alert if alert else theme.accent
        axes.plot([x, x], [place(s.q05), place(s.q95)], color=colour, linewidth=1.2, solid_capstyle="butt")
        axes.plot([x, x], [place(s.q25), place(s.q75)], color=colour, linewidth=8, solid_capstyle="butt")
        axes.plot(
            [x], [place(s.median)], "o", color=theme.paper, markersize=6, markeredgecolor=colour, markeredgewidth=1.4
        )
        text = _three_digits(s.median) if math.isfinite(s.median) else "none"
        style: dict[str, Any] = {"va": "center", "color": theme.ink, "fontsize": SMALL}
        axes.annotate(text, (x, place(s.median)), (8, 0), textcoords="offset points", **style)
    axes.set(yscale="log", ylim=(low, high), xlim=(-0.5, len(spreads) - 0.3))
    _plain_ticks(axes.yaxis, theme)
    axes.set_xticks(range(len(spreads)), names, fontsize=SMALL)


def _three_digits(value: float) -> str:
    """0.0421, 0.421, 4.21, 42.1, 4211."""
    return f"{value:#.3g}" if value < 100 else f"{value:.4g}"


def _plain_ticks(axis: Axis, theme: Theme) -> None:
    """1, 2 and 5 times the powers of ten, written as numbers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", color=theme.muted)


def _nothing(figure: Figure, axes: Axes, theme: Theme, text: str) -> Figure:
    axes.set_xticks([])
    axes.set_yticks([])
    message(axes, theme, text)
    return figure
