"""`xarray.DataArray`s with rioxarray's CRS, transform and nodata value: in as a `Raster`, out as a DataArray.

xarray and rioxarray are the extra `xarray`; importing this module needs neither.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from affine import Affine
from numpy.typing import ArrayLike, NDArray

from somareg.errors import InputError, UnsupportedError
from somareg.io.array_place import grid_of_array
from somareg.io.attributes import (
    attributes_of,
    descriptions,
    numbers_per_band,
    scaling_attributes,
    units_per_band,
)
from somareg.io.memory import check_fits
from somareg.io.raster import from_array
from somareg.io.validity import differs
from somareg.types import BoolArray, FloatArray, Grid, Raster

if TYPE_CHECKING:
    import xarray

INSTALL = "pip install 'somareg[xarray]'"


@dataclass(frozen=True, eq=False)
class ArrayHeader:
    """A DataArray's grid and metadata, before any of its pixels is computed.

    Attributes:
        bands: the DataArray, as (band, y, x).
        grid: where the pixels are.
        nodata: declared value, NaN where masked values were read as NaN, None without one.
        descriptions: one per band.
        tags: its text attributes.
        scales, offsets, units: one per band, () when there are none.
        notes: decisions taken while reading.
    """

    bands: xarray.DataArray
    grid: Grid
    nodata: float | None
    descriptions: tuple[str, ...]
    tags: dict[str, str]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    units: tuple[str, ...]
    notes: tuple[str, ...]

    def read(self, x: int, y: int, width: int, height: int) -> tuple[NDArray[Any], BoolArray]:
        """Pixels (C, h, w) of a rectangle and their mask (C, h, w); of a Dask array only its chunks are computed."""
        data = self.bands[:, y : y + height, x : x + width].to_numpy()
        mask = np.isfinite(data) if data.dtype.kind in "fc" else np.ones(data.shape, bool)
        return data, np.asarray(mask & differs(data, self.nodata))


def is_dataarray(image: object) -> TypeGuard[xarray.DataArray]:
    """Whether it is an xarray.DataArray; xarray is not imported to find out."""
    module = sys.modules.get("xarray")
    return module is not None and isinstance(image, module.DataArray)


def need_rioxarray() -> None:
    """Import rioxarray, which gives DataArrays their `.rio`.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        import rioxarray  # noqa: F401
    except ImportError as error:
        raise UnsupportedError(f"DataArrays need {error.name}, which is not installed; {INSTALL}") from error


def from_dataarray(
    array: xarray.DataArray,
    *,
    role: str,
    nodata: float | None = None,
    mask: ArrayLike | None = None,
    max_pixels: float = 4e9,
) -> Raster:
    """Read a DataArray whole; a Dask array is computed once, after everything else was checked.

    Args:
        array: (y, x) or (band, y, x) in any order; further dimensions must have length 1. Rows may run either way.
        role: "moving" or "reference", named in messages.
        nodata: overrides the declared nodata value.
        mask: (H, W) in rows of y, True where valid, on top of nodata.
        max_pixels: refuse more than this many values.

    Raises:
        UnsupportedError: rioxarray is not installed.
        InputError: no spatial dimensions, more than one other, coordinates that are not evenly spaced, another dtype,
            smaller than 64 px a side, or larger than `max_pixels`.
        MemoryLimitError: more than fits into memory.
        NoDataError: no valid pixel.
    """
    header = read_header(array, role, nodata)
    if header.bands.size > max_pixels:
        raise InputError(
            f"{role} DataArray holds {header.bands.size:.3g} pixel values, more than max_pixels = {max_pixels:.3g}; "
            "crop it or raise max_pixels"
        )
    what, way = f"reading the {role} DataArray whole", "cut out the part that is needed"
    check_fits(header.bands.size * (header.bands.dtype.itemsize + 3), what, way)
    raster = from_array(header.bands.to_numpy(), mask=mask, role=role, nodata=header.nodata)
    return replace(
        raster,
        grid=header.grid,
        name=f"{role} DataArray" + (f" '{array.name}'" if array.name else ""),
        descriptions=header.descriptions,
        tags=header.tags,
        scales=header.scales,
        offsets=header.offsets,
        units=header.units,
        notes=(*header.notes, *raster.notes),
        origin=array,
    )


def read_header(array: xarray.DataArray, role: str, nodata: float | None = None) -> ArrayHeader:
    """Dimensions, georeference and metadata of a DataArray; no pixel is computed. See `from_dataarray`."""
    need_rioxarray()
    name = f"{role} DataArray"
    bands, band_dim = _as_bands(array, name)
    if bands.dtype.kind not in "biufc":
        raise InputError(f"{name} has dtype {bands.dtype}; give bool, integer, real or complex numbers")
    notes: list[str] = []
    grid = grid_of_array(array, name, notes)
    declared = nodata if nodata is not None else array.rio.nodata
    count = bands.shape[0]
    scales = numbers_per_band(array.attrs, ("scale_factor", "scales"), count, name, notes)
    offsets = numbers_per_band(array.attrs, ("add_offset", "offsets"), count, name, notes)
    if any(value != 1 for value in scales) or any(value != 0 for value in offsets):
        notes.append(f"{name}: scale_factor and add_offset kept, raw values used")
    return ArrayHeader(
        bands=bands,
        grid=grid,
        nodata=None if declared is None else float(np.real(declared)),
        descriptions=descriptions(array, bands, band_dim),
        tags={k: v for k, v in attributes_of(array.attrs).items() if isinstance(v, str)},
        scales=scales,
        offsets=offsets,
        units=units_per_band(array.attrs, count),
        notes=tuple(notes),
    )


