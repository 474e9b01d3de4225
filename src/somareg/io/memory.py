"""Memory checks: what does not fit is refused before any pixel is read."""

from __future__ import annotations

from typing import Any

import numpy as np
from rasterio.enums import Interleaving

from somareg.errors import MemoryLimitError
from somareg.runtime.budget import allowed, in_words

CACHE_BYTES = 192 << 20
_LEAST_CACHE = 16 << 20

_SMALL_BLOCK = 64 << 20


def check_fits(count: float, what: str, way_out: str) -> None:
    """Refuse work that needs more memory than the limit.

    Args:
        count: bytes needed.
        what: the work, as the subject of the message.
        way_out: advice that needs less.

    Raises:
        MemoryLimitError: it does not fit.
    """
    limit = allowed()
    if count > limit:
        raise MemoryLimitError(
            f"{what} takes about {in_words(count)} of memory, and {in_words(limit)} may be used; {way_out}, or allow "
            "more with max_memory (--max-memory)"
        )


def block_cache(most: int = CACHE_BYTES, limit: int | None = None) -> int:
    """Bytes of decoded blocks that GDAL keeps, an eighth of what may be used; by itself it takes a twentieth of memory.

    For `rasterio.Env(GDAL_CACHEMAX=...)`, which takes bytes; GDAL's option of that name takes megabytes.

    Args:
        most: bytes, at most.
        limit: bytes, another limit than that eighth.
    """
    return max(_LEAST_CACHE, min(most, allowed() // 8 if limit is None else limit))


def block_bytes(dataset: Any) -> int:
    """Bytes of the largest piece of an open file that is decoded in one go: a tile, or a strip of any height.

    Bands that are stored pixel by pixel are decoded together.
    """
    bands = dataset.count if dataset.interleaving == Interleaving.pixel else 1
    sizes: list[int] = [
        height * width * np.dtype("complex64" if kind == "complex_int16" else kind).itemsize * bands
        for (height, width), kind in zip(dataset.block_shapes, dataset.dtypes, strict=True)
    ]
    return max(sizes)


def check_block(dataset: Any, name: str) -> None:
    """Refuse an open file whose tiles or strips are too large to decode.

    Raises:
        MemoryLimitError: a strip or tile does not fit twice, as GDAL decodes it and as its cache holds it.
    """
    size = block_bytes(dataset)
    if size > _SMALL_BLOCK:
        height, width = dataset.block_shapes[0]
        what = f"reading any part of {name}, which is stored in pieces of {width} x {height} px,"
        check_fits(2 * size, what, "store it in tiles (gdal_translate -co TILED=YES)")
