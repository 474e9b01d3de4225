"""The figure of tie point residuals as PNG bytes: how far, and in which direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from somareg.report.record import residual_vectors
from somareg.report.style import (
    BAND,
    LEFT,
    LIGHT,
    RIGHT,
    SMALL,
    TICKS,
    TOP,
    WIDTH_IN,
    Theme,
    add_axes,
    label,
    legend,
    message,
    new_figure,
    png,
)
from somareg.types import Result


@dataclass(frozen=True, slots=True)
class _Residuals:
    """What both halves draw.

    Attributes:
        distance, vectors: (N,) and (N, 2) reference pixels, finite.
        kept: (N,) bool.
        median: of the kept.
        bias, sigma: (x, y) mean and standard deviation of the kept ones' vectors.
        predicted: predicted CE90 of the alignment, may be NaN.
        reach: end of the axes; what lies beyond is counted in words.
    """

    distance: NDArray[Any]
    vectors: NDArray[Any]
    kept: NDArray[np.bool_]
    median: float
    bias: tuple[float, float]
    sigma: tuple[float, float]
    predicted: float
    reach: float


def histogram_figure(result: Result, theme: Theme = LIGHT) -> bytes:
    """How far the tie points are from the final transform."""
    figure, axes = _canvas(theme)
    label(axes, theme, "distance to the final transform (px)", "tie points")
    data = _collect(result)
    if data is None:
        message(axes, theme, "No tie points were kept")
        axes.set(xticks=[], yticks=[])
    else:
        _histogram(figure, axes, theme, data)
    return png(figure)


def scatter_figure(result: Result, theme: Theme = LIGHT) -> bytes:
    """In which direction they are off, with their bias and standard deviation, and the predicted circle of 90 %."""
    figure, axes = _canvas(theme)
    label(axes, theme, "residual dx (px), right +", "residual dy (px), down +")
    data = _collect(result)
    if data is None:
        message(axes, theme, "No tie points were kept")
        axes.set(xticks=[], yticks=[])
    else:
        _scatter(figure, axes, theme, data)
    return png(figure)


def _canvas(theme: Theme) -> tuple[Figure, Axes]:
    figure = new_figure(theme, (WIDTH_IN, 4.6))
    return figure, add_axes(figure, theme, (LEFT, TICKS + BAND, WIDTH_IN - LEFT - RIGHT, 4.6 - TICKS - BAND - TOP))


def _collect(result: Result) -> _Residuals | None:
    points = result.tie_points
    finite = np.isfinite(points.residual_px)
    distance, kept = points.residual_px[finite], points.inlier[finite]
    if not kept.any():
        return None
    reach = max(*np.percentile(distance[kept], (75, 90)) * (3.0, 1.6), 0.2)
    predicted = result.quality.predicted_ce90_px
    if reach < 1.1 * predicted < 2 * reach:
        reach = 1.1 * predicted
    quality, vectors = result.quality, residual_vectors(result)[finite]
    median = float(np.median(distance[kept]))
    return _Residuals(distance, vectors, kept, median, quality.bias_px, quality.sigma_px, predicted, float(reach))


def _histogram(figure: Figure, axes: Axes, theme: Theme, data: _Residuals) -> None:
    edges = np.linspace(0, data.reach, 31)
    kept, left_out = (np.histogram(data.distance[chosen], edges)[0] for chosen in (data.kept, ~data.kept))
    width = edges[1]
    axes.bar(edges[:-1], kept, width, align="edge", color=theme.accent, edgecolor=theme.paper, linewidth=0.8)
    some = left_out > 0
    axes.bar(
        edges[:-1][some],
        left_out[some],
        width,
        kept[some],
        align="edge",
        color=theme.paper,
        edgecolor=theme.alert,
        linewidth=1.0,
    )
    axes.axvline(data.median, color=theme.ink, linewidth=1.2, linestyle="--")
    beyond = int((data.distance > data.reach).sum())
    if beyond:
        axes.text(
            0.99, 0.94, f"{beyond} beyond {data.reach:.1f} px →", transform=axes.transAxes,
            ha="right", color=theme.ink, fontsize=SMALL,
        )  # fmt: skip
    handles = [
        Patch(facecolor=theme.accent, label="kept"),
        Patch(facecolor=theme.paper, edgecolor=theme.alert, label="left out"),
        Line2D(
            [], [], color=theme.ink, linestyle="--", linewidth=1.2, label=f"median of the kept: {data.median:.2f} px"
        ),
    ]
    _key(figure, theme, handles, 3)
    axes.set_xlim(0, data.reach)
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _scatter(figure: Figure, axes: Axes, theme: Theme, data: _Residuals) -> None:
    axes.axhline(0, color=theme.muted, linewidth=0.6)
    axes.axvline(0, color=theme.muted, linewidth=0.6)
    kept, left_out = data.vectors[data.kept], data.vectors[~data.kept]
    axes.scatter(left_out[:, 0], left_out[:, 1], s=20, facecolors="none", edgecolors=theme.alert, linewidths=1.0)
    axes.scatter(kept[:, 0], kept[:, 1], s=20, color=theme.accent, alpha=0.75, linewidths=0)
    handles: list[Any] = [
        Line2D([], [], linestyle="none", marker="o", color=theme.accent, markersize=5, label="kept"),
        Line2D([], [], linestyle="none", marker="o", mfc="none", mec=theme.alert, markersize=5, label="left out"),
    ]
    if np.isfinite([*data.bias, *data.sigma]).all():
        cross = axes.errorbar(
            *data.bias, yerr=data.sigma[1], xerr=data.sigma[0], color=theme.ink, linewidth=1.4, capsize=3
        )
        cross.set_label(f"bias ({data.bias[0]:+.2f}, {data.bias[1]:+.2f}) px, with sigma")
        handles.append(cross)
    if np.isfinite(data.predicted) and data.predicted > 0:
        outside = " (outside)" if data.predicted > 1.5 * data.reach else ""
        text = f"predicted CE90: {data.predicted:.2f} px{outside}"
        axes.add_patch(Circle((0, 0), data.predicted, fill=False, color=theme.ink, linewidth=1.3))
        handles.append(Line2D([], [], color=theme.ink, linewidth=1.3, label=text))
    axes.set_xlim(-data.reach, data.reach)
    axes.set_ylim(data.reach, -data.reach)
    axes.set_aspect("equal")
    _key(figure, theme, handles, 2)


def _key(figure: Figure, theme: Theme, handles: list[Any], columns: int) -> None:
    """A legend in the band below the axes."""
    legend(
        figure, theme, handles, loc="lower center", bbox_to_anchor=(0.55, 0), frameon=False,
        ncols=columns, borderaxespad=0.1, columnspacing=1.4,
    )  # fmt: skip
