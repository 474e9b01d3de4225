"""Drawings of tie point residuals: lengths and directions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from somareg.report.axes import WIDTH, draw_axes, plot_axes, text
from somareg.report.key import box, dot, line, signs
from somareg.report.maps import drawing, inside
from somareg.report.record import residual_vectors
from somareg.report.samples import pixel_m_of
from somareg.report.svg import boxes, element, number
from somareg.types import BoolArray, FloatArray, Result
from somareg.types.words import pixels

_BINS = 30
_HEAD_ROOM = 1.08  # above the highest bar


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """The data of both drawings.

    Attributes:
        distance, vectors: (N,) and (N, 2) reference pixels, finite.
        kept: (N,) bool.
        median: of the kept.
        reach: end of the axes; a label counts the points beyond.
    """

    distance: FloatArray
    vectors: FloatArray
    kept: BoolArray
    median: float
    reach: float


def residuals_of(result: Result) -> Residuals | None:
    """Residuals of a result's tie points; None without inliers."""
    points = result.tie_points
    finite = np.isfinite(points.residual_px)
    distance, agree = points.residual_px[finite], points.inlier[finite]
    if not agree.any():
        return None
    reach = max(*np.percentile(distance[agree], (75, 90)) * (3.0, 1.6), 0.2)
    predicted = result.quality.predicted_ce90_px
    if reach < 1.1 * predicted < 2 * reach:
        reach = 1.1 * predicted
    return Residuals(distance, residual_vectors(result)[finite], agree, float(np.median(distance[agree])), float(reach))


def histogram(result: Result, data: Residuals, alt: str) -> Markup:
    """Histogram of the distances of tie points to the final transform."""
    edges = np.linspace(0, data.reach, _BINS + 1)
    inliers, left_out = (np.histogram(data.distance[mask], edges)[0] for mask in (data.kept, ~data.kept))
    per_pixel = result.quality.metres_per_pixel
    most = _HEAD_ROOM * float(max((inliers + left_out).max(), 1))
    axes = plot_axes((0.0, data.reach), (0.0, most), None if per_pixel is None else (per_pixel, per_pixel))
    x = axes.x.of(edges)
    bars = element("path", class_="bars", d=boxes(x[:-1] + 0.5, axes.y.of(inliers), x[1:] - 0.5, axes.y.start))
    some = np.flatnonzero(left_out)
    above = "".join(
        f"M{number(x[i] + 1)} {number(axes.y.at(inliers[i]))}V{number(axes.y.at(inliers[i] + left_out[i]))}"
        f"H{number(x[i + 1] - 1)}V{number(axes.y.at(inliers[i]))}Z"
        for i in some.tolist()
    )
    middle = axes.x.at(data.median)
    parts = [bars, element("path", class_="bars out", d=above)] if above else [bars]
    parts.append(element("path", class_="median", d=f"M{middle:.1f} {axes.y.start:.1f}V{axes.y.end:.1f}"))
    beyond = int((data.distance > data.reach).sum())
    if beyond:
        label = f"{beyond} beyond {pixels(data.reach)} →"
        parts.append(text(axes.x.end - 8, axes.y.end + 18, label, "end"))
    key = signs(
        axes,
        [
            [(box("bars"), "kept"), (box("bars out"), "left out")],
            [(line("median"), f"median of the inliers: {pixels(data.median)}")],
        ],
        (0.0, 0.36),
    )
    frame = draw_axes(axes, "distance to the final transform (px)", "tie points", up_m=False)
    return drawing(axes, alt, frame, inside(axes, *parts), key)


def scatter(result: Result, data: Residuals, alt: str) -> Markup:
    """Scatter plot of residual vectors, with bias, standard deviation and the predicted circle of 90 %."""
    quality, reach = result.quality, data.reach
    axes = plot_axes((-reach, reach), (reach, -reach), pixel_m_of(result))
    x, y = axes.x.at(0.0), axes.y.at(0.0)
    parts = [element("path", class_="zero", d=f"M0 {number(y)}H{WIDTH:g}M{number(x)} 0V{WIDTH:g}")]
    for mask, kind in ((~data.kept, "mark out"), (data.kept, "mark")):
        places = axes.place(np.clip(data.vectors[mask], -3 * reach, 3 * reach))
        marks = "".join(f'<circle cx="{number(h)}" cy="{number(v)}" r="3"/>' for h, v in places.tolist())
        parts.append(element("g", Markup(marks), class_=kind))  # noqa: S704, numbers alone
    right = []
    if np.isfinite([*quality.bias_px, *quality.sigma_px]).all():
        parts.append(_cross(axes.place(np.array([quality.bias_px]))[0], quality.sigma_px, axes.x.per_unit))
        bias = ", ".join(f"{value:+.2f}".replace("-", "\N{MINUS SIGN}") for value in quality.bias_px)
        right.append((line("cross"), f"bias ({bias}) px, with sigma"))
    predicted = quality.predicted_ce90_px
    if math.isfinite(predicted) and predicted > 0:
        parts.append(element("circle", class_="circle", cx=x, cy=y, r=predicted * axes.x.per_unit))
        outside = " (outside)" if predicted > 1.5 * reach else ""
        right.append(
            (element("circle", class_="circle", cx=0.0, cy=0.0, r=7.0), f"predicted CE90: {pixels(predicted)}{outside}")
        )
    key = signs(axes, [[(dot("mark"), "kept"), (dot("mark out"), "left out")], right], (0.0, 0.36))
    frame = draw_axes(axes, "residual dx (px), right +", "residual dy (px), down +")
    return drawing(axes, alt, frame, inside(axes, *parts), key)


def _cross(middle: FloatArray, sigma: tuple[float, float], per_unit: float) -> Markup:
    """Mean and standard deviation along each axis, with caps."""
    (x, y), (wide, high) = middle.tolist(), (value * per_unit for value in sigma)
    across = f"M{x - wide:.1f} {y:.1f}H{x + wide:.1f}M{x - wide:.1f} {y - 4:.1f}v8M{x + wide:.1f} {y - 4:.1f}v8"
    down = f"M{x:.1f} {y - high:.1f}V{y + high:.1f}M{x - 4:.1f} {y - high:.1f}h8M{x - 4:.1f} {y + high:.1f}h8"
    return element("path", class_="cross", d=across + down)
