"""The error map as a figure: how far off each place is expected to be."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from somareg.report.maps import MAX_MAP_CELLS, cells_at, extent_of
from somareg.report.style import LIGHT, SMALL, Theme, colourbar, legend, message, new_map, png
from somareg.types import ACROSS, Result

PALETTE = "plasma"
GREY: dict[str, Any] = {"facecolor": "#9aa0a6", "hatch": "////", "edgecolor": "#70767c", "linewidth": 0}
"""How the map shows what was not seen."""


def error_figure(result: Result, theme: Theme = LIGHT) -> bytes:
    """Expected error of each place in pixels and metres; grey and hatched where nothing was seen."""
    chart = new_map(result.previews.area, theme)
    shown = draw_error(chart.axes, result, theme)
    if shown is None:
        return png(chart.figure)
    colourbar(chart, shown, theme, "", start=0.3)
    words = error_format(result, "\n")
    chart.figure.axes[-1].xaxis.set_major_formatter(lambda value, _: words(value))
    corner = (chart.band[0] - 0.02, 1.02 * chart.band[3])
    unseen = [Patch(label="not seen", **GREY)]
    legend(chart.figure, theme, unseen, loc="upper left", bbox_to_anchor=corner, borderaxespad=0, frameon=False)
    return png(chart.figure)


def error_format(result: Result, between: str) -> Callable[[float], str]:
    """Makes "2 px" of an error, and behind `between` its metres where they are known."""
    per_pixel = result.quality.metres_per_pixel
    if per_pixel is None:
        return lambda value: f"{value:g} px"
    return lambda value: f"{value:g} px{between}{value * per_pixel:.3g} m"


def draw_error(axes: Axes, result: Result, theme: Theme = LIGHT) -> AxesImage | None:
    """The error map on axes in reference pixels; None where nothing was seen, which the axes then say."""
    extent = extent_of(result)
    left, right, bottom, top = extent
    ground = Rectangle((left, top), right - left, bottom - top, zorder=-1, **GREY)
    axes.add_patch(ground)
    values = known_error(result)
    seen = values[np.isfinite(values)]
    if not seen.size:
        message(axes, theme, "Nothing was seen well enough to tell how far off it is")
        return None
    most = max(float(np.percentile(seen, 99.5)), 0.1)
    shown = axes.imshow(
        np.ma.masked_invalid(values), cmap=PALETTE, vmin=0, vmax=most, extent=extent, interpolation="nearest"
    )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    _numbers(axes, result)
    return shown


def known_error(result: Result) -> NDArray[Any]:
    """The expected error on what the pictures show, thinned; NaN where nothing was seen."""
    left, top, width, height = (round(value) for value in result.previews.area)
    rows, columns = cells_at(result, np.array([top, top + height - 1]), np.array([left, left + width - 1]))
    values = result.displacement.sigma[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1]
    step = max(1, -(-max(values.shape) // MAX_MAP_CELLS))
    return values[::step, ::step]


def _numbers(axes: Axes, result: Result) -> None:
    """The error of each cell in its place; a frame around the worst."""
    left, top, width, height = result.previews.area
    seen = [cell for cell in result.quality.cells if cell.is_seen]
    for cell in seen:
        x, y = (
            start - 0.5 + (index + 0.5) * size / ACROSS
            for start, index, size in ((left, cell.column, width), (top, cell.row, height))
        )
        digits = 1 if cell.error_px < 9.95 else 0
        text = axes.text(x, y, f"{cell.error_px:.{digits}f}", ha="center", va="center", color="white", fontsize=SMALL)
        text.set_path_effects([patheffects.withStroke(linewidth=2.0, foreground="#101418")])
    worst = max(seen, key=lambda cell: cell.error_px, default=None)
    if worst is not None and math.isfinite(worst.error_px):
        corner = left - 0.5 + worst.column * width / ACROSS, top - 0.5 + worst.row * height / ACROSS
        frame = Rectangle(corner, width / ACROSS, height / ACROSS, fill=False, edgecolor="white", linewidth=1.6)
        frame.set_path_effects([patheffects.withStroke(linewidth=3.2, foreground="#101418")])
        axes.add_patch(frame)
