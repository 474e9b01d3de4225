"""Coordinate reference systems: parsing, reprojection and properties."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.env import Env
from rasterio.errors import CRSError
from rasterio.warp import transform as reproject_points

from somareg.errors import GeoreferenceError
from somareg.io.gdal_errors import RASTERIO_ERRORS
from somareg.types import FloatArray

LONLAT = "EPSG:4326"

_MAX_PROJ_CALLS = 4000
# GDAL would also open a file of that name, or fetch a URL; neither is wanted.
_DEFINITION = re.compile(r"\s*(urn(:[\w.+-]*)+\s*$|[A-Za-z][\w-]*:[\w+-]+\s*$|\+|\{|[A-Za-z]\w*\s*\[)")
_EQUATOR_M, _FLATTENING = 6378137.0, 1 / 298.257223563  # WGS 84


@dataclass(frozen=True)
class Ellipsoid:
    """The figure of the earth, or of another body, that a CRS rests on.

    Attributes:
        equator_m: semi-major axis, metres.
        flattening: 0 for a sphere.
        geographic: the CRS of its longitudes and latitudes, for `parse_crs`.
    """

    equator_m: float
    flattening: float
    geographic: str

    @property
    def e2(self) -> float:
        """Square of the eccentricity."""
        return self.flattening * (2 - self.flattening)


@lru_cache(maxsize=64)
def parse_crs(text: str | None, where: str = "a CRS") -> CRS:
    """A CRS from WKT, PROJJSON, a PROJ string or AUTHORITY:CODE such as EPSG:32632.

    Raises:
        GeoreferenceError: it cannot be understood or does not exist; `where` names it.
    """
    try:
        if not _DEFINITION.match(str(text)):
            raise ValueError(text)
        with Env():  # inside an Env rasterio raises GDAL's errors instead of printing them
            crs = CRS.from_user_input(text)
            crs.to_wkt()  # some can be read and not written
            return crs
    except (CRSError, ValueError, RecursionError) as error:
        raise GeoreferenceError(f"{where} cannot be understood: {str(text)[:80]!r}") from error


def is_plane(crs: CRS) -> bool:
    """Whether a CRS is a local system, with lengths but no place on the earth."""
    return not (crs.is_geographic or crs.is_projected) and _root(crs).get("type") == "EngineeringCRS"


@lru_cache(maxsize=256)
def same_crs(first: str | None, second: str | None) -> bool:
    """Whether two CRSs are the same; local systems must also share their name, which is all that defines them."""
    one, other = parse_crs(first), parse_crs(second)
    return bool(one == other) and (not is_plane(one) or name_of(str(first)) == name_of(str(second)))


def name_of(crs: str) -> str:
    """The name of a CRS."""
    return crs.split('"')[1][:60] if '"' in crs else crs[:60]


def places_images(crs: CRS) -> bool:
    """Whether a CRS can place pixels; systems of heights or of coordinates in space cannot."""
    return bool(crs.is_geographic or crs.is_projected) or is_plane(crs)


def is_of_earth(crs: str) -> bool:
    """Whether places of a CRS have longitude and latitude on the earth, not on another body or in a local system."""
    parsed = parse_crs(crs)
    if not (parsed.is_geographic or parsed.is_projected):
        return False
    return abs(ellipsoid_of(crs).equator_m / _EQUATOR_M - 1) < 0.01


@lru_cache(maxsize=64)
def ellipsoid_of(crs: str) -> Ellipsoid:
    """The ellipsoid of a geographic or projected CRS; WGS 84 when the CRS names none."""
    described = _root(parse_crs(crs))
    base: dict[str, Any] = described.get("base_crs") or described
    figure = (base.get("datum") or base.get("datum_ensemble") or {}).get("ellipsoid", {})
    equator = _metres(figure.get("semi_major_axis", figure.get("radius")))
    if equator is None:
        return Ellipsoid(_EQUATOR_M, _FLATTENING, LONLAT)
    pole = _metres(figure.get("semi_minor_axis"))
    inverse = float(figure.get("inverse_flattening", 0.0))
    flattening = 1 - pole / equator if pole is not None else (1 / inverse if inverse else 0.0)
    return Ellipsoid(equator, flattening, json.dumps(base))


@lru_cache(maxsize=64)
def turn_of(crs: str) -> float | None:
    """Growth of x once around the earth, map units; None for a CRS that does not wrap.

    All cylindrical projections wrap: Mercator, plate carrée, equal-area grids.
    """
    parsed = parse_crs(crs)
    if parsed.is_geographic:
        return float(2 * np.pi / parsed.units_factor[1])
    if not parsed.is_projected:
        return None
    geographic = ellipsoid_of(crs).geographic
    degree = np.pi / 180 / parse_crs(geographic).units_factor[1]
    lon, lat, step = (values * degree for values in (np.arange(-165.0, 180.0, 30.0), np.array([-40.0, 5.0, 50.0]), 0.5))
    places = np.stack(np.meshgrid(lon, lat), axis=-1)
    here, there = (
        reproject(points.reshape(-1, 2), geographic, crs).reshape(places.shape)
        for points in (places, places + np.array([step, 0.0]))
    )
    if not (np.isfinite(here).all() and np.isfinite(there).all()):
        return None
    per_step = float(np.median(there[..., 0] - here[..., 0]))
    turn = abs(per_step) * 360.0 * degree / step
    near = 1e-6 * turn
    straight = np.ptp(here[..., 1], axis=1).max() < near and np.ptp(here[..., 0], axis=0).max() < near
    return turn if straight and turn > 0 and _all_near(there[..., 0] - here[..., 0], per_step, turn) else None


def near_turn(values: FloatArray, centre: float, turn: float | None) -> FloatArray:
    """Shift x by whole turns so that no place is more than half a turn from `centre`."""
    return values if turn is None else values + turn * np.round((centre - values) / turn)


def reproject(points: FloatArray, source: str, target: str) -> FloatArray:
    """Reproject map coordinates (N, 2); NaN where the projection is not defined.

    Raises:
        GeoreferenceError: no operation joins the two CRSs.
    """
    result = np.full(points.shape, np.nan)
    usable = np.flatnonzero(np.isfinite(points).all(axis=1))
    crs = parse_crs(source), parse_crs(target)
    # One undefined point fails the whole call, so a failing set is halved until the undefined points are alone.
    pieces, calls = [usable] if usable.size else [], 0
    while pieces and calls < _MAX_PROJ_CALLS:
        piece = pieces.pop()
        calls += 1
        try:
            x, y = reproject_points(*crs, *points[piece].T)
        except RASTERIO_ERRORS as error:
            if calls == 1 and isinstance(error, CRSError):
                raise GeoreferenceError(f"the CRSs of the two images cannot be joined: {error}") from error
            if piece.size > 1:
                pieces += np.array_split(piece, 2)
            continue
        result[piece] = np.stack([np.asarray(x, float), np.asarray(y, float)], axis=-1)
    result[~np.isfinite(result).all(axis=1)] = np.nan
    return result


def _all_near(steps: FloatArray, usual: float, turn: float) -> bool:
    """Whether all steps have the usual length; a step across the edge of the map does not."""
    return bool((np.abs(near_turn(steps, usual, turn) - usual) < 1e-6 * turn).all())


def _root(crs: CRS) -> dict[str, Any]:
    """PROJJSON of the horizontal CRS, without bound or vertical parts."""
    try:
        described: dict[str, Any] = crs.to_dict(projjson=True)
    except CRSError:
        return {}
    while "source_crs" in described or "components" in described:
        described = described.get("source_crs") or described["components"][0]
    return described


def _metres(value: Any) -> float | None:
    if isinstance(value, dict):
        unit = value.get("unit")
        factor = unit.get("conversion_factor", 1.0) if isinstance(unit, dict) else 1.0
        return float(value["value"]) * float(factor)
    return None if value is None else float(value)
