"""Displacement arrows over a part of the map, as many as the eye can take at any zoom."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

import numpy as np

from somareg.geometry import AffineTransform
from somareg.report.words import arrow_key, nice
from somareg.types import Estimate, FloatArray, Transform

MAX_ACROSS = 48
SURVEY = 24  # points across the scene from which the usual length is taken
NOTHING_PX = 0.02
"""Displacements below this are drawn as none: far below what any pair can show."""

Part = Literal["whole", "local"]
Bounds = tuple[float, float, float, float]


class Arrows:
    """The displacement of a result, sampled where arrows are to stand.

    Args:
        estimate: correction and reference grid.
        affine: the global part of the correction; None when it is not known.
        pixel_m: upper and left edge of a reference pixel, metres; None without a georeference.
        certainty: at reference pixels (N, 2) -> (N,), 0-1.
    """

    def __init__(
        self,
        estimate: Estimate,
        affine: AffineTransform | None,
        pixel_m: tuple[float, float] | None,
        certainty: Callable[[FloatArray], FloatArray],
    ) -> None:
        self._grid, self._correction, self._affine = estimate.reference, estimate.correction, affine
        self._pixel_m, self._certainty = pixel_m, certainty

    @property
    def has_local(self) -> bool:
        """There is an affine to look beyond."""
        return self._affine is not None

    def over(self, bounds: Bounds, spacing: float, part: Part = "whole") -> dict[str, Any]:
        """Arrows at the crossings of a lattice that stays put while the map moves.

        Args:
            bounds: left, top, right, bottom of the view, reference pixels.
            spacing: between arrows, reference pixels; made larger where there would be too many.
            part: the whole displacement, or what lies beyond the affine.

        Returns:
            "arrows": [x, y, dx, dy, certainty] each, in reference pixels; "factor": how many times longer they are to
            be drawn; "key_px" and "key": length of a sample arrow and its words.
        """
        left, right = max(bounds[0], 0.0), min(bounds[2], self._grid.width - 1.0)
        top, bottom = max(bounds[1], 0.0), min(bounds[3], self._grid.height - 1.0)
        spacing = max(spacing, (right - left) / MAX_ACROSS, (bottom - top) / MAX_ACROSS, 1.0)
        x, y = _crossings(left, right, spacing), _crossings(top, bottom, spacing)
        xy = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        usual = self._usual_length[part]
        if usual < NOTHING_PX:
            where = "everywhere" if part == "whole" else "beyond the affine"
            words = f"no displacement: below {NOTHING_PX} px {where}"
            return {"arrows": [], "factor": 1, "key_px": 0, "key": words}
        factor = nice(1.1 * spacing / usual) or 1.0
        table = (
            np.column_stack([xy, self._displacement(xy, part), self._certainty(xy)]) if len(xy) else np.empty((0, 5))
        )
        length = nice(usual, up=True)
        return {
            "arrows": np.round(table, 3).tolist(),
            "factor": factor,
            "key_px": length,
            "key": arrow_key(length, factor, self._pixel_m),
        }

    def _displacement(self, xy: FloatArray, part: Part) -> FloatArray:
        start: FloatArray = xy if part == "whole" or self._affine is None else self._affine(xy)
        correction: Transform = self._correction
        return correction(xy) - start

    @cached_property
    def _usual_length(self) -> dict[Part, float]:
        """95th percentile of the length over the whole scene: arrows keep their scale while the map moves."""
        axes = ((np.arange(SURVEY) + 0.5) * size / SURVEY for size in (self._grid.width, self._grid.height))
        xy = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
        parts: tuple[Part, ...] = ("whole", "local")
        return {part: float(np.percentile(np.hypot(*self._displacement(xy, part).T), 95)) for part in parts}


def _crossings(start: float, end: float, spacing: float) -> FloatArray:
    first = np.ceil(start / spacing - 0.5)
    return (np.arange(first, max(first, np.floor(end / spacing - 0.5) + 1)) + 0.5) * spacing
