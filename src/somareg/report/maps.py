"""Figures in the reference's frame as PNG bytes: arrows, local displacement, tie points."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from somareg.report.style import LIGHT, SMALL, Map, Theme, colourbar, legend, message, new_map, png
from somareg.report.words import arrow_key, nice, on_ground
from somareg.types import Result

MAX_MAP_CELLS = 400
"""Longest side of a map in cells: a scene's field is thinned to it before anything is computed."""
ARROWS_ACROSS = 16
MAX_POINTS_DRAWN = 4000
NOTHING_PX = 0.02
"""Displacements below this are drawn as "none": they are far below what any pair can show."""
OUTLIER = "#ff7a45"


def arrows_figure(result: Result, theme: Theme = LIGHT) -> bytes:
    """Displacement arrows over the reference, exaggerated by a round factor that the key states."""
    chart = new_map(result.previews.area, theme)
    drawn = draw_arrows(chart.axes, result, theme)
    if drawn is not None:
        _arrow_key(chart, theme, *drawn, result)
    return png(chart.figure, photo=True)


def draw_arrows(axes: Axes, result: Result, theme: Theme = LIGHT) -> tuple[float, float] | None:
    """Displacement arrows over the reference on axes in reference pixels.

    Returns:
        The round length of a sample arrow in pixels, and how many times longer arrows are drawn; None where there is no
        displacement, which the axes then say.
    """
    left, top, width, height = result.previews.area
    _backdrop(axes, result)
    spacing = max(width, height) / ARROWS_ACROSS
    x, y = (_centres(size, spacing) + round(start) for size, start in ((width, left), (height, top)))
    rows, columns = np.meshgrid(y, x, indexing="ij")
    down, right = cells_at(result, rows, columns)
    dx, dy = result.displacement.array[:, down, right].astype(float)
    sigma = result.displacement.sigma[down, right]
    long = float(np.percentile(np.hypot(dx, dy), 95))
    if long < NOTHING_PX:
        message(axes, theme, f"No displacement: below {NOTHING_PX} px everywhere")
        return None
    factor = nice(1.1 * spacing / long) or 1.0
    colours = np.zeros((*sigma.shape, 4))
    colours[..., :3] = (1.0, 0.83, 0.16)
    colours[..., 3] = np.where(np.isnan(sigma), 0.4, 1.0)
    arrows = axes.quiver(
        columns,
        rows,
        factor * dx,
        factor * dy,
        color=colours.reshape(-1, 4),
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.0042,
        headwidth=3.6,
        headlength=4.2,
        headaxislength=3.8,
        minlength=0.5,
    )
    arrows.set_path_effects([patheffects.withStroke(linewidth=2.0, foreground="#101418")])
    return nice(long, up=True), factor


