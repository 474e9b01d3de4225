"""Axes of a drawing, with round ticks: pixels below and on the left, metres above and on the right."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from somareg.report.svg import element, joined
from somareg.report.words import nice
from somareg.types import FloatArray

WIDTH = 480.0
"""Width of every drawing in its units; letters of 12 units stay legible at 350 screen pixels."""
BAND = 58.0
"""Height of the band below the axes, for the key."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 16.0, 12.0, 40.0
_METRES = 36.0  # extra margin above and on the right, for ticks in metres
_TALLEST = 560.0  # limits of a map's height
_TICK = 4.0
_APART = 58.0, 42.0  # least ticks along x and along y
_LETTER = 6.4  # mean width of a letter

Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear scale: values from `low` to `high` map to `start` to `end` in the drawing."""

    low: float
    high: float
    start: float
    end: float

    @property
    def per_unit(self) -> float:
        """Units of the drawing per unit of the value; negative for a reversed scale."""
        return (self.end - self.start) / (self.high - self.low)

    def at(self, value: float) -> float:
        """Position of a value."""
        return self.start + (value - self.low) * self.per_unit

    def of(self, values: FloatArray) -> FloatArray:
        """Positions of values."""
        return np.asarray(self.start + (values - self.low) * self.per_unit)


@dataclass(frozen=True, slots=True)
class Axes:
    """Both scales of a drawing.

    Attributes:
        x, y: scales of both axes.
        edges_m: metres per unit of each axis; None without metres.
        zero: value at which metres begin.
    """

    x: Scale
    y: Scale
    edges_m: Pair | None = None
    zero: float = 0.0

    @property
    def height(self) -> float:
        """Height of the whole drawing, with the band for its key."""
        return max(self.y.start, self.y.end) + _BOTTOM + BAND

    @property
    def band(self) -> float:
        """Upper edge of the band for the key."""
        return self.height - BAND

    def place(self, xy: FloatArray) -> FloatArray:
        """Positions of values (N, 2) in the drawing."""
        return np.column_stack([self.x.of(xy[:, 0]), self.y.of(xy[:, 1])])


def map_axes(area: tuple[float, float, float, float], edges_m: Pair | None) -> Axes:
    """Axes of a part (left, top, width, height) of the reference, with its proportions within limits."""
    left, top, width, height = area
    above, room = _room(edges_m)
    scale = min(room / width, _TALLEST / height)
    start = _LEFT + (room - width * scale) / 2
    x = Scale(left - 0.5, left + width - 0.5, start, start + width * scale)
    y = Scale(top - 0.5, top + height - 0.5, above, above + height * scale)
    return Axes(x, y, edges_m, -0.5)


def plot_axes(x: Pair, y: Pair, edges_m: Pair | None) -> Axes:
    """Axes of a square plot; `y` runs from the lower end to the upper one."""
    above, room = _room(edges_m)
    return Axes(Scale(*x, _LEFT, _LEFT + room), Scale(*y, above + room, above), edges_m)


def wide_axes(x: Pair, y: Pair, height: float) -> Axes:
    """Axes of a plot as wide as the drawing, of a given height; `y` runs from the lower end to the upper one."""
    above, room = _room(None)
    return Axes(Scale(*x, _LEFT, _LEFT + room), Scale(*y, above + height, above))


def _room(edges_m: Pair | None) -> Pair:
    """Upper margin, and width between the margins."""
    more = 0.0 if edges_m is None else _METRES
    return _TOP + 0.6 * more, WIDTH - _LEFT - _RIGHT - more


def draw_axes(
    axes: Axes, x_words: str, y_words: str, *, up_m: bool = True, x_ticks: list[tuple[float, str]] | None = None
) -> Markup:
    """Draw frame, ticks and labels.

    Args:
        axes: to be drawn.
        x_words, y_words: labels, with the unit.
        up_m: whether the values of `y` are lengths, too.
        x_ticks: positions and labels of ticks, when the values of `x` are no plain numbers.
    """
    x, y = axes.x, axes.y
    left, right, top, bottom = x.start, x.end, min(y.start, y.end), max(y.start, y.end)
    parts = [element("rect", class_="frame", x=left, y=top, width=right - left, height=bottom - top)]
    below = ticks_with_words(x, _APART[0]) if x_ticks is None else x_ticks
    parts += [_below(at, bottom, words) for at, words in below]
    parts += [_beside(left, at, words, -1) for at, words in ticks_with_words(y, _APART[1])]
    if axes.edges_m is not None:
        parts += [_above(at, top, words) for at, words in ground_ticks(x, axes.edges_m[0], axes.zero, _APART[0])]
    if axes.edges_m is not None and up_m:
        parts += [_beside(right, at, words, 1) for at, words in ground_ticks(y, axes.edges_m[1], axes.zero, _APART[1])]
    parts.append(text((left + right) / 2, bottom + 34, x_words, "middle"))
    # The label would be longer than a low map is high.
    if bottom - top > _LETTER * len(y_words):
        turn = f"rotate(-90 14 {(top + bottom) / 2:.1f})"
        parts.append(element("text", y_words, x=14.0, y=(top + bottom) / 2, text_anchor="middle", transform=turn))
    return element("g", *parts, class_="axes")


def ticks_with_words(scale: Scale, apart: float) -> list[tuple[float, str]]:
    """Positions and labels of ticks, at least `apart` units apart."""
    low, high = sorted((scale.low, scale.high))
    return [(scale.at(value), words) for value, words in _labelled(ticks(low, high, _most(scale, apart)))]


def ground_ticks(scale: Scale, edge_m: float, zero: float, apart: float) -> list[tuple[float, str]]:
    """Positions and labels of ticks in metres or kilometres; the last one has the unit.

    Args:
        scale: of pixels.
        edge_m: metres per pixel.
        zero: pixel where metres start.
        apart: least units between ticks.
    """
    ends = [(value - zero) * edge_m for value in (scale.low, scale.high)]
    unit, name = (1000.0, "km") if max(map(abs, ends)) >= 2000 else (1.0, "m")
    low, high = min(ends) / unit, max(ends) / unit
    labels = _labelled(ticks(low, high, _most(scale, apart)))
    return [
        (scale.at(value * unit / edge_m + zero), f"{words} {name}" if value == labels[-1][0] else words)
        for value, words in labels
    ]


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round values from `low` to `high`, about `most`."""
    step = nice((high - low) / max(most, 1), up=True)
    if not step:
        return []
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [count * step for count in range(first, last + 1)]


