"""A result as one figure for a notebook or a paper: `Result.plot`."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from somareg.config import did_you_mean
from somareg.errors import ConfigError
from somareg.report.error_figure import draw_error, error_format
from somareg.report.maps import draw_arrows, extent_of, pixel_m_of
from somareg.report.style import DPI, LIGHT, NORMAL, SMALL
from somareg.report.words import arrow_key
from somareg.types import Panel, Result

DEFAULT: tuple[Panel, ...] = ("before", "after", "error")
SQUARES = 8  # of the checkerboard along the longer side
_PANEL_IN = 4.4  # width of a panel
_TALLEST = 2.0  # a panel, against its width


class Shown(Figure):
    """A figure that notebooks draw by themselves, and once: pyplot does not know of it."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png")
        return stream.getvalue()


def plot(result: Result, panels: Sequence[str] = ()) -> Figure:
    """The panels side by side, in reference pixels; see `Result.plot`.

    Raises:
        ConfigError: an unknown panel.
    """
    chosen = tuple(panels) or DEFAULT
    for name in chosen:
        if name not in _DRAW:
            raise ConfigError(f"unknown panel '{name}'.{did_you_mean(name, tuple(_DRAW))}")
    _, _, width, height = result.previews.area
    tall = float(np.clip(height / width, 1 / _TALLEST, _TALLEST))
    size = _PANEL_IN * len(chosen), _PANEL_IN * tall + 1.0
    figure = Shown(figsize=size, dpi=DPI, facecolor=LIGHT.paper, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(chosen), squeeze=False)[0]
    for name, own in zip(chosen, axes, strict=True):
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
    """Two pictures of one size, (h, w) or (h, w, 3), in turn; what lies on both lines up across the squares' edges."""
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
    drawn = draw_arrows(axes, result)
    if drawn is None:
        return "Displacement"
    return f"Displacement\na long arrow is {arrow_key(*drawn, pixel_m_of(result))}"


def _error(axes: Axes, result: Result) -> str:
    shown = draw_error(axes, result)
    if shown is None:
        return "Expected error"
    words = error_format(result, "\n")
    bar = axes.figure.colorbar(
        shown, ax=axes, location="bottom", shrink=0.8, pad=0.02, format=lambda value, _: words(value)
    )
    bar.ax.tick_params(colors=LIGHT.ink, labelsize=SMALL, color=LIGHT.muted, length=2)
    return "Expected error; striped where nothing was seen"


_DRAW: dict[Panel, Callable[[Axes, Result], str]] = {
    "reference": _reference,
    "before": _before,
    "after": _after,
    "arrows": _arrows,
    "error": _error,
}
