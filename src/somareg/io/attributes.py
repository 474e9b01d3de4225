"""Attributes of DataArrays, as rioxarray reads and writes them: scale, offset, units, names, and what else is kept."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from somareg.types import Raster

if TYPE_CHECKING:
    import xarray

_SCALING = ("scale_factor", "scales", "add_offset", "offsets", "units")
_PLACE = {"crs", "transform", "res", "resolution", "bounds", "spec", "spatial_ref", "grid_mapping", "AREA_OR_POINT"}
_NODATA = {"_FillValue", "missing_value", "nodata", "nodatavals"}
_KNOWN_ATTRIBUTES = {"long_name", *_SCALING, *_PLACE, *_NODATA}


def attributes_of(attrs: Mapping[Hashable, Any]) -> dict[str, Any]:
    """Attributes that hold whatever grid an image is on.

    Place, nodata value, names, scale, offset and units are told otherwise, statistics hold no longer.
    """
    told = {str(key): value for key, value in attrs.items()}
    return {k: v for k, v in told.items() if k not in _KNOWN_ATTRIBUTES and not k.startswith(("STATISTICS_", "proj:"))}


def scaling_attributes(raster: Raster) -> dict[str, Any]:
    """Scale, offset and units as rioxarray writes them; one value where all bands have the same."""
    told: dict[str, Any] = {}
    if any(value != 1 for value in raster.scales) or any(value != 0 for value in raster.offsets):
        for one, many, values, default in (
            ("scale_factor", "scales", raster.scales, 1.0),
            ("add_offset", "offsets", raster.offsets, 0.0),
        ):
            own = values or (default,) * len(raster.data)
            told |= {one: own[0]} if len(set(own)) == 1 else {many: own}
    if any(raster.units):
        told["units"] = raster.units[0] if len(set(raster.units)) == 1 else raster.units
    return told


def numbers_per_band(
    attrs: Mapping[Hashable, Any], keys: tuple[str, str], count: int, name: str, notes: list[str]
) -> tuple[float, ...]:
    """A number per band from the attribute of that name for all of them, or from the one for each; () without."""
    for key in keys:
        if key not in attrs:
            continue
        try:
            values = np.asarray(attrs[key], np.float64).ravel()
        except (TypeError, ValueError):
            values = np.zeros(0)
        if len(values) in (1, count) and np.isfinite(values).all():
            return tuple(float(v) for v in np.broadcast_to(values, count))
        notes.append(f"{name}: attribute {key} is no number, nor one for each of {count} bands, and is ignored")
    return ()


def units_per_band(attrs: Mapping[Hashable, Any], count: int) -> tuple[str, ...]:
    """A unit per band, from one for all of them or one for each; () without."""
    given = attrs.get("units")
    if isinstance(given, str):
        return (given,) * count
    if isinstance(given, list | tuple) and len(given) == count:
        return tuple("" if text is None else str(text) for text in given)
    return ()


def descriptions(array: xarray.DataArray, bands: xarray.DataArray, band_dim: Hashable | None) -> tuple[str, ...]:
    """A name per band: `long_name`, else the labels of its dimension where they are text."""
    count = bands.shape[0]
    given = array.attrs.get("long_name")
    if isinstance(given, str) and count == 1:
        return (given,)
    if isinstance(given, list | tuple) and len(given) == count:
        return tuple(str(text) for text in given)
    labels = array.coords[band_dim].to_numpy() if band_dim in array.coords else np.arange(count)
    return tuple(map(str, labels)) if labels.dtype.kind in "UOST" else ("",) * count
