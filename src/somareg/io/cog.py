"""Creation options of cloud-optimised GeoTIFFs and of the temporary files that they are copied from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import rasterio.io
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning

from somareg.io.gdal_errors import RASTERIO_ERRORS

TILE = 512


def deflate_level(dtype: np.dtype[Any]) -> int:
    """The usual level for bytes, level 1 for wider values, whose low bits are noise that no level compresses: with a
    predictor, level 1 gives files of the same size in half the time.
    """
    return 6 if dtype.itemsize == 1 else 1


@cache
def passing_compression() -> Mapping[str, Any]:
    """Options of a file that is read once and deleted: Zstandard, the quickest, when this GDAL has it."""
    profile: dict[str, Any] = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8"}
    try:
        with rasterio.io.MemoryFile() as memory, warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(compress="zstd", **profile):
                return {"compress": "zstd", "zstd_level": 1}
    except RASTERIO_ERRORS:
        return {"compress": "deflate", "zlevel": 1}


def overview_factors(shape: tuple[int, int]) -> list[int]:
    """Overview factors of an image (height, width), down to one tile, as GDAL chooses them."""
    longest, factors = max(shape), list[int]()
    while longest > TILE:
        longest = (longest + 1) // 2
        factors.append(2 ** (len(factors) + 1))
    return factors


def overview_resampling(*, mixing: bool) -> Resampling:
    """Average when values may be mixed, else nearest."""
    return Resampling.average if mixing else Resampling.nearest


def cog_options(dtype: np.dtype[Any], *, mixing: bool) -> dict[str, Any]:
    """Creation options of GDAL's COG driver.

    The driver uses one thread: a process that is forked later would wait forever for GDAL's other threads.
    """
    return {
        "COMPRESS": "DEFLATE",
        "LEVEL": deflate_level(dtype),
        "PREDICTOR": "NO" if dtype.kind == "c" else "YES",
        "BLOCKSIZE": TILE,
        "BIGTIFF": "IF_SAFER",
        "OVERVIEW_RESAMPLING": overview_resampling(mixing=mixing).name.upper(),
    }
