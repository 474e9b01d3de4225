"""Places on the ground: pixel to pixel through CRSs, overlap, bounds in degrees, metres per pixel."""

from __future__ import annotations

import dataclasses
import logging
import re
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform as reproject_points

from somareg.errors import ConfigError, GeoreferenceError, NoOverlapError
from somareg.geometry import AffineTransform, compose
from somareg.types import IDENTITY, BoolArray, FloatArray, Grid, Header, Raster, Transform

Facts = TypeVar("Facts", Raster, Header)

log = logging.getLogger("somareg.io")

LONLAT = "EPSG:4326"
_MAX_PROJ_CALLS = 4000
# GDAL would also open a file of that name, or fetch a URL: neither was asked for.
_DEFINITION = re.compile(r"\s*(urn(:[\w.+-]*)+\s*$|[A-Za-z][\w-]*:[\w+-]+\s*$|\+|\{|[A-Za-z]\w*\s*\[)")
_EQUATOR_M, _FLATTENING = 6378137.0, 1 / 298.257223563  # WGS 84


@dataclass(frozen=True, eq=False)
class CrsTransform:
    """Pixel centres of one georeferenced grid -> pixel centres of another, through both CRSs.

    Points that the projections cannot reach become NaN.

    Attributes:
        source, target: the grids, both with a CRS.
    """

    source: Grid
    target: Grid

    def __call__(self, xy: FloatArray) -> FloatArray:
        assert self.source.crs is not None and self.target.crs is not None
        there = self.source.to_map(xy)
        if self.source.crs != self.target.crs:
            there = reproject(there, self.source.crs, self.target.crs)
        if parse_crs(self.target.crs).is_geographic:
            there[:, 0] = _near_longitude(there[:, 0], _centre_map(self.target)[0])
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

    Exactly affine when both CRSs are equal and geotransforms place both. Without any CRS the two images are taken to
    lie pixel on pixel.

    Args:
        reference: grid mapped from.
        moving: grid mapped to.
        names: how messages call them.

    Raises:
        GeoreferenceError: a CRS in one only, a degenerate geotransform, or CRSs that cannot be joined.
    """
    if reference.crs is None and moving.crs is None:
        return AffineTransform.identity()
    if reference.crs is None or moving.crs is None:
        missing, other = (names[0], names[1]) if reference.crs is None else (names[1], names[0])
        raise GeoreferenceError(f"{missing} has no CRS but {other} has one; name the missing one with --assume-crs")
    for grid, name in zip((reference, moving), names, strict=True):
        _check_geotransform(grid, name)
    straight = all(grid.control is None or grid.control.is_affine for grid in (reference, moving))
    if straight and parse_crs(reference.crs) == parse_crs(moving.crs):
        return _between_grids(reference, moving)
    return CrsTransform(reference, moving)


def assume_crs(raster: Facts, crs: str) -> Facts:
    """The raster with `crs` as its CRS if it declares none, else unchanged.

    Args:
        raster: with a geotransform.
        crs: anything PROJ understands, for example "EPSG:32632".

    Raises:
        ConfigError: `crs` is not understood.
        GeoreferenceError: the raster has no geotransform, so a CRS alone does not place it.
    """
    try:
        wkt = parse_crs(crs).to_wkt()
    except GeoreferenceError as error:
        raise ConfigError(f"assume_crs '{crs}' is not a CRS; write for example EPSG:32632") from error
    if raster.grid.crs is not None:
        return raster
    if raster.grid.transform == IDENTITY:
        raise GeoreferenceError(f"{raster.name} has no geotransform, so a CRS alone does not place it on the ground")
    note = f"{raster.name}: CRS assumed to be {crs}"
    log.info(note)
    return dataclasses.replace(raster, grid=dataclasses.replace(raster.grid, crs=wkt), notes=(*raster.notes, note))


def to_lonlat(grid: Grid, xy: FloatArray) -> FloatArray:
    """Longitude and latitude (N, 2), WGS 84 degrees, of pixel centres (N, 2) of a georeferenced grid.

    Raises:
        GeoreferenceError: the grid has no CRS.
    """
    if grid.crs is None:
        raise GeoreferenceError("an image without a CRS has no longitude and latitude; give one with --assume-crs")
    return reproject(grid.to_map(xy), grid.crs, LONLAT)


def lonlat_bounds(grid: Grid) -> tuple[float, float, float, float]:
    """(west, south, east, north) in degrees; east exceeds 180 when the image crosses the antimeridian.

    Raises:
        GeoreferenceError: the grid has no CRS or lies outside what its CRS can express.
    """
    along = np.linspace(-0.5, 0.5, 22)
    u, v = np.concatenate(
        [[along, along * 0 + 0.5], [along, along * 0 - 0.5], [along * 0 + 0.5, along], [along * 0 - 0.5, along]], axis=1
    )
    edge = np.stack([u * grid.width, v * grid.height], axis=-1) + _centre_pixel(grid)
    lonlat = to_lonlat(grid, edge)
    lonlat = lonlat[np.isfinite(lonlat).all(axis=1)]
    if not len(lonlat):
        raise GeoreferenceError("an image lies outside the area its CRS can express; check its CRS and geotransform")
    lon = _near_longitude(lonlat[:, 0], float(lonlat[0, 0]))
    return float(lon.min()), float(lonlat[:, 1].min()), float(lon.max()), float(lonlat[:, 1].max())


def check_overlap(reference: Grid, moving: Grid, names: tuple[str, str] = ("reference", "moving")) -> float:
    """Share of the reference's area that the moving image covers by the georeference, 0-1 (about 1 % exact).

    Raises:
        NoOverlapError: they share no ground; both bounds are given in degrees.
        GeoreferenceError: as `georeference`.
    """
    to_moving = georeference(reference, moving, names)
    hit = _inside(moving, to_moving(_samples(reference)))
    if hit.mean() > 0.05:
        return float(hit.mean())
    # The moving image may be much the smaller one and fall between the samples: look from its side too.
    back = to_moving.inverse(_samples(moving))
    share = _inside(reference, back).mean()
    if share == 0 and not hit.any():
        raise NoOverlapError(_no_overlap_message(reference, moving, names))
    corners = to_moving.inverse(np.array([[0.0, 0.0], [moving.width, 0.0], [0.0, moving.height]]) - 0.5)
    (ux, uy), (vx, vy) = corners[1] - corners[0], corners[2] - corners[0]
    area = abs(ux * vy - uy * vx)
    fraction = share * area / (reference.width * reference.height)
    return float(fraction if np.isfinite(fraction) and share else hit.mean())


def ground_pixel_size(grid: Grid) -> tuple[float, float] | None:
    """True ground lengths in metres of a pixel's x and y edges at the centre of the grid; None without a CRS.

    Measured on the ellipsoid, so Mercator's stretch and degrees are accounted for.
    """
    if grid.crs is None:
        return None
    half = 8.0  # pixels each way: long against PROJ's rounding, short against the curvature
    ends = _centre_pixel(grid) + half * np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
    try:
        lonlat = to_lonlat(grid, ends)
    except (CRSError, GeoreferenceError):
        return None
    if not np.isfinite(lonlat).all():
        return None
    return _distance(lonlat[0], lonlat[1]) / (2 * half), _distance(lonlat[2], lonlat[3]) / (2 * half)


def metres_per_pixel(grid: Grid) -> float | None:
    """Ground size of a pixel at the centre of the grid, metres (geometric mean of x and y); None without a CRS."""
    sizes = ground_pixel_size(grid)
    return None if sizes is None else float(np.sqrt(sizes[0] * sizes[1]))


def parse_crs(text: str | None, where: str = "a CRS") -> CRS:
    """A CRS from WKT or `EPSG:N`.

    Raises:
        GeoreferenceError: it cannot be understood; `where` names it.
    """
    try:
        if not _DEFINITION.match(str(text)):
            raise ValueError(text)
        return CRS.from_user_input(text)
    except (CRSError, ValueError, RecursionError) as error:
        raise GeoreferenceError(f"{where} cannot be understood: {str(text)[:80]!r}") from error


def _check_geotransform(grid: Grid, name: str) -> None:
    a, b, _, d, e, _ = grid.transform
    determinant = a * e - b * d
    size = np.hypot(a, d) * np.hypot(b, e)
    if not np.isfinite(grid.transform).all() or abs(determinant) <= 1e-9 * size:
        raise GeoreferenceError(f"{name} has a degenerate geotransform {grid.transform}; write its georeference anew")


def _between_grids(reference: Grid, moving: Grid) -> AffineTransform:
    """Pixel centres to pixel centres of two grids in one CRS, computed about their origins to keep the digits."""

    def linear(grid: Grid) -> FloatArray:
        a, b, _, d, e, _ = grid.transform
        return np.array([[a, b], [d, e]])

    def origin(grid: Grid) -> FloatArray:
        return np.array([grid.transform[2], grid.transform[5]])

    apart = origin(reference) - origin(moving)
    if parse_crs(reference.crs).is_geographic:
        gap = _centre_map(moving)[0] - _centre_map(reference)[0]
        apart[0] += 360.0 * np.round(gap / 360.0)
    inverse = np.linalg.inv(linear(moving))
    matrix = inverse @ linear(reference)
    # Corner to corner is matrix @ p + inverse @ apart; both sides move by the half pixel.
    shift = inverse @ apart + matrix @ np.full(2, 0.5) - 0.5
    return AffineTransform(np.column_stack([matrix, shift]).astype(np.float64))


def reproject(points: FloatArray, source: str, target: str) -> FloatArray:
    """Map coordinates (N, 2) in another CRS, NaN where the projection has no answer.

    Raises:
        GeoreferenceError: no operation joins the two CRSs.
    """
    result = np.full(points.shape, np.nan)
    usable = np.flatnonzero(np.isfinite(points).all(axis=1))
    crs = parse_crs(source), parse_crs(target)
    # One point that a projection refuses fails the whole call, so a failing set is halved until the culprits are alone.
    pieces, calls = [usable] if usable.size else [], 0
    while pieces and calls < _MAX_PROJ_CALLS:
        piece = pieces.pop()
        calls += 1
        try:
            x, y = reproject_points(*crs, *points[piece].T)
        except (CPLE_BaseError, RasterioError) as error:
            if calls == 1 and isinstance(error, CRSError):
                raise GeoreferenceError(f"the CRSs of the two images cannot be joined: {error}") from error
            if piece.size > 1:
                pieces += np.array_split(piece, 2)
            continue
        result[piece] = np.stack([np.asarray(x, float), np.asarray(y, float)], axis=-1)
    result[~np.isfinite(result).all(axis=1)] = np.nan
    return result


def _near_longitude(longitude: FloatArray, centre: float) -> FloatArray:
    """The same meridians, counted so that none is more than half a turn from `centre`."""
    return longitude + 360.0 * np.round((centre - longitude) / 360.0)


def _centre_pixel(grid: Grid) -> FloatArray:
    return np.array([[(grid.width - 1) / 2, (grid.height - 1) / 2]])


def _centre_map(grid: Grid) -> FloatArray:
    centre: FloatArray = grid.to_map(_centre_pixel(grid))[0]
    return centre


def _samples(grid: Grid, n: int = 64) -> FloatArray:
    middles = (np.arange(n) + 0.5) / n
    x, y = np.meshgrid(middles * grid.width - 0.5, middles * grid.height - 0.5)
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def _inside(grid: Grid, xy: FloatArray) -> BoolArray:
    x, y = xy.T
    return np.asarray((x >= -0.5) & (x < grid.width - 0.5) & (y >= -0.5) & (y < grid.height - 0.5))


def _no_overlap_message(reference: Grid, moving: Grid, names: tuple[str, str]) -> str:
    places = []
    for grid, name in zip((reference, moving), names, strict=True):
        west, south, east, north = lonlat_bounds(grid)
        places.append(f"{name} covers {west:.4f} to {east:.4f} E, {south:.4f} to {north:.4f} N")
    return f"the images share no ground: {'; '.join(places)} (degrees). Check their CRS and the choice of files."


def _distance(first: FloatArray, second: FloatArray) -> float:
    """Metres between two near points (longitude, latitude) on the WGS 84 ellipsoid."""
    latitude = np.deg2rad((first[1] + second[1]) / 2)
    e2 = _FLATTENING * (2 - _FLATTENING)
    w = 1 - e2 * np.sin(latitude) ** 2
    east = _EQUATOR_M / np.sqrt(w) * np.cos(latitude) * np.deg2rad(_near_longitude(second[0] - first[0], 0.0))
    north = _EQUATOR_M * (1 - e2) / w**1.5 * np.deg2rad(second[1] - first[1])
    return float(np.hypot(east, north))
