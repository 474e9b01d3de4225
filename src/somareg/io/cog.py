"""How a cloud-optimised GeoTIFF is made: overviews and compression, of it and of the file that it is copied from."""

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
    """Of bytes the usual one. Wider values carry noise in their low bits, which no level makes smaller: with a
    predictor level 1 gives files of the same size in half of the time.
    """
    return 6 if dtype.itemsize == 1 else 1


@cache
def passing_compression() -> Mapping[str, Any]:
    """Of a file that is read once and deleted: Zstandard where this GDAL has it, which is quickest."""
    profile: dict[str, Any] = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8"}
    try:
        with rasterio.io.MemoryFile() as memory, warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(compress="zstd", **profile):
                return {"compress": "zstd", "zstd_level": 1}
    except RASTERIO_ERRORS:
        return {"compress": "deflate", "zlevel": 1}


def overview_factors(shape: tuple[int, int]) -> list[int]:
    """Of an image of (height, width): down to one tile, as GDAL chooses them."""
    longest, factors = max(shape), list[int]()
    while longest > TILE:
        longest = (longest + 1) // 2
        factors.append(2 ** (len(factors) + 1))
    return factors


def overview_resampling(*, mixing: bool) -> Resampling:
    """Averages where values may be mixed."""
    return Resampling.average if mixing else Resampling.nearest


def cog_options(dtype: np.dtype[Any], *, mixing: bool) -> dict[str, Any]:
    """Creation options of GDAL's COG driver.

    It works on one thread: a process that is forked later would wait for GDAL's other threads for ever.
    """
    return {
        "COMPRESS": "DEFLATE",
        "LEVEL": deflate_level(dtype),
        "PREDICTOR": "NO" if dtype.kind == "c" else "YES",
        "BLOCKSIZE": TILE,
        "BIGTIFF": "IF_SAFER",
        "OVERVIEW_RESAMPLING": overview_resampling(mixing=mixing).name.upper(),
    }
