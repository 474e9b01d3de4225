"""`Result.plot`: a result as one figure for a notebook or a paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from somareg.config import did_you_mean
from somareg.errors import ConfigError
from somareg.report.samples import (
    NOTHING_PX,
    arrows_of,
    error_digits,
    known_error,
    pixel_m_of,
    scale_top,
)
from somareg.report.style import DPI, LIGHT, NORMAL, SMALL, message, png
from somareg.report.words import arrow_key
from somareg.types import ACROSS, Panel, Result

DEFAULT: tuple[Panel, ...] = ("before", "after", "error")
SQUARES = 8  # squares of the checkerboard along the longer side
_PANEL_IN = 4.4  # width of a panel, inches
_TALLEST = 2.0  # limits of a panel's height relative to its width
_UNSEEN: dict[str, Any] = {"facecolor": "#9aa0a6", "hatch": "////", "edgecolor": "#70767c", "linewidth": 0}


class Shown(Figure):
    """A figure that notebooks draw once, because it is unknown to pyplot."""

    def _repr_png_(self) -> bytes:
        return png(self)


def plot(result: Result, panels: Sequence[str] = ()) -> Figure:
    """The panels side by side, in reference pixels; see `Result.plot`.

    Raises:
        ConfigError: an unknown panel.
    """
    names = tuple(panels) or DEFAULT
    for name in names:
        if name not in _DRAW:
            raise ConfigError(f"unknown panel '{name}'.{did_you_mean(name, tuple(_DRAW))}")
    _, _, width, height = result.previews.area
    tall = float(np.clip(height / width, 1 / _TALLEST, _TALLEST))
    size = _PANEL_IN * len(names), _PANEL_IN * tall + 1.0
    figure = Shown(figsize=size, dpi=DPI, facecolor=LIGHT.paper, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for name, own in zip(names, axes, strict=True):
        own.tick_params(colors=LIGHT.ink, labelsize=SMALL, color=LIGHT.muted, length=3)
        title = _DRAW[cast(Panel, name)](own, result)
        own.set_title(title, color=LIGHT.ink, fontsize=NORMAL)
        own.set_xlabel("x (reference px)", color=LIGHT.ink, fontsize=SMALL)
        left, right, bottom, top = extent_of(result)
        own.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axes[0].set_ylabel("y (reference px)", color=LIGHT.ink, fontsize=SMALL)
    figure.suptitle(result.verdict.headline, color=LIGHT.ink, fontsize=NORMAL, wrap=True)
    return figure


def checkerboard(one: NDArray[np.uint8], two: NDArray[np.uint8], squares: int = SQUARES) -> NDArray[np.uint8]:
    """Checkerboard of two pictures of one size, (h, w) or (h, w, 3); aligned features continue across the squares."""
    if one.ndim != two.ndim:
        one, two = (each if each.ndim == 3 else np.repeat(each[..., None], 3, axis=2) for each in (one, two))
    rows, columns = one.shape[:2]
    side = max(1, -(-max(rows, columns) // squares))
    odd = (np.arange(rows)[:, None] // side + np.arange(columns) // side) % 2 == 1
    return np.where(odd[..., None] if one.ndim == 3 else odd, two, one)


def _picture(axes: Axes, result: Result, picture: NDArray[np.uint8]) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=extent_of(result), interpolation="antialiased")


def _reference(axes: Axes, result: Result) -> str:
    _picture(axes, result, result.previews.reference)
    return "Reference"


def _before(axes: Axes, result: Result) -> str:
    _picture(axes, result, checkerboard(result.previews.reference, result.previews.before))
    return "Before: reference and moving in turn"


def _after(axes: Axes, result: Result) -> str:
    _picture(axes, result, checkerboard(result.previews.reference, result.previews.after))
    return "After: reference and moving in turn"


def _arrows(axes: Axes, result: Result) -> str:
    _picture(axes, result, _dimmed(result.previews.reference))
    arrows = arrows_of(result)
    if arrows is None:
        message(axes, LIGHT, f"No displacement: below {NOTHING_PX} px everywhere")
        return "Displacement"
    colours = np.full((len(arrows.start), 4), (1.0, 0.83, 0.16, 1.0))
    colours[~arrows.seen, 3] = 0.4
    shape: dict[str, Any] = {
        "width": 0.0042,
        "headwidth": 3.6,
        "headlength": 4.2,
        "headaxislength": 3.8,
        "minlength": 0.5,
    }
    quiver = axes.quiver(
        *arrows.start.T, *(arrows.factor * arrows.vectors).T, color=colours, angles="xy", scale_units="xy", scale=1,
        **shape,
    )  # fmt: skip
    quiver.set_path_effects(_outlined(2.0))
    return f"Displacement\na long arrow is {arrow_key(arrows.key_px, arrows.factor, pixel_m_of(result))}"


def _error(axes: Axes, result: Result) -> str:
    left, right, bottom, top = extent_of(result)
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, zorder=-1, **_UNSEEN))
    values = known_error(result)
    if not np.isfinite(values).any():
        message(axes, LIGHT, "No part has enough matches nearby")
        return "Expected error"
    picture = axes.imshow(
        np.ma.masked_invalid(values), cmap="plasma", vmin=0, vmax=scale_top(values), extent=extent_of(result),
        interpolation="nearest",
    )  # fmt: skip
    _numbers(axes, result)
    bar = axes.figure.colorbar(picture, ax=axes, location="bottom", shrink=0.8, pad=0.02, format=_error_words(result))
    bar.ax.tick_params(colors=LIGHT.ink, labelsize=SMALL, color=LIGHT.muted, length=2)
    return "Expected error; striped where nothing was seen"


def _error_words(result: Result) -> Callable[[float, Any], str]:
    """Formatter of an error: "2 px", with metres on a second line if known."""
    per_pixel = result.quality.metres_per_pixel
    if per_pixel is None:
        return lambda value, _: f"{value:g} px"
    return lambda value, _: f"{value:g} px\n{value * per_pixel:.3g} m"


def _numbers(axes: Axes, result: Result) -> None:
    """Write the error of each cell in its place, with a frame around the worst."""
    left, top, width, height = result.previews.area
    wide, high = width / ACROSS, height / ACROSS
    cells = [cell for cell in result.quality.cells if cell.is_seen]
    digits = error_digits(cells)
    for cell in cells:
        x, y = left - 0.5 + (cell.column + 0.5) * wide, top - 0.5 + (cell.row + 0.5) * high
        text = axes.text(x, y, f"{cell.error_px:.{digits}f}", ha="center", va="center", color="white", fontsize=SMALL)
        text.set_path_effects(_outlined(2.0))
    worst = max(cells, key=lambda cell: cell.error_px, default=None)
    if worst is not None and math.isfinite(worst.error_px):
        corner = left - 0.5 + worst.column * wide, top - 0.5 + worst.row * high
        frame = Rectangle(corner, wide, high, fill=False, edgecolor="white", linewidth=1.6)
        frame.set_path_effects(_outlined(3.2))
        axes.add_patch(frame)


def _outlined(width: float) -> list[Any]:
    return [patheffects.withStroke(linewidth=width, foreground="#101418")]


def _dimmed(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert to dark grey, so that marks stand out."""
    grey = picture @ np.array([0.299, 0.587, 0.114]) if picture.ndim == 3 else picture
    return np.asarray(0.62 * grey, np.uint8)


def extent_of(result: Result) -> tuple[float, float, float, float]:
    """Left, right, bottom and top edge of the pictures' area."""
    left, top, width, height = result.previews.area
    return left - 0.5, left + width - 0.5, top + height - 0.5, top - 0.5


_DRAW: dict[Panel, Callable[[Axes, Result], str]] = {
    "reference": _reference,
    "before": _before,
    "after": _after,
    "arrows": _arrows,
    "error": _error,
}
