"""Parts of the common ground: the expected error of each, and a picture of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

ACROSS = 6
"""Cells along each side of the common ground."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One of the 6 x 6 parts of the common ground; parts without common pixels have no cell.

    Attributes:
        column, row: 0-5, from the left and from the top.
        x, y: reference pixel in the middle of the part's common pixels.
        seen: share of the common pixels whose error nearby matches tell, 0-1.
        error_px: expected RMS error there, reference pixels; NaN where `seen` is below one half.
        error_m: the same on the ground; None without a CRS.
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
        """Whether the expected error is known."""
        return self.error_px == self.error_px


@dataclass(frozen=True, slots=True)
class Place:
    """A place worth a look by a person.

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
