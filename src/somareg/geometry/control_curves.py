"""Curves through ground control points, pixel -> map: a least-squares polynomial and a thin-plate spline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from somareg.errors import GeoreferenceError
from somareg.types import FloatArray

MAX_SPLINE_POINTS = 2000
"""The spline solves a full linear system of the points."""

WAY_OUT = "correct the points, or join them by a polynomial (--gcp-method polynomial)"
_CHUNK = 2_000_000  # distances held at a time


class _Normalised:
    """Points relative to their centre in units of their spread, the same on both axes, for better conditioning."""

    def __init__(self, xy: FloatArray, map_xy: FloatArray) -> None:
        if len(xy) < 3:
            raise GeoreferenceError(f"{len(xy)} ground control points do not place an image; three are needed")
        self.centre = xy.mean(0)
        self.spread = max(float(np.abs(xy - self.centre).max()), 1e-9)
        self.map_centre = map_xy.mean(0)
        self.nodes: NDArray[np.float64] = (xy - self.centre) / self.spread
        self.values: NDArray[np.float64] = map_xy - self.map_centre
        if np.linalg.cond(_monomials(self.nodes, 1)) > 1e6:
            raise GeoreferenceError("the ground control points lie on a line and do not place an image")

    def normalised(self, xy: FloatArray) -> NDArray[np.float64]:
        result: NDArray[np.float64] = (np.asarray(xy, np.float64) - self.centre) / self.spread
        return result


class Polynomial(_Normalised):
    """Least squares; the order is GDAL's choice unless given."""

    def __init__(self, xy: FloatArray, map_xy: FloatArray, order: int | None = None) -> None:
        super().__init__(xy, map_xy)
        self.order = order or (2 if len(xy) >= 6 else 1)
        self.design = _monomials(self.nodes, self.order)
        if self.order == 2 and np.linalg.cond(self.design) > 1e8:  # for example points on a circle
            self.order, self.design = 1, _monomials(self.nodes, 1)
        self.coefficients = np.linalg.lstsq(self.design, self.values, rcond=None)[0]

    def __call__(self, xy: FloatArray) -> FloatArray:
        result: FloatArray = _monomials(self.normalised(xy), self.order) @ self.coefficients + self.map_centre
        return result

    @property
    def map_units_per_pixel(self) -> float:
        linear = self.coefficients[1:3] / self.spread
        return float(np.sqrt(abs(np.linalg.det(linear))))

    def left_out(self) -> float:
        """RMS error at each point of the fit without it, by the hat matrix; inf when nothing is left over."""
        leverage = (self.design * np.linalg.pinv(self.design).T).sum(1)
        if float(leverage.max()) > 1 - 1e-9:
            return float("inf")
        residual = (self.values - self.design @ self.coefficients) / (1 - leverage)[:, None]
        return _rms(residual)


class Spline(_Normalised):
    """Thin-plate spline through all points: `r^2 log r^2` and an affine part (Duchon 1977)."""

    def __init__(self, xy: FloatArray, map_xy: FloatArray) -> None:
        super().__init__(xy, map_xy)
        n = len(xy)
        if n > MAX_SPLINE_POINTS:
            raise GeoreferenceError(
                f"{n} ground control points are too many for a spline (at most {MAX_SPLINE_POINTS}); {WAY_OUT}"
            )
        if len(np.unique(self.nodes, axis=0)) < n:
            raise GeoreferenceError(f"two ground control points share one pixel but not one place; {WAY_OUT}")
        affine = _monomials(self.nodes, 1)
        self.system = np.zeros((n + 3, n + 3))
        self.system[:n, :n] = _radial(self.nodes, self.nodes)
        self.system[:n, n:], self.system[n:, :n] = affine, affine.T
        try:
            self.coefficients = np.linalg.solve(self.system, np.concatenate([self.values, np.zeros((3, 2))]))
        except np.linalg.LinAlgError as error:
            raise GeoreferenceError(f"two ground control points nearly share one pixel; {WAY_OUT}") from error

    def __call__(self, xy: FloatArray) -> FloatArray:
        points = self.normalised(xy)
        n, size = len(self.nodes), max(1, _CHUNK // len(self.nodes))
        parts: Sequence[FloatArray] = [
            _radial(points[i : i + size], self.nodes) @ self.coefficients[:n] for i in range(0, len(points), size)
        ]
        bent = np.concatenate(parts) if parts else np.zeros((0, 2))
        result: FloatArray = bent + _monomials(points, 1) @ self.coefficients[n:] + self.map_centre
        return result

    def left_out(self) -> float:
        """RMS error at each point of the spline without it (Rippa 1999)."""
        n = len(self.nodes)
        diagonal = np.linalg.inv(self.system).diagonal()[:n]
        return _rms(self.coefficients[:n] / diagonal[:, None])


def _monomials(xy: FloatArray, order: int) -> NDArray[np.float64]:
    x, y = np.asarray(xy, np.float64).T
    columns = [np.ones_like(x), x, y]
    if order == 2:
        columns += [x * x, x * y, y * y]
    return np.stack(columns, axis=-1)


def _radial(points: FloatArray, nodes: FloatArray) -> NDArray[np.float64]:
    squared = ((points[:, None] - nodes[None]) ** 2).sum(-1)
    result: NDArray[np.float64] = squared * np.log(np.where(squared > 0, squared, 1.0))
    return result


def _rms(error: FloatArray) -> float:
    return float(np.sqrt((error**2).sum(1).mean()))
