"""Parts of the common ground: the expected error of each, and close-ups."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

ACROSS = 6
"""Cells along each side of the common ground."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One of 6 x 6 parts of the common ground; of those parts only that both images show.

    Attributes:
        column, row: 0-5, from the left and from the top.
        x, y: reference pixel in the middle of the ground that both images show of the cell.
        seen: share of that ground with matches nearby, 0-1.
        error_px: expected RMS error there, reference pixels; NaN where less than half was seen.
        error_m: the same on the ground; None where no CRS tells.
    """

    column: int
    row: int
    x: float
    y: float
    seen: float
    error_px: float
    error_m: float | None = None

    @property
    def is_seen(self) -> bool:
        """Whether its error is known."""
        return self.error_px == self.error_px


@dataclass(frozen=True, slots=True)
class Place:
    """A place to look at.

    Attributes:
        x, y: reference pixel.
        where: in words, as in "the north-west corner".
        error_px: expected RMS error there, reference pixels; NaN where it is not known.
        residual_px: of the kept tie point there, reference pixels; None without one.
    """

    x: float
    y: float
    where: str
    error_px: float
    residual_px: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Closeup:
    """A small picture of a place: edges of one image in colour over the other one, as aligned.

    Attributes:
        place: in the middle of it.
        picture: (h, w, 3) uint8.
        step: reference pixels per pixel of the picture.
    """

    place: Place
    picture: NDArray[np.uint8] = field(repr=False)
    step: float
