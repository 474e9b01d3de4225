"""The moving image on the reference's grid, as its georeference places it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.errors import NoOverlapError
from somareg.geometry.lattice import jacobian_between, on_lattice, pixel_centres, source_window
from somareg.geometry.resample import footprint_of, resample
from somareg.geometry.sampler import Kernel
from somareg.preprocess.bands import check_bands
from somareg.types import BoolArray, Grid, Raster, Transform

_TILE = 512


def to_reference_grid(
    moving: Raster,
    reference_grid: Grid,
    georef: Transform,
    *,
    pad: int,
    bands: Sequence[int] | None = None,
    kernel: Kernel = "bilinear",
) -> tuple[NDArray[np.float32], BoolArray]:
    """Resample the moving image through the georeference onto the reference grid enlarged by `pad` pixels a side.

    A finer moving image is averaged so that it does not alias; complex becomes amplitude first.

    Args:
        moving: the image.
        reference_grid: (H, W) pixels.
        georef: reference pixel centres -> moving pixel centres, see `somareg.io.georeference`.
        pad: pixels added on each side.
        bands: 1-based bands; default all.
        kernel: interpolation.

    Returns:
        Data (C, H + 2 pad, W + 2 pad) float32, 0 where invalid, and the mask (H + 2 pad, W + 2 pad).

    Raises:
        ConfigError: a band that the image does not have.
        NoOverlapError: the georeference cannot be evaluated anywhere on the moving image.
    """
    selection = _chosen(moving, bands)
    height, width = reference_grid.height + 2 * pad, reference_grid.width + 2 * pad
    data = np.zeros((len(selection), height, width), np.float32)
    mask = np.zeros((height, width), bool)
    jacobian = jacobian_between(georef, reference_grid.shape, moving.grid.shape)
    if not np.isfinite(jacobian).all():
        raise NoOverlapError(f"{moving.name} cannot be placed on the reference's grid; check the CRS of both images")
    footprint = footprint_of(jacobian)
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            h, w = min(_TILE, height - top), min(_TILE, width - left)
            x, y = left - pad, top - pad
            xy = on_lattice(georef, (x, y, x + w - 1, y + h - 1))(pixel_centres(x, y, w, h))
            window = source_window(xy, moving.grid.shape, margin=3 + int(max(footprint)))
            if window is None:
                continue
            part = slice(top, top + h), slice(left, left + w)
            pixels, valid = _cut(moving, selection, window)
            shifted = (xy - window[:2]).reshape(h, w, 2)
            sampled = resample(pixels, valid, shifted, kernel=kernel, footprint=footprint, out_dtype=np.float32)
            data[(slice(None), *part)], mask[part] = sampled
    return data, mask


def _chosen(moving: Raster, bands: Sequence[int] | None) -> list[int]:
    """0-based band indices."""
    count = len(moving.data)
    check_bands(tuple(bands or ()), count, moving.name)
    return [band - 1 for band in bands] if bands else list(range(count))


def _cut(moving: Raster, bands: list[int], window: tuple[int, int, int, int]) -> tuple[NDArray[Any], BoolArray]:
    x, y, w, h = window
    part = slice(y, y + h), slice(x, x + w)
    pixels = moving.data[(bands, *part)]
    if pixels.dtype.kind == "c":
        pixels = np.abs(pixels)
    return pixels, moving.mask[part]
