"""Pixels placed on the map by ground control points: a polynomial or a thin-plate spline, invertible and fast.

A raster in radar geometry (Sentinel-1 GRD) has no geotransform, only points whose place is known. GDAL offers two
curves through them: a least-squares polynomial of first or second order and a thin-plate spline. Here the curve is
evaluated once on a lattice, as an affine map plus a displacement in pixels, so that both directions are cheap and
undo each other.

Why not `rasterio.transform.GCPTransformer` (1.4.4)? On nine sets of 3 to 2000 points of a swath of 2500 x 1600 px:

* Its polynomials are these to 2e-3 px, but it fits each direction by itself: there and back misses by 0.1 to 0.3 px,
  here by 2e-8 px. It refuses six points on a grid of 3 x 2, which here take first order.
* Its spline is fitted from the map to the pixels and inverted point by point. It differs from the one here by 0.03 px
  on the 210 points of a Sentinel-1 swath and by up to 8 px between four points; neither is nearer to the truth. It
  takes four times as long with 2000 points (2.5 s against 0.6 s of CPU for 5000 places).
* Left-out errors, which choose the curve, need the linear system itself, and then the curve costs three lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from somareg.errors import GeoreferenceError
from somareg.geometry.affine import AffineTransform
from somareg.geometry.field import FieldTransform
from somareg.geometry.lattice import pixel_centres
from somareg.types import ControlMethod, FloatArray, Geotransform
from somareg.types.brief import brief, count

Area = tuple[float, float, float, float]

MAX_SPLINE_POINTS = 2000
"""The spline solves a full linear system of the points."""

_WAY_OUT = "correct the points, or join them by a polynomial (--gcp-method polynomial)"
_SPLINE_FROM = 10  # number of points from which "auto" considers the spline
_MARGIN = 0.1  # margin of the lattice around the area, as a share of its size; beyond it the displacement is constant
_TOLERANCE_PX = 5e-3
_NODES = (33, 65, 129, 257, 513)  # along the longer side
_CHUNK = 2_000_000  # distances held at a time


@dataclass(frozen=True)
class GroundControl:
    """A map from pixel centres to map coordinates through control points.

    Attributes:
        points: (column, row, X, Y) of each: pixel-centre coordinates and map coordinates.
        method: "polynomial" (order 2 from six points on, else 1, as GDAL does) or "tps" (thin-plate spline).
        area: (left, top, right, bottom) pixel-centre coordinates within which the map is needed.

    Raises:
        GeoreferenceError: fewer than three points, points on a line, or too many for a spline.
    """

    points: tuple[tuple[float, float, float, float], ...]
    method: ControlMethod
    area: Area

    def __repr__(self) -> str:
        return brief("GroundControl", count(len(self.points), "point"), self.method)

    @property
    def xy(self) -> FloatArray:
        """(N, 2) pixel-centre coordinates of the points."""
        return np.array(self.points)[:, :2]

    @property
    def map_xy(self) -> FloatArray:
        """(N, 2) map coordinates of the points."""
        return np.array(self.points)[:, 2:]

    @property
    def transform(self) -> Geotransform:
        """The best affine geotransform (corner convention)."""
        (a, b, c), (d, e, f) = self._affine.matrix
        return float(a), float(b), float(c - (a + b) / 2), float(d), float(e), float(f - (d + e) / 2)

    @property
    def is_affine(self) -> bool:
        """True when a geotransform agrees to a hundredth of a pixel."""
        return float(np.abs(self._field.array).max()) < 1e-2

    def to_map(self, xy: FloatArray) -> FloatArray:
        """Map coordinates (N, 2) of pixel centres (N, 2)."""
        return self._affine(self._field(xy))

    def to_pixel(self, map_xy: FloatArray) -> FloatArray:
        """Pixel centres (N, 2) of map coordinates (N, 2)."""
        return self._field.inverse(self._affine.inverse(map_xy))

    def scaled(self, scale: tuple[float, float]) -> GroundControl:
        """The same map for `scale` (x, y) times as many pixels: corners stay on corners."""
        sx, sy = scale

        def x_of(column: float) -> float:
            return (column + 0.5) * sx - 0.5

        def y_of(row: float) -> float:
            return (row + 0.5) * sy - 0.5

        left, top, right, bottom = self.area
        points = tuple((x_of(column), y_of(row), x, y) for column, row, x, y in self.points)
        return replace(self, points=points, area=(x_of(left), y_of(top), x_of(right), y_of(bottom)))

    def shifted(self, by: tuple[float, float]) -> GroundControl:
        """The same map for pixel coordinates that are larger by (x, y)."""
        dx, dy = by
        left, top, right, bottom = self.area
        points = tuple((column + dx, row + dy, x, y) for column, row, x, y in self.points)
        return replace(self, points=points, area=(left + dx, top + dy, right + dx, bottom + dy))

    def with_method(self, method: ControlMethod) -> GroundControl:
        """The same points joined by another curve."""
        return self if method == self.method else replace(self, method=method)

    @cached_property
    def _affine(self) -> AffineTransform:
        fit = _Polynomial(self.xy, self.map_xy, order=1)
        corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        origin, right, below = fit(corners)
        return AffineTransform(np.column_stack([right - origin, below - origin, origin]))

    @cached_property
    def _field(self) -> FieldTransform:
        """Difference between curve and affine, in pixels."""
        curve = _curve(self.xy, self.map_xy, self.method)
        back = self._affine.inverse
        corners = np.concatenate([self.xy, np.reshape(self.area, (2, 2))])
        low, high = corners.min(0), corners.max(0)
        low, high = low - _MARGIN * (high - low), high + _MARGIN * (high - low)
        for nodes in _NODES:
            step = float((high - low).max()) / (nodes - 1)
            columns, rows = (int(n) + 1 for n in np.ceil((high - low) / step))
            here = pixel_centres(0, 0, columns, rows) * step + low
            away = back(curve(here)) - here
            field = FieldTransform(
                away.T.reshape(2, rows, columns).astype(np.float64), (float(low[0]), float(low[1])), (step, step)
            )
            middles = np.random.default_rng(0).uniform(low, high, (400, 2))
            if float(np.abs(back(curve(middles)) - field(middles)).max()) < _TOLERANCE_PX:
                break
        if float(field.jacobian_determinant().min()) <= 0:
            raise GeoreferenceError(f"the curve through the ground control points folds over itself; {_WAY_OUT}")
        return field


def place_by_control(
    xy: FloatArray, map_xy: FloatArray, area: Area, method: Literal["auto", "polynomial", "tps"] = "auto"
) -> tuple[GroundControl, str]:
    """The map through control points, and a phrase on the chosen curve and how well it predicts a point.

    "auto" takes the curve that predicts left-out points better: exact points of a smooth geometry favour the spline,
    points placed by hand the polynomial, and so do points through which no spline passes. A point that is given twice
    counts once, except in a polynomial that is asked for, as in GDAL's.

    Args:
        xy: (N, 2) pixel-centre coordinates.
        map_xy: (N, 2) map coordinates.
        area: pixel-centre coordinates within which the map is needed.
        method: the curve.

    Raises:
        GeoreferenceError: fewer than three points, points on a line, or points through which no spline passes where
            one is asked for.
    """
    if method != "polynomial":
        xy, map_xy = _distinct(xy, map_xy)
    polynomial = _Polynomial(xy, map_xy)
    scale = _Polynomial(xy, map_xy, order=1).map_units_per_pixel
    words = f"polynomial of order {polynomial.order}"
    errors: dict[ControlMethod, float] = {"polynomial": polynomial.left_out() / scale}
    if method == "tps" or (method == "auto" and _SPLINE_FROM <= len(xy) <= MAX_SPLINE_POINTS):
        try:
            errors["tps"] = _Spline(xy, map_xy).left_out() / scale
        except GeoreferenceError as error:
            if method == "tps":
                raise
            words += f", because {str(error).partition(';')[0]}"
    curve: ControlMethod = min(errors, key=lambda name: errors[name]) if method == "auto" else method
    if curve == "tps":
        words = "thin-plate spline"
    if np.isfinite(errors[curve]):
        words += f", which predicts a left-out point to {errors[curve]:.2f} px"
    points = tuple((float(x), float(y), float(u), float(v)) for (x, y), (u, v) in zip(xy, map_xy, strict=True))
    return GroundControl(points, curve, area), words


def _distinct(xy: FloatArray, map_xy: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The points without those that repeat an earlier one, pixel and place."""
    first = np.sort(np.unique(np.hstack([xy, map_xy]), axis=0, return_index=True)[1])
    return xy[first], map_xy[first]


