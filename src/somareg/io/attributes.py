"""Attributes of DataArrays as rioxarray reads and writes them: scale, offset, units, names and the rest."""

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
    """Attributes that stay true on another grid.

    Place, nodata value, names, scale, offset and units are stored elsewhere; statistics are no longer true.
    """
    texts = {str(key): value for key, value in attrs.items()}
    return {k: v for k, v in texts.items() if k not in _KNOWN_ATTRIBUTES and not k.startswith(("STATISTICS_", "proj:"))}


def scaling_attributes(raster: Raster) -> dict[str, Any]:
    """Scale, offset and units as rioxarray writes them; one value when all bands share it."""
    entries: dict[str, Any] = {}
    if any(value != 1 for value in raster.scales) or any(value != 0 for value in raster.offsets):
        for one, many, values, default in (
            ("scale_factor", "scales", raster.scales, 1.0),
            ("add_offset", "offsets", raster.offsets, 0.0),
        ):
            own = values or (default,) * len(raster.data)
            entries |= {one: own[0]} if len(set(own)) == 1 else {many: own}
    if any(raster.units):
        entries["units"] = raster.units[0] if len(set(raster.units)) == 1 else raster.units
    return entries


def numbers_per_band(
    attrs: Mapping[Hashable, Any], keys: tuple[str, str], count: int, name: str, notes: list[str]
) -> tuple[float, ...]:
    """One number per band, from an attribute for all bands or one for each; () without either."""
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
    """One unit per band, from one for all bands or one for each; () without either."""
    units = attrs.get("units")
    if isinstance(units, str):
        return (units,) * count
    if isinstance(units, list | tuple) and len(units) == count:
        return tuple("" if text is None else str(text) for text in units)
    return ()


def descriptions(array: xarray.DataArray, bands: xarray.DataArray, band_dim: Hashable | None) -> tuple[str, ...]:
    """One name per band: `long_name`, else the text labels of the band dimension."""
    count = bands.shape[0]
    long_name = array.attrs.get("long_name")
    if isinstance(long_name, str) and count == 1:
        return (long_name,)
    if isinstance(long_name, list | tuple) and len(long_name) == count:
        return tuple(str(text) for text in long_name)
    labels = array.coords[band_dim].to_numpy() if band_dim in array.coords else np.arange(count)
    return tuple(map(str, labels)) if labels.dtype.kind in "UOST" else ("",) * count