def local_figure(result: Result, theme: Theme = LIGHT) -> bytes:
    """Length of the displacement beyond the global affine."""
    left, top, width, height = result.previews.area
    chart = new_map(result.previews.area, theme)
    step = max(1, -(-round(max(width, height)) // MAX_MAP_CELLS))
    rows, columns = np.mgrid[top : top + height : step, left : left + width : step]
    xy = np.column_stack([columns.ravel(), rows.ravel()]).astype(float)
    size = np.hypot(*(result.correction(xy) - result.affine(xy)).T).reshape(rows.shape)
    most = max(float(np.percentile(size, 99.5)), 0.1)
    shown = chart.axes.imshow(
        size, cmap="viridis", vmin=0, vmax=most, extent=extent_of(result), interpolation="nearest"
    )
    colourbar(chart, shown, theme, f"local displacement (px{_one_pixel(result)})")
    if float(size.max()) < NOTHING_PX:
        nothing = "The affine explains everything: no local displacement"
        unknown = "No alignment was found, and no local displacement"
        message(chart.axes, theme, unknown if result.verdict.decision == "no-go" else nothing)
    return png(chart.figure)


def points_figure(result: Result, theme: Theme = LIGHT) -> bytes:
    """Tie points over the reference, coloured by residual, outliers hollow."""
    chart = new_map(result.previews.area, theme)
    _backdrop(chart.axes, result)
    points = result.tie_points
    if not len(points):
        message(chart.axes, theme, "No tie points: nothing could be matched")
        return png(chart.figure, photo=True)
    every = -(-len(points) // MAX_POINTS_DRAWN)
    xy, residual, kept = points.reference_xy[::every], points.residual_px[::every], points.inlier[::every]
    size = float(np.clip(9000 / len(xy), 8, 42))
    seen = points.residual_px[points.inlier & np.isfinite(points.residual_px)]
    top = max(float(np.percentile(seen, 98)), 0.2) if len(seen) else 1.0
    chart.axes.scatter(xy[~kept, 0], xy[~kept, 1], s=size, facecolors="none", edgecolors=OUTLIER, linewidths=1.3)
    shown = chart.axes.scatter(
        xy[kept, 0],
        xy[kept, 1],
        s=size,
        c=residual[kept],
        cmap="viridis",
        vmin=0,
        vmax=top,
        edgecolors="white",
        linewidths=0.6,
    )
    colourbar(chart, shown, theme, f"residual (px{_one_pixel(result)})", start=0.34)
    count = int(points.inlier.sum())
    handles = [
        _marker("#2a9d8f", "#ffffff", f"{count} kept"),
        _marker("none", OUTLIER, f"{len(points) - count} left out"),
    ]
    left, _, _, height = chart.band
    corner = (left - 0.03, 1.02 * height)
    legend(chart.figure, theme, handles, loc="upper left", bbox_to_anchor=corner, borderaxespad=0, frameon=False)
    return png(chart.figure, photo=True)


def cells_at(result: Result, rows: NDArray[Any], columns: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows and columns of the displacement's array at reference pixels: a large scene has fewer than pixels."""
    grid, (height, width) = result.reference.grid, result.displacement.grid.shape
    down, across = np.minimum(rows, grid.height - 1), np.minimum(columns, grid.width - 1)
    return down * height // grid.height, across * width // grid.width


def _arrow_key(chart: Map, theme: Theme, length_px: float, factor: float, result: Result) -> None:
    """A sample arrow of a round length in the band, with the exaggeration in words."""
    left, _, width, height = chart.band
    per_inch = chart.axes.get_window_extent().width / (chart.axes.get_xlim()[1] - chart.axes.get_xlim()[0])
    wide = factor * length_px * per_inch / chart.figure.bbox.width
    y = 0.72 * height
    arrow = {
        "arrowstyle": "-|>,head_width=0.3,head_length=0.6",
        "color": theme.ink,
        "linewidth": 2,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    chart.axes.annotate(
        "", (left + wide, y), (left, y), xycoords="figure fraction", textcoords="figure fraction", arrowprops=arrow
    )
    chart.figure.text(
        min(left + wide, left + 0.5 * width) + 0.02,
        y,
        arrow_key(length_px, factor, pixel_m_of(result)),
        va="center",
        color=theme.ink,
        fontsize=SMALL,
    )


def _marker(face: str, edge: str, text: str) -> Line2D:
    return Line2D(
        [], [], linestyle="none", marker="o", markersize=6, markerfacecolor=face, markeredgecolor=edge, label=text
    )


def _backdrop(axes: Axes, result: Result) -> None:
    """The reference in grey, dimmed towards black so that marks stand out."""
    image = result.previews.reference.astype(np.float32)
    grey = image @ np.array([0.299, 0.587, 0.114], np.float32) if image.ndim == 3 else image
    axes.set_facecolor("#101418")
    axes.imshow(0.62 * grey, cmap="gray", vmin=0, vmax=255, extent=extent_of(result), interpolation="antialiased")


def extent_of(result: Result) -> tuple[float, float, float, float]:
    """Left, right, bottom and top edge of what the pictures show."""
    left, top, width, height = result.previews.area
    return left - 0.5, left + width - 0.5, top + height - 0.5, top - 0.5


def _centres(size: float, spacing: float) -> NDArray[np.intp]:
    """Pixel positions of evenly spread cells, at least one."""
    count = max(1, round(size / spacing))
    return ((np.arange(count) + 0.5) * size / count).astype(np.intp)


def _one_pixel(result: Result) -> str:
    pixel_m = pixel_m_of(result)
    return "" if pixel_m is None else f"; 1 px = {on_ground(1.0, pixel_m)}"


def pixel_m_of(result: Result) -> tuple[float, float] | None:
    """Edges of a reference pixel, metres; None without a georeference."""
    return result.quality.metres.pixel_m if result.quality.metres else None
