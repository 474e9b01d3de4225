"""Drawings in the reference's frame: arrows, tie points, local displacement and expected error."""

from __future__ import annotations

import math

import numpy as np
from markupsafe import Markup

from somareg.report.axes import WIDTH, Axes, draw_axes, map_axes, text
from somareg.report.key import box, colour_bar, dot, signs
from somareg.report.palette import coloured, ramp
from somareg.report.pictures import grey_backdrop, png_uri
from somareg.report.samples import Arrows, arrows_of, error_digits, known_error, pixel_m_of, scale_top
from somareg.report.svg import element, joined, number, polygons
from somareg.report.words import arrow_key
from somareg.types import ACROSS, FloatArray, Result

MAX_POINTS_DRAWN = 4000
_SHADES = 24  # number of colours of points
_HEAD, _HEAD_WIDE, _SHAFT = 7.5, 7.0, 1.8  # length and width of an arrow's head, width of its shaft
_CELL = (28.0, 14.0)  # least width and height of a cell with room for its number
_X, _Y = "x (reference px)", "y (reference px)"


def map_drawing(result: Result, alt: str, parts: Markup, key: Markup) -> Markup:
    """A drawing with the reference's pixels for axes."""
    axes = axes_of(result)
    return drawing(axes, alt, parts, draw_axes(axes, _X, _Y), key)


def drawing(axes: Axes, alt: str, *parts: Markup) -> Markup:
    """The complete SVG: the parts in this order, with a description for screen readers."""
    return element(
        "svg", *parts, class_="plot", viewBox=f"0 0 {number(WIDTH)} {number(axes.height)}", role="img", aria_label=alt
    )


def axes_of(result: Result) -> Axes:
    """Axes of the pictures' area."""
    return map_axes(result.previews.area, pixel_m_of(result))


def inside(axes: Axes, *parts: Markup) -> Markup:
    """Clip parts to the axes."""
    left, right = axes.x.start, axes.x.end
    top, bottom = sorted((axes.y.start, axes.y.end))
    box = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    return element("svg", *parts, **box, viewBox=" ".join(number(value) for value in box.values()))


def arrows_map(result: Result, alt: str) -> Markup | None:
    """Displacement arrows over the reference, enlarged by a round factor given in the key; None without arrows."""
    arrows = arrows_of(result)
    if arrows is None:
        return None
    axes = axes_of(result)
    starts, vectors = axes.place(arrows.start), arrows.factor * axes.x.per_unit * arrows.vectors
    shapes = arrow_shapes(starts, vectors)
    marks = [
        element("path", class_=kind, d=polygons(*shapes[mask]))
        for kind, mask in (("arrow", arrows.seen), ("arrow unseen", ~arrows.seen))
        if mask.any()
    ]
    return map_drawing(result, alt, inside(axes, _backdrop(result, axes), *marks), _arrow_key(axes, arrows, result))


def arrow_shapes(starts: FloatArray, vectors: FloatArray) -> FloatArray:
    """Outlines (N, 7, 2) of arrows with starts and vectors (N, 2); heads and shafts of short ones are smaller, too."""
    length = np.maximum(np.hypot(*vectors.T), 0.8)[:, None]
    along = vectors / length
    across = along[:, ::-1] * (-1.0, 1.0)
    size = np.minimum(1.0, length / (1.3 * _HEAD))
    neck = length - size * _HEAD
    sides = ((0, _SHAFT), (neck, _SHAFT), (neck, _HEAD_WIDE), (length, 0), (neck, -_HEAD_WIDE), (neck, -_SHAFT))
    outline = [starts + far * along + 0.5 * size * wide * across for far, wide in (*sides, (0, -_SHAFT))]
    return np.stack(outline, axis=1)


