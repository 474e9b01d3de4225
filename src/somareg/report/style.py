"""Style of matplotlib figures (the report has its own); settings go to artists, no global state changes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 144
SMALL, NORMAL = 9.5, 10.5


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of figures.

    Attributes:
        paper: background.
        ink, muted: text, and axes or grid lines.
        accent: bars and points.
        alert: outliers and the second of two lines; distinct from `accent` for colour-blind readers, too.
    """

    paper: str
    ink: str
    muted: str
    accent: str
    alert: str


LIGHT = Theme("#ffffff", "#1c2127", "#8a929c", "#1f6fb2", "#d1600a")


def new_figure(theme: Theme, size: tuple[float, float]) -> Figure:
    """An empty figure, inches."""
    figure = Figure(figsize=size, dpi=DPI, facecolor=theme.paper)
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Figure, theme: Theme, box: tuple[float, float, float, float]) -> Axes:
    """Axes in the theme's colours at (left, bottom, width, height) inches."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
    axes.set_facecolor(theme.paper)
    axes.tick_params(colors=theme.ink, labelsize=SMALL, color=theme.muted, length=3)
    for spine in axes.spines.values():
        spine.set_color(theme.muted)
        spine.set_linewidth(0.8)
    return axes


def label(axes: Axes, theme: Theme, x: str, y: str) -> None:
    """Axis labels."""
    axes.set_xlabel(x, color=theme.ink, fontsize=NORMAL)
    axes.set_ylabel(y, color=theme.ink, fontsize=NORMAL)


def legend(owner: Axes | Figure, theme: Theme, handles: Sequence[Artist] | None = None, **options: Any) -> None:
    """A legend on the paper's colour."""
    given: dict[str, Any] = {} if handles is None else {"handles": list(handles)}
    given |= {"fontsize": SMALL, "labelcolor": theme.ink, "facecolor": theme.paper, "framealpha": 0.9}
    box = owner.legend(**given, **options)
    box.get_frame().set_edgecolor(theme.muted)
    box.get_frame().set_linewidth(0.6)


def message(axes: Axes, theme: Theme, text: str) -> None:
    """A sentence in place of data."""
    axes.text(
        0.5,
        0.5,
        text,
        transform=axes.transAxes,
        ha="center",
        va="center",
        color=theme.ink,
        fontsize=NORMAL,
        bbox={"facecolor": theme.paper, "edgecolor": theme.muted, "boxstyle": "round,pad=0.6", "linewidth": 0.6},
    )


def png(figure: Figure) -> bytes:
    """The figure as PNG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
