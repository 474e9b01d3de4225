"""Affine maps of pixel-centre coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.errors import EstimationError
from somareg.geometry.compose import compose
from somareg.types import FloatArray, Transform


@dataclass(frozen=True, eq=False)
class AffineTransform:
    """`xy -> matrix[:, :2] @ xy + matrix[:, 2]`.

    Attributes:
        matrix: (2, 3) float64, pixels to pixels.

    Raises:
        EstimationError: the matrix is singular or not finite.
    """

    matrix: NDArray[np.float64]

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        if matrix.shape != (2, 3):
            raise ValueError(f"an affine matrix is (2, 3), not {matrix.shape}")
        if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:, :2])) < 1e-12:
            raise EstimationError("affine matrix is singular or not finite")
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    def __repr__(self) -> str:
        rows = ", ".join("[" + ", ".join(f"{value:.8g}" for value in row) + "]" for row in self.matrix)
        return f"AffineTransform([{rows}])"

    @classmethod
    def identity(cls) -> AffineTransform:
        return cls(np.eye(2, 3))

    @classmethod
    def reduction(cls, factor: int) -> AffineTransform:
        """Pixels of an image averaged over `factor` x `factor` blocks -> pixels of the full image."""
        offset = (factor - 1) / 2
        return cls(np.array([[factor, 0.0, offset], [0.0, factor, offset]]))

    @classmethod
    def from_parameters(
        cls,
        *,
        rotation_deg: float = 0.0,
        scale: float | Sequence[float] = 1.0,
        shear_deg: float = 0.0,
        shift: Sequence[float] = (0.0, 0.0),
        centre: Sequence[float] = (0.0, 0.0),
    ) -> AffineTransform:
        """Scale, shear and rotate about `centre`, then shift.

        Args:
            rotation_deg: clockwise on the screen (+y is down).
            scale: one factor or (x, y) factors.
            shear_deg: angle by which the y axis leans.
            shift: (dx, dy) pixels.
            centre: (x, y) fixed point before the shift.
        """
        angle, lean = np.deg2rad(rotation_deg), np.tan(np.deg2rad(shear_deg))
        cos, sin = np.cos(angle), np.sin(angle)
        rotation, shear = np.array([[cos, -sin], [sin, cos]]), np.array([[1.0, lean], [0.0, 1.0]])
        linear = rotation @ shear @ np.diag(np.broadcast_to(scale, 2))
        middle = np.asarray(centre, float)
        return cls(np.column_stack([linear, middle + np.asarray(shift, float) - linear @ middle]))

    def parameters(self, centre: Sequence[float] = (0.0, 0.0)) -> dict[str, Any]:
        """The inverse of `from_parameters`: rotation_deg, scale (x, y), shear_deg, shift."""
        linear = self.matrix[:, :2]
        angle = np.arctan2(linear[1, 0], linear[0, 0])
        cos, sin = np.cos(angle), np.sin(angle)
        upper = np.array([[cos, sin], [-sin, cos]]) @ linear
        middle = np.asarray(centre, float)
        shift = self(middle[None])[0] - middle
        return {
            "rotation_deg": float(np.rad2deg(angle)),
            "scale": (float(upper[0, 0]), float(upper[1, 1])),
            "shear_deg": float(np.rad2deg(np.arctan2(upper[0, 1], upper[1, 1]))),
            "shift": (float(shift[0]), float(shift[1])),
        }

    def __call__(self, xy: FloatArray) -> FloatArray:
        result: FloatArray = np.asarray(xy, float) @ self.matrix[:, :2].T
        result[..., 0] += self.matrix[0, 2]  # one column at a time: five times as fast as adding rows of two
        result[..., 1] += self.matrix[1, 2]
        return result

    @property
    def inverse(self) -> AffineTransform:
        linear = np.linalg.inv(self.matrix[:, :2])
        return AffineTransform(np.column_stack([linear, -linear @ self.matrix[:, 2]]))

    @property
    def is_affine(self) -> bool:
        return True

    def after(self, first: AffineTransform) -> AffineTransform:
        """The product of two affines: `first` is applied first."""
        linear = self.matrix[:, :2] @ first.matrix[:, :2]
        return AffineTransform(np.column_stack([linear, self(first.matrix[:, 2][None])[0]]))

    def __matmul__(self, first: Transform) -> Transform:
        return self.after(first) if isinstance(first, AffineTransform) else compose(self, first)
