"""Rasters in memory as inputs of `warp`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from somareg.errors import ConfigError
from somareg.io.dataarray import from_dataarray, is_dataarray
from somareg.io.masks import check_mask_values, classes_of_array
from somareg.io.raster import from_array
from somareg.types import Header, Raster, Reading

if TYPE_CHECKING:
    import xarray


def in_memory(
    image: NDArray[Any] | Raster | xarray.DataArray | str | Path, mask: ArrayLike | None, reading: Reading
) -> Raster | xarray.DataArray | str | Path:
    """Wrap an array as a `Raster` and return anything else unchanged; a DataArray with a mask in memory is read.

    Args:
        image: to warp.
        mask: (H, W) not zero where valid, or classes; of an array or DataArray only.
        reading: nodata value, and classes of the mask that are invalid.

    Raises:
        ConfigError: a mask for a file or a Raster.
        InputError, NoDataError: as `from_array` and `from_dataarray`.
    """
    options: dict[str, Any] = {"role": "input", "nodata": reading.nodata}
    if mask is not None:
        options["mask"] = classes_of_array(np.asarray(mask), reading.mask_values)
    else:
        check_mask_values(reading.mask, reading.mask_values, "mask_values")
    if isinstance(image, np.ndarray):
        return from_array(image, **options)
    if mask is None:
        return image
    if is_dataarray(image):
        return from_dataarray(image, **options)
    raise ConfigError("a mask in memory goes with an array; for a file or a Raster give the file of a mask")


def is_same(image: object, other: Raster | Header) -> bool:
    """Whether an image in memory is the registered one."""
    if not isinstance(other, Raster):
        return False
    if not isinstance(image, np.ndarray):
        return image is other or (image is other.origin and is_dataarray(image))
    pixels = np.ma.getdata(image) if isinstance(image, np.ma.MaskedArray) else image
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    data = other.data
    return (pixels.shape, pixels.strides, pixels.dtype) == (
        data.shape,
        data.strides,
        data.dtype,
    ) and pixels.__array_interface__["data"] == data.__array_interface__["data"]