def kept_attributes(image: object) -> dict[str, Any]:
    """Attributes of a DataArray that stay true on another grid, see `attributes_of`; {} for anything else."""
    return attributes_of(image.attrs) if is_dataarray(image) else {}


def to_dataarray(
    raster: Raster,
    *,
    like: object = None,
    name: str | None = None,
    kept: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> Any:
    """A raster as DataArray (band, y, x) that rioxarray understands.

    Coordinates are pixel centres. A rotated grid has a transform and no coordinates, and one that ground control
    points place has neither, nor a CRS. When pixels are invalid and no
    value can mark them (integers without nodata), the boolean coordinate `valid` (y, x) does.

    Args:
        raster: pixels and place.
        like: a DataArray on the same grid, whose names and exact values of y and x are taken; anything else is ignored.
        name: of the DataArray.
        kept: attributes of the source, see `kept_attributes`.
        **attributes: added to its attributes.

    Raises:
        UnsupportedError: rioxarray is not installed.
    """
    need_rioxarray()
    import xarray

    axes = _axes_like(like, raster.grid) or _axes(raster.grid)
    (y_dim, _), (x_dim, _) = axes
    coordinates: dict[Hashable, Any] = {dim: (dim, values) for dim, values in axes if values is not None}
    coordinates["band"] = np.arange(1, len(raster.data) + 1)
    if raster.nodata is None and raster.data.dtype.kind not in "fc" and not raster.mask.all():
        coordinates["valid"] = ((y_dim, x_dim), raster.mask)
    attrs = {**raster.tags, **(kept or {}), **scaling_attributes(raster), **attributes}
    if any(raster.descriptions):
        attrs["long_name"] = raster.descriptions if len(raster.descriptions) > 1 else raster.descriptions[0]
    result = xarray.DataArray(raster.data, coordinates, ("band", y_dim, x_dim), name=name, attrs=attrs)
    result = result.rio.set_spatial_dims(x_dim=x_dim, y_dim=y_dim)
    if raster.grid.control is None:
        result = result.rio.write_crs(raster.grid.crs) if raster.grid.crs is not None else result
        result = result.rio.write_transform(Affine(*raster.grid.transform))
    return result if raster.nodata is None else result.rio.write_nodata(raster.nodata)


def _as_bands(array: xarray.DataArray, name: str) -> tuple[xarray.DataArray, Hashable | None]:
    """Transpose to (band, y, x); also return the name of the band dimension if there is one."""
    from rioxarray.exceptions import RioXarrayError

    try:
        y, x = array.rio.y_dim, array.rio.x_dim
    except RioXarrayError as error:
        raise InputError(
            f"{name} has dimensions {array.dims}, and none of them is known as y and x; say which they are: "
            "array.rio.set_spatial_dims(x_dim=..., y_dim=...)"
        ) from error
    others = [dim for dim in array.dims if dim not in (y, x)]
    long = [dim for dim in others if array.sizes[dim] != 1]
    if len(long) > 1:
        raise InputError(f"{name} has dimensions {array.dims}; take one of {long[0]}: array.isel({long[0]}=0)")
    keep = long[0] if long else next((dim for dim in others if dim == "band"), None)
    bands = array.squeeze([dim for dim in others if dim != keep])
    if keep is None:
        return bands.transpose(y, x).expand_dims("band"), None
    return bands.transpose(keep, y, x), keep


def _axes(grid: Grid) -> tuple[tuple[str, FloatArray | None], tuple[str, FloatArray | None]]:
    """Names and pixel-centre coordinates of y and x, in rioxarray's own arithmetic."""
    a, b, c, d, e, f = grid.transform
    if b or d or grid.control is not None:
        return ("y", None), ("x", None)
    return ("y", e * (np.arange(grid.height) + 0.5) + f), ("x", a * (np.arange(grid.width) + 0.5) + c)


def _axes_like(like: object, grid: Grid) -> tuple[tuple[str, Any], tuple[str, Any]] | None:
    if not is_dataarray(like):
        return None
    y, x = like.rio.y_dim, like.rio.x_dim
    if (like.sizes[y], like.sizes[x]) != grid.shape:
        return None
    y_values, x_values = (like[dim].to_numpy() if dim in like.coords else None for dim in (y, x))
    return (y, y_values), (x, x_values)
