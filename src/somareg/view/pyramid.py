"""The map: square tiles over the reference's pixels, each zoom level twice as fine as the one before."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from somareg.types import FloatArray

TILE_PX = 256


@dataclass(frozen=True)
class Area:
    """A picture's place on the reference grid.

    Attributes:
        left, top: of its corner, in reference pixels from the corner of the first pixel.
        step: reference pixels per pixel of the picture.
        width, height: of the picture, pixels.
    """

    left: float
    top: float
    step: float
    width: int = TILE_PX
    height: int = TILE_PX

    @property
    def points(self) -> FloatArray:
        """(height, width, 2) reference pixel-centre coordinates of the picture's pixels."""
        x = self.left + (np.arange(self.width) + 0.5) * self.step - 0.5
        y = self.top + (np.arange(self.height) + 0.5) * self.step - 0.5
        return np.stack(np.meshgrid(x, y), axis=-1)

    def grown(self, margin: int) -> Area:
        """With so many more pixels on each side."""
        return replace(
            self,
            left=self.left - margin * self.step,
            top=self.top - margin * self.step,
            width=self.width + 2 * margin,
            height=self.height + 2 * margin,
        )

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of its points, pixel centres."""
        half = self.step / 2 - 0.5
        right, bottom = self.left + self.width * self.step, self.top + self.height * self.step
        return self.left + half, self.top + half, right - half - 1, bottom - half - 1


@dataclass(frozen=True)
class Pyramid:
    """Tiles of an image of (width, height); level 0 is one tile, the last level has a tile pixel per image pixel."""

    width: int
    height: int

    @property
    def levels(self) -> int:
        """Number of levels."""
        return 1 + max(0, math.ceil(math.log2(max(self.width, self.height) / TILE_PX)))

    @property
    def steps(self) -> list[int]:
        """Reference pixels per tile pixel, one per level."""
        return [2 ** (self.levels - 1 - level) for level in range(self.levels)]

    def tile(self, level: int, column: int, row: int) -> Area:
        """The area of a tile.

        Raises:
            KeyError: there is none.
        """
        if not 0 <= level < self.levels:
            raise KeyError(level)
        step = self.steps[level]
        side = TILE_PX * step
        if not (0 <= column * side < self.width and 0 <= row * side < self.height):
            raise KeyError((column, row))
        return Area(column * side, row * side, step)

    def overview(self, longest: int) -> Area:
        """The whole image in a picture of at most `longest` pixels a side."""
        step = max(1.0, max(self.width, self.height) / longest)
        return Area(0, 0, step, max(1, int(self.width / step)), max(1, int(self.height / step)))
