"""Metres on the ground for lengths in pixels, which depend on direction and place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from somareg.types.kinds import FloatArray

_DIRECTIONS = 180


@dataclass(frozen=True, slots=True, eq=False)
class GroundMetric:
    """Metres on the ground of short steps in pixels, at one place or at several.

    A pixel of 0.0001 degrees is 11 m high everywhere, and 11 m wide at the equator but 4 m at 68 degrees north: a
    length in pixels has no length in metres before its direction and its place are known.

    Attributes:
        matrices: (N, 2, 2), one for each place: a step (right, down) in pixels -> metres along the pixel's upper edge
            and across it; upper triangular. N = 1 stands for all places. NaN marks an unknown place; statistics over
            all places leave it out.
    """

    matrices: NDArray[np.float64]

    def lengths(self, steps: FloatArray) -> FloatArray:
        """Metres (M,) of steps (M, 2) in pixels; each at its own place, or all at the only one."""
        on_ground = np.einsum("nij,nj->ni", self.matrices, np.asarray(steps, np.float64))
        length: FloatArray = np.hypot(on_ground[:, 0], on_ground[:, 1])
        return length

    @property
    def pixel_m(self) -> tuple[float, float]:
        """Metres of a pixel's upper and left edge, RMS over the places."""
        edges = np.sqrt((self._known**2).sum(axis=1).mean(axis=0))
        return float(edges[0]), float(edges[1])

    @property
    def even(self) -> FloatArray:
        """Metres (N,) of one pixel at each place where no direction is known: RMS over all directions.

        It turns an RMS error in pixels, the same in all directions, into the RMS error in metres.
        """
        scale: FloatArray = np.sqrt((self.matrices**2).sum(axis=(1, 2)) / 2)
        return scale

    @property
    def per_pixel(self) -> float:
        """The same over all places."""
        return math.hypot(*self.pixel_m) / math.sqrt(2.0)

    def circle_m(self, radius_px: float, share: float = 0.9) -> float:
        """Metres of the radius that holds as many errors as `radius_px` does in pixels.

        Errors are taken to be normal and the same in all directions in pixels; on the ground they form an ellipse.

        Args:
            radius_px: that holds `share` of the errors.
            share: for example 0.9 for CE90.
        """
        turn = np.arange(_DIRECTIONS) * (np.pi / _DIRECTIONS)
        around = np.stack([np.cos(turn), np.sin(turn)])
        squared = ((self._known @ around) ** 2).sum(axis=1).ravel()  # metres per pixel in each direction
        low, high = 0.0, float(squared.max())
        if not high > 0 or not math.isfinite(radius_px):
            return radius_px * math.sqrt(high)
        steep = -math.log1p(-share)
        for _ in range(60):  # the share inside grows with the radius
            middle = (low + high) / 2
            inside = 1.0 - float(np.exp(-steep * middle / np.maximum(squared, 1e-300)).mean())
            low, high = (middle, high) if inside < share else (low, middle)
        return radius_px * math.sqrt(high)

    def reach_px(self, metres: float) -> float:
        """Pixels that cover at least this many metres in every direction at every place; inf when none do."""
        shortest = float(np.linalg.svd(self._known, compute_uv=False)[:, -1].min())
        return metres / shortest if shortest > 0 else math.inf

    @property
    def _known(self) -> NDArray[np.float64]:
        return self.matrices[np.isfinite(self.matrices).all(axis=(1, 2))]


def metric_of(steps_m: FloatArray) -> GroundMetric:
    """The metric of places where the ground is known in space.

    Args:
        steps_m: (N, 3, 2) metres in any Cartesian frame of one pixel to the right and one down.
    """
    gram = np.einsum("nki,nkj->nij", steps_m, steps_m)
    across = np.zeros((len(gram), 2, 2))
    across[:, 0, 0] = np.sqrt(gram[:, 0, 0])
    across[:, 0, 1] = gram[:, 0, 1] / np.maximum(across[:, 0, 0], 1e-300)
    across[:, 1, 1] = np.sqrt(np.maximum(gram[:, 1, 1] - across[:, 0, 1] ** 2, 0.0))
    return GroundMetric(across)


def square_metric(metres: float | Sequence[float]) -> GroundMetric:
    """The metric of pixels of known size in metres: one number for squares, two for width and height."""
    return GroundMetric(np.diag(np.broadcast_to(np.asarray(metres, np.float64), 2))[None])