def _curve(xy: FloatArray, map_xy: FloatArray, method: ControlMethod) -> _Polynomial | _Spline:
    return _Spline(xy, map_xy) if method == "tps" else _Polynomial(xy, map_xy)


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


class _Polynomial(_Normalised):
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


class _Spline(_Normalised):
    """Thin-plate spline through all points: `r^2 log r^2` and an affine part (Duchon 1977)."""

    def __init__(self, xy: FloatArray, map_xy: FloatArray) -> None:
        super().__init__(xy, map_xy)
        n = len(xy)
        if n > MAX_SPLINE_POINTS:
            raise GeoreferenceError(
                f"{n} ground control points are too many for a spline (at most {MAX_SPLINE_POINTS}); {_WAY_OUT}"
            )
        if len(np.unique(self.nodes, axis=0)) < n:
            raise GeoreferenceError(f"two ground control points share one pixel but not one place; {_WAY_OUT}")
        affine = _monomials(self.nodes, 1)
        self.system = np.zeros((n + 3, n + 3))
        self.system[:n, :n] = _radial(self.nodes, self.nodes)
        self.system[:n, n:], self.system[n:, :n] = affine, affine.T
        try:
            self.coefficients = np.linalg.solve(self.system, np.concatenate([self.values, np.zeros((3, 2))]))
        except np.linalg.LinAlgError as error:
            raise GeoreferenceError(f"two ground control points nearly share one pixel; {_WAY_OUT}") from error

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
