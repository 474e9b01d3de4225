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

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from somareg.errors import GeoreferenceError
from somareg.geometry.affine import AffineTransform
from somareg.geometry.control_curves import MAX_SPLINE_POINTS, WAY_OUT, Polynomial, Spline
from somareg.geometry.field import FieldTransform
from somareg.geometry.lattice import pixel_centres
from somareg.types import ControlMethod, FloatArray, Geotransform
from somareg.types.brief import brief, count

Area = tuple[float, float, float, float]

_SPLINE_FROM = 10  # number of points from which "auto" considers the spline
_MARGIN = 0.1  # margin of the lattice around the area, as a share of its size; beyond it the displacement is constant
_TOLERANCE_PX = 5e-3
_NODES = (33, 65, 129, 257, 513)  # along the longer side


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
        fit = Polynomial(self.xy, self.map_xy, order=1)
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
            raise GeoreferenceError(f"the curve through the ground control points folds over itself; {WAY_OUT}")
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
    polynomial = Polynomial(xy, map_xy)
    scale = Polynomial(xy, map_xy, order=1).map_units_per_pixel
    words = f"polynomial of order {polynomial.order}"
    errors: dict[ControlMethod, float] = {"polynomial": polynomial.left_out() / scale}
    if method == "tps" or (method == "auto" and _SPLINE_FROM <= len(xy) <= MAX_SPLINE_POINTS):
        try:
            errors["tps"] = Spline(xy, map_xy).left_out() / scale
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


def _curve(xy: FloatArray, map_xy: FloatArray, method: ControlMethod) -> Polynomial | Spline:
    return Spline(xy, map_xy) if method == "tps" else Polynomial(xy, map_xy)
