"""The key below a drawing's axes: signs with their words, colours with their values."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from somareg.report.axes import Axes, Scale, ground_ticks, text, ticks_with_words
from somareg.report.palette import ramp
from somareg.report.svg import element, joined

_BAR, _BAR_HEIGHT = 16.0, 11.0  # below the upper end of the band
_LINE = 19.0
_APART = 52.0  # ticks, at least

Sign = tuple[Markup, str]
"""What stands for something, drawn around (0, 0), and its words."""


def dot(kind: str, **more: object) -> Markup:
    """A point as it is drawn, for the key."""
    return element("circle", class_=kind, cx=0.0, cy=0.0, r=4.5, **more)


def box(kind: str, **more: object) -> Markup:
    """A filled box, for the key."""
    return element("rect", class_=kind, x=-8.0, y=-5.5, width=16.0, height=11.0, **more)


def line(kind: str) -> Markup:
    """A piece of a line, for the key."""
    return element("path", class_=kind, d="M-10 0H10")


def signs(axes: Axes, columns: Sequence[Sequence[Sign]], starts: Sequence[float]) -> Markup:
    """Signs with their words in columns that begin at shares `starts` of the axes' width."""
    left, width = axes.x.start, axes.x.end - axes.x.start
    parts = []
    for column, start in zip(columns, starts, strict=True):
        for row, (sign, words) in enumerate(column):
            x, y = left + start * width + 10, axes.band + 18 + row * _LINE
            parts += [element("g", sign, transform=f"translate({x:.1f} {y:.1f})"), text(x + 16, y + 4, words)]
    return joined(*parts)


def colour_bar(
    axes: Axes, name: str, palette: str, top: float, words: str, *, per_pixel: float | None, start: float = 0.0
) -> Markup:
    """Colours from 0 to `top` pixels, with metres above where they are known.

    Args:
        axes: above it.
        name: of the drawing, which no other on the page has.
        palette: see `palette.colours`.
        top: value of the last colour.
        words: what the colours tell.
        per_pixel: metres per pixel.
        start: share of the axes' width where the bar begins.
    """
    left, right = axes.x.start + start * (axes.x.end - axes.x.start), axes.x.end
    scale, y = Scale(0.0, top, left, right), axes.band + _BAR
    colours = ramp(palette)
    stops = [
        element("stop", offset=f"{index / (len(colours) - 1):.3f}", stop_color=colour)
        for index, colour in enumerate(colours)
    ]
    parts = [
        element("defs", element("linearGradient", *stops, id=f"{name}-colours")),
        element(
            "rect", class_="bar", x=left, y=y, width=right - left, height=_BAR_HEIGHT, fill=f"url(#{name}-colours)"
        ),
        text((left + right) / 2, y + 38, words, "middle"),
    ]
    values = ticks_with_words(scale, _APART)
    for index, (x, label) in enumerate(values):
        parts.append(element("path", class_="tick", d=f"M{x:.1f} {y + _BAR_HEIGHT:.1f}v4"))
        parts.append(text(x, y + 24, f"{label} px" if index == len(values) - 1 else label, "middle"))
    if per_pixel is not None:
        for x, label in ground_ticks(scale, per_pixel, 0.0, _APART):
            parts.append(element("path", class_="tick", d=f"M{x:.1f} {y:.1f}v-3"))
            parts.append(text(x, y - 6, label, "middle", class_="ground"))
    return joined(*parts)
