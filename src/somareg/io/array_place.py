"""The grid of a DataArray, from its coordinates, rioxarray's CRS and what stackstac writes."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine

from somareg.errors import GeoreferenceError, InputError
from somareg.io.crs import parse_crs
from somareg.types import IDENTITY, FloatArray, Geotransform, Grid

if TYPE_CHECKING:
    import xarray

_UNEVEN = 0.01  # of a pixel's size: coordinates in float32 are no evener
_CRS_COORDINATES = ("proj:code", "proj:epsg", "epsg")


def grid_of_array(array: xarray.DataArray, name: str, notes: list[str]) -> Grid:
    """CRS and transform; coordinates go before a written transform, which a crop does not update.

    Coordinates are those of pixel centres. Where a written transform shows that they are those of upper left corners,
    as stackstac writes them, they are taken as that.

    Args:
        array: with dimensions that rioxarray knows.
        name: what messages call it.
        notes: list to which decisions are appended.

    Raises:
        InputError: coordinates that are not evenly spaced.
    """
    if "transform" in array.attrs and _told_transform(array.attrs["transform"]) is None:
        notes.append(f"{name}: attrs['transform'] is no transform and is ignored")
        array = array.copy(deep=False)
        del array.attrs["transform"]  # rioxarray would stumble over it
    width, height = array.rio.width, array.rio.height
    transform = _coefficients(array.rio.transform())
    if not (transform[1] or transform[3]):
        for dim in (array.rio.x_dim, array.rio.y_dim):
            if dim in array.coords:
                _check_spacing(np.asarray(array[dim].to_numpy(), float), str(dim), name)
        computed = Grid(width, height, _coefficients(array.rio.transform(recalc=True)))
        transform = _unrounded(computed, _written_transform(array))
        transform = _by_attribute(array, transform, name, notes)
    wkt = _crs(array, name, notes)
    if wkt is not None and transform == IDENTITY:
        notes.append(f"{name}: a CRS without coordinates or transform is ignored")
        wkt = None
    return Grid(width, height, transform, wkt)


def _crs(array: xarray.DataArray, name: str, notes: list[str]) -> str | None:
    """WKT of rioxarray's CRS, else of the coordinate in which stackstac and odc-stac store a code."""
    if array.rio.crs is not None:
        return str(array.rio.crs.to_wkt())
    for key in _CRS_COORDINATES:
        if key not in array.coords or array.coords[key].size != 1:
            continue
        code = str(array.coords[key].item())
        try:
            wkt = parse_crs(code if ":" in code else f"EPSG:{int(float(code))}").to_wkt()
        except (GeoreferenceError, ValueError, OverflowError):
            notes.append(f"{name}: its coordinate '{key}' holds {code[:40]}, which is no CRS, and is ignored")
            continue
        notes.append(f"{name}: CRS taken from its coordinate '{key}'")
        return str(wkt)
    return None


def _by_attribute(array: xarray.DataArray, transform: Geotransform, name: str, notes: list[str]) -> Geotransform:
    """The transform from coordinates, moved by half a pixel when a written transform shows that they name corners."""
    attribute = _told_transform(array.attrs.get("transform"))
    written = attribute or _written_transform(array)
    axes = [array.coords.get(dim) for dim in (array.rio.x_dim, array.rio.y_dim)]
    if written is None or any(axis is None for axis in axes):
        return transform
    first = [float(axis[0]) for axis in axes if axis is not None]
    a, b, c, d, e, f = written
    here = np.array([(first[0] - c) / a, (first[1] - f) / e])
    a0, b0, c0, d0, e0, f0 = transform
    is_same_size = np.allclose(np.abs([a, e]), np.abs([a0, e0]), rtol=1e-3) and b == d == 0
    from_corner = np.abs(here - np.round(here)).max()
    from_centre = np.abs(here - 0.5 - np.round(here - 0.5)).max()
    if is_same_size and from_centre < 0.05:
        return transform
    if is_same_size and from_corner < 0.05:
        notes.append(f"{name}: its coordinates are those of upper left corners, as its transform shows")
        return a0, b0, c0 + a / 2, d0, e0, f0 + e / 2
    if attribute is not None:
        notes.append(f"{name}: attrs['transform'] disagrees with its coordinates, which are used")
    return transform


def _told_transform(value: Any) -> Geotransform | None:
    """Six coefficients from an Affine or from 6 or 9 numbers in its order; None for anything else."""
    try:
        values = np.array([float(v) for v in value][:6])
    except (TypeError, ValueError):
        return None
    if len(values) != 6 or not np.isfinite(values).all() or values[0] == 0 or values[4] == 0:
        return None
    a, b, c, d, e, f = (float(v) for v in values)
    return a, b, c, d, e, f


def _written_transform(array: xarray.DataArray) -> Geotransform | None:
    """The transform as written beside the CRS, in GDAL's order there, without the rounding of coordinates."""
    mapping: Hashable = array.rio.grid_mapping
    try:
        c, a, b, f, d, e = map(float, array.coords[mapping].attrs["GeoTransform"].split())
    except (AttributeError, KeyError, ValueError):
        return None
    return a, b, c, d, e, f


def _unrounded(computed: Grid, written: Geotransform | None) -> Geotransform:
    """The written transform when it agrees with the coordinates, else the transform from coordinates."""
    if written is None:
        return computed.transform
    corners = np.array([[-0.5, -0.5], [computed.width - 0.5, computed.height - 0.5]])
    apart = replace(computed, transform=written).to_map(corners) - computed.to_map(corners)
    return written if float(np.abs(apart).max()) < 1e-3 * min(computed.pixel_size) else computed.transform


def _coefficients(transform: Affine) -> Geotransform:
    a, b, c, d, e, f = (float(v) for v in transform[:6])
    return a, b, c, d, e, f


def _check_spacing(values: FloatArray, dim: str, name: str) -> None:
    steps = np.diff(values)
    mean = float(steps.mean()) if steps.size else 1.0
    if not np.isfinite(mean) or mean == 0 or float(np.abs(steps - mean).max(initial=0.0)) > _UNEVEN * abs(mean):
        raise InputError(f"coordinates '{dim}' of {name} are not evenly spaced; resample it to a regular grid first")
