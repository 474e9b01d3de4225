"""Drawings of an audit: offsets over time with their sigmas, levels and steps, one drawing for each axis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from markupsafe import Markup

from somareg.batches.audit.findings import ALL, SceneRecord
from somareg.batches.audit.result import AuditResult
from somareg.report.axes import Axes, Scale, draw_axes, wide_axes
from somareg.report.key import Sign, dot, line, signs
from somareg.report.maps import drawing, inside
from somareg.report.svg import element, number

COLOURS = 8
"""Number of series with a colour of their own; all others share one."""
MOST_DRAWN = 4000
_HEIGHT = 190.0
_HEAD_ROOM = 0.08  # margin above and below, as a share of the values' range
_FAR = 2.0  # distance beyond the other values, in their ranges, up to which an outlier is drawn in its place
_MOST_TICKS = 6
_DAY = 86400.0
_MONTHS = 1, 2, 3, 6, 12, 24, 60, 120, 240

Side = Literal["dx", "dy"]
_SIDES: dict[Side, str] = {"dx": "to the right", "dy": "down"}


def drawings(result: AuditResult) -> list[Markup]:
    """Drawings of the offsets to the right and down of all measured scenes over time; none without measurements."""
    measured = [scene for scene in result.scenes if scene.offset is not None]
    if not measured:
        return []
    dated = [scene for scene in measured if scene.facts.date is not None]
    in_time = result.mode != "pairs" and bool(dated)
    scenes = dated if in_time else measured
    every = -(-len(scenes) // MOST_DRAWN)
    scenes = [scene for index, scene in enumerate(scenes) if index % every == 0 or scene.is_outlier]
    return [_drawing(result, scenes, side, in_time=in_time) for side in _SIDES]


def series_colours(result: AuditResult) -> dict[str, int]:
    """Colour number of each series; those with most scenes come first."""
    names = [scene.series for scene in result.scenes if scene.offset is not None]
    ranked = sorted(set(names), key=lambda name: (-names.count(name), name))
    return {name: min(index, COLOURS) for index, name in enumerate(ranked)}


def _drawing(result: AuditResult, scenes: Sequence[SceneRecord], side: Side, *, in_time: bool) -> Markup:
    unit, colours = result.unit, series_colours(result)
    x = np.array([_place(scene, index, in_time) for index, scene in enumerate(scenes)])
    y, sigma = (np.array([getattr(scene.offset, f"{name}_{unit}") for scene in scenes]) for name in (side, "sigma"))
    out = np.array([scene.is_outlier for scene in scenes])
    low, high = _range(y, sigma, out)
    margin = 0.03 * max(float(np.ptp(x)), 1.0)
    axes = wide_axes((float(x.min()) - margin, float(x.max()) + margin), (low, high), _HEIGHT)
    places = axes.place(np.column_stack([x, np.clip(y, low, high)]))
    parts = [element("path", class_="zero", d=f"M0 {number(axes.y.at(0.0))}h480")] if low < 0 < high else []
    parts += _steps(result, scenes, side, axes, x)
    for name, colour in colours.items():
        own = np.array([scene.series == name for scene in scenes])
        if own.any():
            parts.append(_points(places[own], (sigma * abs(axes.y.per_unit))[own], f"s{colour}"))
    rings = [element("circle", cx=h, cy=v, r=7.0) for h, v in places[out].tolist()]
    parts.append(element("g", *rings, class_="ring"))
    words = "date" if in_time else "number in the list"
    ticks = _date_ticks(axes.x) if in_time else None
    frame = draw_axes(axes, words, f"{_SIDES[side]} ({unit})", x_ticks=ticks)
    alt = f"Mean offset {_SIDES[side]} of {len(scenes)} scenes in {unit}, over {words}"
    return drawing(axes, alt, frame, inside(axes, *parts), _key(result, axes, colours))


def _points(places: np.ndarray, half: np.ndarray, kind: str) -> Markup:
    """Dots (N, 2) with bars that reach `half` (N,) up and down."""
    bars = "".join(
        f"M{number(x)} {number(y - s)}V{number(y + s)}"
        for (x, y), s in zip(places.tolist(), half.tolist(), strict=True)
    )
    dots = [element("circle", cx=x, cy=y, r=3.2) for x, y in places.tolist()]
    return element("g", element("path", d=bars), *dots, class_=f"offset {kind}")


def _steps(
    result: AuditResult, scenes: Sequence[SceneRecord], side: Side, axes: Axes, x: np.ndarray
) -> Iterator[Markup]:
    """A vertical line at each step of the series of all scenes, and the levels between them."""
    axis, places = list(_SIDES).index(side), {scene.name: at for scene, at in zip(scenes, x.tolist(), strict=True)}
    steps = [step for step in result.steps if step.series == ALL and step.first in places]
    at = [(places[step.first] + places.get(step.last, places[step.first])) / 2 for step in steps]
    for place in at:
        yield element("path", class_="step", d=f"M{number(axes.x.at(place))} 0V480")
    if result.mode == "consecutive" or not result.series or result.mode == "pairs":
        return
    levels = [step.step.before[axis] for step in steps[:1]] + [step.step.after[axis] for step in steps]
    ends = [axes.x.low, *at, axes.x.high]
    for index, value in enumerate(levels or [result.series[0].level[axis]]):
        y = number(axes.y.at(value))
        yield element(
            "path", class_="level", d=f"M{number(axes.x.at(ends[index]))} {y}H{number(axes.x.at(ends[index + 1]))}"
        )


def _key(result: AuditResult, axes: Axes, colours: dict[str, int]) -> Markup:
    kinds: list[Sign] = [(line("level"), "level")] if result.mode == "reference" else []
    if any(step.series == ALL for step in result.steps):
        kinds.append((line("step"), "step"))
    if result.outliers:
        kinds.append((element("circle", class_="ring", cx=0.0, cy=0.0, r=6.0), "outlier"))
    series = [(dot(f"offset s{colour}"), _short(name)) for name, colour in colours.items() if name and colour < COLOURS]
    if len(colours) > COLOURS:
        series = [*series[: COLOURS - 3], (dot(f"offset s{COLOURS}"), "others")]
    columns = [kinds, series[:3], series[3:6]]
    return signs(axes, columns, (0.0, 0.25, 0.63))


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:21]}…"


def _place(scene: SceneRecord, index: int, in_time: bool) -> float:
    return scene.facts.date.timestamp() / _DAY if in_time and scene.facts.date else float(index + 1)


def _range(values: np.ndarray, sigma: np.ndarray, out: np.ndarray) -> tuple[float, float]:
    """Limits of the axis: all values with their sigmas, without outliers so far off that the others would be a line."""
    inside = ~out if (~out).any() else np.ones_like(out)
    low, high = float((values - sigma)[inside].min()), float((values + sigma)[inside].max())
    reach = _FAR * (high - low)
    near = values[(values > low - reach) & (values < high + reach)]
    low, high = min(low, float(near.min(initial=low))), max(high, float(near.max(initial=high)))
    room = _HEAD_ROOM * (high - low) or 1.0
    return low - room, high + room


def _date_ticks(scale: Scale) -> list[tuple[float, str]]:
    """Starts of days, months or years, a few, as people write them."""
    low, high = (datetime.fromtimestamp(value * _DAY, UTC) for value in (scale.low, scale.high))
    days = scale.high - scale.low
    if days < 62:
        step = max(1, math.ceil(days / _MOST_TICKS))
        found = [float(day) for day in range(math.ceil(scale.low), math.floor(scale.high) + 1, step)]
        return [(scale.at(day), datetime.fromtimestamp(day * _DAY, UTC).strftime("%m-%d")) for day in found]
    months = (high.year - low.year) * 12 + high.month - low.month
    every = next((each for each in _MONTHS if months / each <= _MOST_TICKS), _MONTHS[-1])
    first = low.year * 12 + low.month  # the month after the lowest, counted from 0
    starts = [month for month in range(first, high.year * 12 + high.month) if month % every == 0]
    places = [datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC) for month in starts]
    form = "%Y" if every >= 12 else "%Y-%m"
    return [(scale.at(place.timestamp() / _DAY), place.strftime(form)) for place in places]
