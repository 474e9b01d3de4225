"""Fields on a regular lattice: values between nodes; displacements with their inverse and Jacobian."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.geometry.compose import compose
from somareg.types import FloatArray, Transform
from somareg.types.brief import brief


@dataclass(frozen=True, eq=False)
class LatticeValues:
    """A scalar field, bilinear between lattice nodes and constant outside the lattice.

    Attributes:
        array: (h, w) values at the nodes.
        origin, step: as of a `FieldTransform`.
    """

    array: FloatArray = field(repr=False)
    origin: tuple[float, float] = (0.0, 0.0)
    step: tuple[float, float] = (1.0, 1.0)

    def __call__(self, xy: FloatArray) -> FloatArray:
        """Values (N,) at points (N, 2)."""
        values: FloatArray = between_nodes(self.array[None], self.origin, self.step, xy)[:, 0]
        return values


def between_nodes(
    array: NDArray[np.floating[Any]], origin: tuple[float, float], step: tuple[float, float], xy: FloatArray
) -> FloatArray:
    """Interpolate nodes (k, h, w) at points (N, 2): values (N, k), constant outside; see `FieldTransform`."""
    _, h, w = array.shape
    points = np.asarray(xy, float)
    x = np.clip((points[:, 0] - origin[0]) / step[0], 0, w - 1)
    y = np.clip((points[:, 1] - origin[1]) / step[1], 0, h - 1)
    x0 = np.minimum(x.astype(np.intp), max(w - 2, 0))
    y0 = np.minimum(y.astype(np.intp), max(h - 2, 0))
    right, below = min(w - 1, 1), w * min(h - 1, 1)
    fx, fy = x - x0, y - y0
    node = y0 * w + x0
    result = np.empty((len(points), len(array)))
    for axis, nodes in enumerate(array.reshape(len(array), -1)):
        top = nodes.take(node) * (1 - fx) + nodes.take(node + right) * fx
        bottom = nodes.take(node + below) * (1 - fx) + nodes.take(node + (below + right)) * fx
        result[:, axis] = top * (1 - fy) + bottom * fy
    return result


@dataclass(frozen=True, eq=False)
class FieldTransform:
    """`xy -> xy + d(xy)`, d bilinear between lattice nodes and constant outside the lattice.

    Attributes:
        array: (2, h, w) float64 pixels (dx, dy) at the nodes.
        origin: (x, y) pixel position of node [0, 0].
        step: (x, y) pixels between nodes.
    """

    array: NDArray[np.float64]
    origin: tuple[float, float] = (0.0, 0.0)
    step: tuple[float, float] = (1.0, 1.0)

    def __repr__(self) -> str:
        rows, columns = self.array.shape[1:]
        return brief("FieldTransform", f"{columns} x {rows} nodes", "{:.4g} x {:.4g} px apart".format(*self.step))

    def displacement(self, xy: FloatArray) -> FloatArray:
        """d(xy), (N, 2) pixels."""
        return between_nodes(self.array, self.origin, self.step, xy)

    def __call__(self, xy: FloatArray) -> FloatArray:
        points = np.asarray(xy, float)
        return points + self.displacement(points)

    @property
    def inverse(self) -> InverseFieldTransform:
        return InverseFieldTransform(self)

    @property
    def is_affine(self) -> bool:
        return not self.array.any()

    def __matmul__(self, first: Transform) -> Transform:
        return compose(self, first)

    def jacobian_determinant(self) -> NDArray[np.float64]:
        """(h, w) determinant of the map's Jacobian at the nodes; <= 0 where the map folds over."""
        _, h, w = self.array.shape
        if h < 2 or w < 2:
            return np.ones((h, w))
        dx_y, dx_x = np.gradient(self.array[0], self.step[1], self.step[0])
        dy_y, dy_x = np.gradient(self.array[1], self.step[1], self.step[0])
        determinant: NDArray[np.float64] = (1 + dx_x) * (1 + dy_y) - dx_y * dy_x
        return determinant


@dataclass(frozen=True, eq=False)
class InverseFieldTransform:
    """The inverse of a field that does not fold, by fixed-point iteration `x <- y - d(x)`.

    Attributes:
        forward: the field to invert.
        tolerance_px: stop when no point moves further.
    """

    forward: FieldTransform
    tolerance_px: float = 1e-6

    def __call__(self, xy: FloatArray) -> FloatArray:
        target = np.asarray(xy, float)
        guess = target.copy()
        for _ in range(100):
            update = target - self.forward.displacement(guess)
            largest = float(np.abs(update - guess).max(initial=0.0))
            guess = update
            if largest < self.tolerance_px:
                break
        return guess

    @property
    def inverse(self) -> FieldTransform:
        return self.forward

    @property
    def is_affine(self) -> bool:
        return self.forward.is_affine

    def __matmul__(self, first: Transform) -> Transform:
        return compose(self, first)