def points_map(result: Result, alt: str) -> Markup | None:
    """Tie points over the reference, coloured by residual, outliers hollow; None without any."""
    points, axes = result.tie_points, axes_of(result)
    if not len(points):
        return None
    every = -(-len(points) // MAX_POINTS_DRAWN)
    places, residual, inliers = (
        axes.place(points.reference_xy[::every]),
        points.residual_px[::every],
        points.inlier[::every],
    )
    radius = float(np.clip(52 / math.sqrt(len(places)), 1.8, 4.6))
    residuals = points.residual_px[points.inlier & np.isfinite(points.residual_px)]
    top = max(float(np.percentile(residuals, 98)), 0.2) if len(residuals) else 1.0
    shade = np.clip(np.nan_to_num(residual) / top * _SHADES, 0, _SHADES - 1).astype(int)
    groups = [_circles(places[~inliers], radius, "point out")]
    groups += [
        _circles(places[inliers & (shade == index)], radius, "point", fill=colour)
        for index, colour in enumerate(ramp("viridis", _SHADES))
    ]
    count = int(points.inlier.sum())
    kinds = [
        (dot("point", fill=ramp("viridis", 3)[1]), f"{count} kept"),
        (dot("point out"), f"{len(points) - count} left out"),
    ]
    bar = colour_bar(axes, "points", "viridis", top, "residual", per_pixel=result.quality.metres_per_pixel, start=0.34)
    return map_drawing(result, alt, joined(_backdrop(result, axes), *groups), joined(signs(axes, [kinds], [0.0]), bar))


def local_map(result: Result, alt: str, length: FloatArray) -> Markup:
    """Length of the displacement beyond the global affine, see `samples.local_length`."""
    axes, top = axes_of(result), scale_top(length)
    bar = colour_bar(axes, "local", "viridis", top, "local displacement", per_pixel=result.quality.metres_per_pixel)
    return map_drawing(result, alt, _raster(axes, png_uri(coloured(length, top, "viridis")), "cells"), bar)


def error_map(result: Result, alt: str) -> Markup | None:
    """Expected error of each place, grey and striped where unknown; None when it is unknown everywhere."""
    axes, values = axes_of(result), known_error(result)
    if not np.isfinite(values).any():
        return None
    top = scale_top(values)
    stripes = element("path", class_="stripe", d="M-2 10L10 -2M4 16L16 4M-8 4L4 -8")
    unseen = element("rect", class_="ground", width=8, height=8)
    pattern = element("pattern", unseen, stripes, id="error-unseen", width=8, height=8, patternUnits="userSpaceOnUse")
    left, right, upper, lower = axes.x.start, axes.x.end, axes.y.start, axes.y.end
    under = element("rect", x=left, y=upper, width=right - left, height=lower - upper, fill="url(#error-unseen)")
    parts = joined(
        element("defs", pattern), under, _raster(axes, png_uri(coloured(values, top, "plasma")), "cells"),
        _numbers(result, axes),
    )  # fmt: skip
    bar = colour_bar(
        axes, "error", "plasma", top, "expected error, RMS", per_pixel=result.quality.metres_per_pixel, start=0.3
    )
    key = signs(axes, [[(box("unseen", fill="url(#error-unseen)"), "not seen")]], [0.0])
    return map_drawing(result, alt, parts, joined(key, bar))


def _numbers(result: Result, axes: Axes) -> Markup:
    """The error of each cell in its place, if there is room, and a frame around the worst."""
    wide, high = ((scale.end - scale.start) / ACROSS for scale in (axes.x, axes.y))
    cells = [cell for cell in result.quality.cells if cell.is_seen]
    digits = error_digits(cells)
    parts = []
    for cell in cells if wide >= _CELL[0] and high >= _CELL[1] else ():
        x, y = axes.x.start + (cell.column + 0.5) * wide, axes.y.start + (cell.row + 0.5) * high
        parts.append(text(x, y + 4, f"{cell.error_px:.{digits}f}", "middle", class_="halo"))
    worst = max(cells, key=lambda cell: cell.error_px, default=None)
    if worst is not None and math.isfinite(worst.error_px):
        place = {"x": axes.x.start + worst.column * wide, "y": axes.y.start + worst.row * high}
        parts += [element("rect", class_=kind, **place, width=wide, height=high) for kind in ("worst under", "worst")]
    return joined(*parts)


def _arrow_key(axes: Axes, arrows: Arrows, result: Result) -> Markup:
    """A sample arrow of a round length with its label."""
    left, y = axes.x.start, axes.band + 16
    wide = arrows.factor * arrows.key_px * axes.x.per_unit
    shape = arrow_shapes(np.array([[left, y]]), np.array([[wide, 0.0]]))
    words = arrow_key(arrows.key_px, arrows.factor, pixel_m_of(result))
    sample = element("path", class_="sample", d=polygons(*shape))
    if wide < 0.3 * (axes.x.end - left):
        return joined(sample, text(left + wide + 10, y + 4, words))
    return joined(sample, text(left, y + 24, words))


def _circles(places: FloatArray, radius: float, kind: str, **more: object) -> Markup:
    """Circles at points (N, 2) with one style; "" without points."""
    if not len(places):
        return Markup()
    circles = "".join(f'<circle cx="{number(x)}" cy="{number(y)}" r="{radius:.1f}"/>' for x, y in places.tolist())
    return element("g", Markup(circles), class_=kind, **more)  # noqa: S704, numbers alone


def _raster(axes: Axes, uri: str, kind: str) -> Markup:
    """A picture that fills the axes."""
    left, top = axes.x.start, axes.y.start
    place = {"x": left, "y": top, "width": axes.x.end - left, "height": axes.y.end - top}
    return element("image", href=uri, class_=kind, **place, preserveAspectRatio="none")


def _backdrop(result: Result, axes: Axes) -> Markup:
    """The reference in dark grey, so that marks stand out."""
    return _raster(axes, grey_backdrop(result.previews.reference), "backdrop")
