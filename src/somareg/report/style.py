"""Style of matplotlib figures (the report has its own); settings go to artists, no global state changes."""

from __future__ import annotations

import io
from dataclasses import dataclass

from matplotlib.axes import Axes
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
