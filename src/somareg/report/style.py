"""One look for all figures, light and dark; every setting is given to the artists, nothing to matplotlib's globals."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

Area = tuple[float, float, float, float]
"""(left, top, width, height) of a part of the reference, pixels."""

WIDTH_IN = 5.6
DPI = 144
SMALL, NORMAL = 9.5, 10.5

# Margins of a map in inches. Fixed boxes and not a layout engine: maps line up side by side, and draw twice as fast.
LEFT, RIGHT, TOP, TICKS, BAND = 0.68, 0.2, 0.1, 0.55, 0.66
MAP_HEIGHT = (1.6, 6.2)


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a page and of the figures on it.

    Attributes:
        name: "light" or "dark".
        paper: background of the figure, the same as the page's.
        ink, muted: text, and axes or grid lines.
        accent: bars and points.
        alert: outliers and the second of two lines; told apart from `accent` by colour-blind readers too.
    """

    name: str
    paper: str
    ink: str
    muted: str
    accent: str
    alert: str


LIGHT = Theme("light", "#ffffff", "#1c2127", "#8a929c", "#1f6fb2", "#d1600a")
DARK = Theme("dark", "#14181d", "#dfe3e8", "#6c7580", "#5aa9e6", "#f09a4a")


@dataclass(frozen=True, slots=True)
class Map:
    """A map in reference pixels, row 0 on top, above a band for its key.

    Attributes:
        figure, axes: matplotlib's.
        band: (left, bottom, width, height) of the free strip below the map, figure fractions.
    """

    figure: Figure
    axes: Axes
    band: tuple[float, float, float, float]


def new_map(area: Area, theme: Theme) -> Map:
    """An empty map of a part of the reference, as tall as that asks, within reason."""
    left, top, width, height_px = area
    room = WIDTH_IN - LEFT - RIGHT
    map_height = min(max(room * height_px / width, MAP_HEIGHT[0]), MAP_HEIGHT[1])
    height = map_height + TOP + TICKS + BAND
    figure = new_figure(theme, (WIDTH_IN, height))
    axes = add_axes(figure, theme, (LEFT, TICKS + BAND, room, map_height))
    axes.set_xlim(left - 0.5, left + width - 0.5)
    axes.set_ylim(top + height_px - 0.5, top - 0.5)
    axes.set_aspect("equal")
    label(axes, theme, "x (reference px)", "y (reference px)")
    return Map(figure, axes, (LEFT / WIDTH_IN, 0, room / WIDTH_IN, BAND / height))


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


def colourbar(chart: Map, artist: Any, theme: Theme, text: str, *, start: float = 0.0) -> None:
    """A colour bar in the band below the map, from the share `start` of its width."""
    left, _, width, height = chart.band
    bar_axes = chart.figure.add_axes((left + start * width, 0.75 * height, (1 - start) * width, 0.19 * height))
    bar = chart.figure.colorbar(artist, cax=bar_axes, orientation="horizontal")
    bar.set_label(text, color=theme.ink, fontsize=SMALL, labelpad=2.5)
    bar_axes.tick_params(colors=theme.ink, labelsize=SMALL, color=theme.muted, length=2, pad=1.5)
    for spine in bar_axes.spines.values():
        spine.set_color(theme.muted)


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


def png(figure: Figure, *, photo: bool = False) -> bytes:
    """The figure as PNG.

    Args:
        figure: drawn here.
        photo: reduce to 256 colours: a third of the bytes where a photograph makes the noise. Smooth maps would band.
    """
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    if photo:
        paper = image.getpixel((0, 0))
        image = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        # The quantiser averages near colours; the paper must stay exactly that of the page.
        palette, first = image.getpalette() or [], 3 * int(image.getpixel((0, 0)))  # type: ignore[arg-type]
        palette[first : first + 3] = paper  # type: ignore[assignment]
        image.putpalette(palette)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
