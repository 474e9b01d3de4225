"""Maps between two images, the points that join them, and what `warp` applies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from somareg.types.images import Grid
from somareg.types.kinds import (
    BoolArray,
    FloatArray,
)


@runtime_checkable
class Transform(Protocol):
    """A map of the plane, called on (N, 2) pixel-centre points (x, y)."""

    def __call__(self, xy: FloatArray) -> FloatArray:
        """Map points (N, 2) to points (N, 2)."""
        ...

    @property
    def inverse(self) -> Transform:
        """The map back; `t.inverse(t(xy))` is xy to numerical accuracy."""
        ...

    @property
    def is_affine(self) -> bool:
        """True when the map is exactly affine (it then has a `.matrix`)."""
        ...

    def __matmul__(self, first: Transform) -> Transform:
        """`(a @ b)(xy) == a(b(xy))`: the right one is applied first."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Displacement:
    """A dense backward map on the reference grid.

    Attributes:
        array: (2, H, W) float32 pixels, (dx, dy): `moving_xy = reference_xy + (dx, dy)`, where moving is the moving
            image brought to the reference grid by its georeference (or as it is, without one). NaN nowhere.
        certainty: (H, W) float32 in 0-1: how much of the local estimate rests on matches seen nearby.
        grid: the reference grid, or one whose pixels are 16 x 16 of it: values hold in the middles of its pixels.
    """

    array: NDArray[np.float32]
    certainty: NDArray[np.float32]
    grid: Grid


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """What is needed to apply a registration to any raster of the moving image's ground; it outlives the pixels.

    Attributes:
        correction: reference pixels -> pixels on the reference grid where the georeference shows the same ground.
        reference: grid of the reference, on which `correction` lives.
        moving: grid of the moving image the estimate was made with (its size matters when nothing is georeferenced).
    """

    correction: Transform
    reference: Grid
    moving: Grid


@dataclass(frozen=True, slots=True, eq=False)
class TiePoints:
    """Point pairs that join the two images, one per window that was matched.

    Attributes:
        reference_xy: (N, 2) pixels of the reference.
        moving_xy: (N, 2) pixels of the moving image as given (its own grid).
        displacement: (N, 2) measured (dx, dy) in reference pixels (see `Displacement`).
        sigma_px: (N,) predicted standard error per axis, pixels.
        confidence: (N,) 0-1.
        inlier: (N,) bool, kept by the robust fit.
        residual_px: (N,) distance between the measured point and the final transform.

    Points read from a file hold NaN for what it does not tell.
    """

    reference_xy: FloatArray
    moving_xy: FloatArray
    displacement: FloatArray
    sigma_px: FloatArray
    confidence: FloatArray
    inlier: BoolArray
    residual_px: FloatArray

    def __len__(self) -> int:
        return len(self.reference_xy)
