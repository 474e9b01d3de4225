"""One nodata value for bands that declare several, because a GeoTIFF can hold one only."""

from __future__ import annotations

import logging

import numpy as np

from somareg.io.source import Block, RasterSource
from somareg.io.validity import differs
from somareg.io.writer import storable_nodata

log = logging.getLogger("somareg.warp")

_ROWS_VALUES = 8_000_000  # read at a time


def one_nodata(source: RasterSource) -> float:
    """Choose a nodata value that no valid pixel has, one of the declared values if possible.

    Real and complex bands get NaN. Integer bands are read once. When every value is in use, it is the first
    that a band declares, and valid pixels with that value are changed by one when they are written.
    """
    if source.dtype.kind in "fc":
        chosen = float("nan")
    else:
        info = np.iinfo(source.dtype)
        declared = [value for value in source.nodatas if storable_nodata(value, source.dtype) is not None]
        more = range(info.min, info.max + 1) if info.bits == 8 else (info.min, info.max, info.max - 1)
        candidates = list(dict.fromkeys([*(float(v) for v in declared if v is not None), *map(float, more)]))
        free = _unused(source, candidates)
        chosen = free[0] if free else candidates[0]
    values = ", ".join("none" if value is None else f"{value:g}" for value in source.nodatas)
    log.info("%s declares one nodata value for each band (%s); the output has %g for all", source.name, values, chosen)
    return chosen


def _unused(source: RasterSource, candidates: list[float]) -> list[float]:
    """The candidates that no valid pixel has."""
    width, height = source.grid.width, source.grid.height
    rows = max(1, _ROWS_VALUES // (width * source.count))
    left = candidates
    for top in range(0, height, rows):
        data, valid = source.read(Block(0, top, width, min(rows, height - top)))
        present = np.unique(data[valid])
        left = [value for value in left if differs(present, value).all()]
        if not left:
            break
    return left