def _labelled(values: list[float]) -> list[tuple[float, str]]:
    """Values with their labels, all with the same digits."""
    step = abs(values[1] - values[0]) if len(values) > 1 else abs(values[0]) if values else 0.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return [(value, f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")) for value in values]


def _most(scale: Scale, apart: float) -> int:
    return max(2, int(abs(scale.end - scale.start) / apart))


def text(x: float, y: float, words: str, anchor: str = "start", **more: object) -> Markup:
    """Text whose base line starts, ends or is centred at a position."""
    return element("text", words, x=x, y=y, text_anchor=anchor, **more)


def _below(x: float, bottom: float, words: str) -> Markup:
    mark = element("path", d=f"M{x:.1f} {bottom:.1f}v{_TICK:g}", class_="tick")
    return joined(mark, text(x, bottom + 16, words, "middle"))


def _above(x: float, top: float, words: str) -> Markup:
    mark = element("path", d=f"M{x:.1f} {top:.1f}v-{_TICK:g}", class_="tick")
    return joined(mark, text(x, top - 8, words, "middle", class_="ground"))


def _beside(x: float, y: float, words: str, side: int) -> Markup:
    mark = element("path", d=f"M{x:.1f} {y:.1f}h{side * _TICK:g}", class_="tick")
    kind = {"class_": "ground"} if side > 0 else {}
    return joined(mark, text(x + side * 7, y + 4, words, "start" if side > 0 else "end", **kind))
