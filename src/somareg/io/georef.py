"""Georeferences of a pair: pixel to pixel through both CRSs, overlap, bounds in degrees."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from somareg.errors import ConfigError, GeoreferenceError, NoOverlapError
from somareg.geometry import AffineTransform, compose
from somareg.io.crs import (
    ellipsoid_of,
    is_plane,
    name_of,
    near_turn,
    parse_crs,
    places_images,
    reproject,
    same_crs,
    turn_of,
)
from somareg.io.lonlat import has_lonlat, is_inside, lonlat_bounds, outline
from somareg.types import IDENTITY, FloatArray, Grid, Header, Raster, Transform

Facts = TypeVar("Facts", Raster, Header)

log = logging.getLogger("somareg.io")

_WAY_OUT = (
    "write one into it that is about right (gdal_translate -a_srs EPSG:32633 -a_ullr WEST NORTH EAST SOUTH IN.png "
    "OUT.tif) and search far (--search full)"
)
_MOST_ALONG = 16384  # points along each side of an outline
_LEAST_SHARED_PX = 0.5  # neighbours that only touch share rounding errors


@dataclass(frozen=True, eq=False)
class CrsTransform:
    """Pixel centres of one georeferenced grid -> pixel centres of another, through both CRSs.

    Points for which a projection is not defined become NaN. When the target's CRS wraps around the earth, x is
    shifted by whole turns to the target's side, so that a scene across the map's edge stays in one piece.

    Attributes:
        source, target: the grids, both georeferenced.
    """

    source: Grid
    target: Grid

    def __call__(self, xy: FloatArray) -> FloatArray:
        there = self.source.to_map(xy)
        if self.source.crs is not None and self.target.crs is not None:  # else both lie in one unnamed system
            if not same_crs(self.source.crs, self.target.crs):
                there = reproject(there, self.source.crs, self.target.crs)
            there[:, 0] = near_turn(there[:, 0], _centre_map(self.target)[0], turn_of(self.target.crs))
        return self.target.to_pixel(there)

    @property
    def inverse(self) -> CrsTransform:
        return CrsTransform(self.target, self.source)

    @property
    def is_affine(self) -> bool:
        return False

    def __matmul__(self, first: Transform) -> Transform:
        return compose(self, first)


def georeference(reference: Grid, moving: Grid, names: tuple[str, str] = ("reference", "moving")) -> Transform:
    """The map from reference pixel centres to the moving pixel centres that show the same ground.

    Exactly affine when both CRSs are equal and geotransforms place both. Without any georeference the two images are
    taken to lie pixel on pixel.

    Args:
        reference: grid mapped from.
        moving: grid mapped to.
        names: of the two images in messages.

    Raises:
        GeoreferenceError: a CRS in one only, a degenerate geotransform, or CRSs that cannot be joined.
    """
    grids = (reference, moving)
    if all(grid.crs is None for grid in grids) and not all(grid.unnamed_crs for grid in grids):
        return AffineTransform.identity()
    _check_both_named(grids, names)
    for grid, name in zip(grids, names, strict=True):
        _check_geotransform(grid, name)
    straight = all(grid.control is None or grid.control.is_affine for grid in grids)
    same = reference.crs is None or same_crs(reference.crs, moving.crs)
    if not same:
        _check_on_earth(grids, names)
    return _between_grids(reference, moving) if straight and same else CrsTransform(reference, moving)


def assume_crs(raster: Facts, crs: str) -> Facts:
    """The raster with `crs` as its CRS if it declares none, else unchanged.

    Args:
        raster: with a geotransform.
        crs: AUTHORITY:CODE, a PROJ string or WKT, for example "EPSG:32632".

    Raises:
        ConfigError: `crs` is not understood, does not exist, or is one of heights.
        GeoreferenceError: the raster has no geotransform, so a CRS alone does not place it.
    """
    wkt = check_crs(crs)
    if raster.grid.crs is not None:
        return raster
    if raster.grid.transform == IDENTITY:
        raise GeoreferenceError(f"{raster.name} has no geotransform, so a CRS alone does not place it; {_WAY_OUT}")
    note = f"{raster.name}: CRS assumed to be {crs}"
    log.info(note)
    return dataclasses.replace(raster, grid=dataclasses.replace(raster.grid, crs=wkt), notes=(*raster.notes, note))


def check_crs(crs: str) -> str:
    """Validate an assumed CRS (see `assume_crs`) and return its WKT.

    Raises:
        ConfigError: it is not understood, does not exist, or is one of heights.
    """
    try:
        parsed = parse_crs(crs)
    except GeoreferenceError as error:
        raise ConfigError(f"assume_crs '{crs}' is not a CRS that exists; write for example EPSG:32632") from error
    if not places_images(parsed):
        raise ConfigError(f"assume_crs '{crs}' holds no map coordinates (x, y); write for example EPSG:32632")
    return str(parsed.to_wkt())


def check_overlap(reference: Grid, moving: Grid, names: tuple[str, str] = ("reference", "moving")) -> float:
    """Share of the reference's area that the moving image covers by the georeference, 0-1 (about 1 % exact).

    Raises:
        NoOverlapError: they share no ground; both bounds are given in degrees.
        GeoreferenceError: as `georeference`.
    """
    to_moving = georeference(reference, moving, names)
    hit = is_inside(moving, to_moving(_samples(reference)))
    if hit.mean() > 0.05:
        return float(hit.mean())
    # The moving image may be much the smaller one and fall between the samples: look from its side too.
    back = to_moving.inverse(_samples(moving))
    share = is_inside(reference, back).mean()
    if share == 0 and not hit.any():
        if narrow := _narrow_share(reference, moving, to_moving):
            return narrow
        raise NoOverlapError(_no_overlap_message(reference, moving, names))
    corners = to_moving.inverse(np.array([[0.0, 0.0], [moving.width, 0.0], [0.0, moving.height]]) - 0.5)
    (ux, uy), (vx, vy) = corners[1] - corners[0], corners[2] - corners[0]
    area = abs(ux * vy - uy * vx)
    fraction = share * area / (reference.width * reference.height)
    return float(fraction if np.isfinite(fraction) and share else hit.mean())


def _check_both_named(grids: tuple[Grid, Grid], names: tuple[str, str]) -> None:
    """Refuse a pair with only one georeferenced image."""
    have_crs = [grid.crs is not None for grid in grids]
    if have_crs[0] == have_crs[1]:
        return
    (missing, grid), (other, _) = sorted(zip(names, grids, strict=True), key=lambda one: one[1].crs is not None)
    if grid.rpcs:
        raise GeoreferenceError(
            f"{missing} is placed by RPCs only, which need heights; orthorectify it first: "
            "gdalwarp -rpc -to RPC_DEM=DEM.tif IN.tif OUT.tif"
        )
    if grid.transform == IDENTITY and grid.control is None:
        raise GeoreferenceError(f"{missing} has no CRS and no geotransform, but {other} has both; {_WAY_OUT}")
    raise GeoreferenceError(f"{missing} has no CRS but {other} has one; name the missing one with --assume-crs")


def _check_on_earth(grids: tuple[Grid, Grid], names: tuple[str, str]) -> None:
    """Refuse a local system beside another CRS, because its place on the earth is unknown, and two different bodies."""
    for grid, name, other in zip(grids, names, names[::-1], strict=True):
        if grid.crs is not None and is_plane(parse_crs(grid.crs)):
            raise GeoreferenceError(
                f"{name} lies in the local system '{name_of(grid.crs)}', which cannot be joined with the CRS of "
                f"{other}; give both images one CRS"
            )
    sizes = [ellipsoid_of(str(grid.crs)).equator_m for grid in grids]
    if abs(sizes[0] / sizes[1] - 1) > 0.01:
        raise GeoreferenceError(f"{names[0]} and {names[1]} lie on different bodies and cannot be joined")


def _check_geotransform(grid: Grid, name: str) -> None:
    a, b, _, d, e, _ = grid.transform
    determinant = a * e - b * d
    size = np.hypot(a, d) * np.hypot(b, e)
    if not np.isfinite(grid.transform).all() or abs(determinant) <= 1e-9 * size:
        raise GeoreferenceError(f"{name} has a degenerate geotransform {grid.transform}; write its georeference anew")


def _between_grids(reference: Grid, moving: Grid) -> AffineTransform:
    """Affine between the pixel centres of two grids in one CRS, computed about their origins for precision."""

    def linear(grid: Grid) -> FloatArray:
        a, b, _, d, e, _ = grid.transform
        return np.array([[a, b], [d, e]])

    def origin(grid: Grid) -> FloatArray:
        return np.array([grid.transform[2], grid.transform[5]])

    apart = origin(reference) - origin(moving)
    turn = None if reference.crs is None else turn_of(reference.crs)
    if turn is not None:
        gap = _centre_map(moving)[0] - _centre_map(reference)[0]
        apart[0] += turn * np.round(gap / turn)
    inverse = np.linalg.inv(linear(moving))
    matrix = inverse @ linear(reference)
    # Corner to corner is matrix @ p + inverse @ apart; both sides move by the half pixel.
    shift = inverse @ apart + matrix @ np.full(2, 0.5) - 0.5
    return AffineTransform(np.column_stack([matrix, shift]).astype(np.float64))


def _centre_pixel(grid: Grid) -> FloatArray:
    return np.array([[(grid.width - 1) / 2, (grid.height - 1) / 2]])


def _centre_map(grid: Grid) -> FloatArray:
    centre: FloatArray = grid.to_map(_centre_pixel(grid))[0]
    return centre


def _samples(grid: Grid, n: int = 64) -> FloatArray:
    middles = (np.arange(n) + 0.5) / n
    x, y = np.meshgrid(middles * grid.width - 0.5, middles * grid.height - 0.5)
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def _narrow_share(reference: Grid, moving: Grid, to_moving: Transform) -> float:
    """Share of the reference's area in an overlap that samples of the areas miss, such as a strip along an edge; 0 for
    images that share no ground or only touch.

    An overlap is bounded by outlines, so a point of an outline lies in the other image; those points span it.
    """
    near, far = (outline(grid, min(max(grid.shape), _MOST_ALONG)) for grid in (reference, moving))
    back = to_moving.inverse(far)
    met = np.concatenate([near[is_inside(moving, to_moving(near))], back[is_inside(reference, back)]])
    sides = np.ptp(met, axis=0) if len(met) else np.zeros(2)
    return float(sides.prod() / (reference.width * reference.height)) if sides.min() > _LEAST_SHARED_PX else 0.0


def _no_overlap_message(reference: Grid, moving: Grid, names: tuple[str, str]) -> str:
    places = []
    unit = "degrees" if all(map(has_lonlat, (reference, moving))) else "map units"
    for grid, name in zip((reference, moving), names, strict=True):
        if unit == "degrees":
            west, south, east, north = lonlat_bounds(grid)
            places.append(f"{name} covers {west:.4f} to {east:.4f} E, {south:.4f} to {north:.4f} N")
        else:
            (left, bottom), (right, top) = (f(grid.to_map(outline(grid, 1)), axis=0) for f in (np.min, np.max))
            places.append(f"{name} covers x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}")
    return f"the images share no ground: {'; '.join(places)} ({unit}). Check their CRS and the choice of files."
