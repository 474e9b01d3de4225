"""Read a file, or wrap an array, as a `Raster`: pixels, one mask and a grid."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from somareg.config import GcpMethod
from somareg.errors import InputError, NoDataError
from somareg.io.memory import check_fits
from somareg.io.paths import named, whole_path
from somareg.io.source import RasterSource, open_source
from somareg.io.validity import differs
from somareg.types import BoolArray, Grid, Header, Raster

log = logging.getLogger("somareg.io")

_MASK_BYTES = 3  # bytes per value: its mask, the file's own mask, and a temporary one
MIN_SIDE = 64
"""Smallest width and height that can be registered, pixels."""


def read_raster(
    path: str | Path,
    *,
    role: str,
    nodata: float | None = None,
    bands: Sequence[int] | None = None,
    matched: Sequence[int] | None = None,
    max_pixels: float = 4e9,
    gcp_method: GcpMethod = "auto",
) -> Raster:
    """Read a local raster file whole.

    The mask is True where every band is valid as GDAL says (its mask band or alpha band, else the nodata value that
    each band declares) and finite; no value is ever guessed to be nodata. Alpha leaves the data bands, palettes become
    red, green and blue, scale and offset tags are not applied, complex stays complex.

    Args:
        path: file of one of `ALLOWED_DRIVERS`.
        role: "moving" or "reference", named in messages.
        nodata: overrides the declared nodata value.
        bands: 1-based bands that the user named; one that the file flags as alpha is then imagery, too.
        matched: 1-based bands of the file that must be valid for `mask` to be True; default all data bands.
        max_pixels: refuse more than this many values (width x height x bands).
        gcp_method: the curve through ground control points where no geotransform places the image.

    Returns:
        The raster; its `notes` list the decisions taken while reading.

    Raises:
        ReadError: missing, empty, not an allowed format, truncated or damaged.
        UnsupportedError: a URL or GDAL virtual path.
        InputError: smaller than 64 px a side or larger than `max_pixels`.
        MemoryLimitError: more than fits into memory.
        NoDataError: no valid pixel.
    """
    with open_source(path, role=role, nodata=nodata, bands=bands, expand_palette=True, gcp_method=gcp_method) as source:
        check_side(source.name, source.grid.width, source.grid.height)
        check_size(source.name, (source.grid.width, source.grid.height, source.count), max_pixels)
        values = source.grid.width * source.grid.height * (source.count + len(source.alphas))
        what, way = f"reading {source.name} whole", "cut out the part that is needed"
        check_fits(values * (source.dtype.itemsize + _MASK_BYTES) + 2 * source.block_bytes, what, way)
        data, valid = source.read()
        alpha = source.read(bands=source.alphas)[0] if source.alphas else None
        check_any_valid(valid, source.name, source.nodata)
        numbers = (1, 2, 3) if source.palette is not None else source.bands
        mask, apart = _joined(valid, [numbers.index(band) for band in matched or numbers])
        facts = header_of(source, path, partial(read_raster, path, role=role))
        shared = {name: getattr(facts, name) for name in ("grid", "name", "path", "nodata", "descriptions", "tags")}
        per_band = {name: getattr(source, name) for name in ("scales", "offsets", "units")}
        return Raster(
            data=data,
            mask=mask,
            **shared,
            colorinterp=facts.colorinterp,
            sha256=file_sha256(path),
            notes=(*source.notes, *count_non_finite(data, source.name)),
            band_masks=apart,
            alpha=alpha,
            **(per_band if source.palette is None else {}),
        )


def _joined(valid: BoolArray, bands: Sequence[int]) -> tuple[BoolArray, BoolArray | None]:
    """The mask (H, W) of the given bands together; and the masks (C, H, W) of all bands, None when they are equal."""
    mask: BoolArray = np.asarray(valid[list(bands)].all(axis=0))
    return mask, None if bool((valid == mask).all()) else valid


def header_of(source: RasterSource, path: str | Path, reader: Callable[..., Raster]) -> Header:
    """Metadata of an open file, without a checksum.

    Args:
        source: the open file.
        path: as the caller gave it.
        reader: reads the whole file.
    """
    return Header(
        grid=source.grid,
        name=str(path),
        count=source.count,
        dtype=source.dtype,
        reader=reader,
        path=Path(whole_path(path)),
        nodata=source.nodata,
        descriptions=source.descriptions,
        tags=source.tags,
        colorinterp=source.all_colorinterp,
        notes=source.notes,
    )


def from_array(
    array: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    role: str,
    nodata: float | None = None,
) -> Raster:
    """Wrap an array that has no georeference.

    Each band has its own invalid pixels, and the mask is True where all bands are valid.

    Args:
        array: (H, W) or (C, H, W), bool, integer, real or complex; a NumPy masked array brings its mask.
        mask: (H, W), True where valid; default everywhere.
        role: "moving" or "reference", named in messages.
        nodata: value that marks invalid pixels.

    Raises:
        InputError: another shape or dtype, smaller than 64 px a side, or a mask that does not fit.
        NoDataError: no valid pixel in any band.
    """
    name = f"{role} array"
    data = _as_bands(array, name)
    band_valid = np.ones(data.shape, bool)
    if mask is not None:
        band_valid &= _as_mask(mask, data, name)
    if isinstance(array, np.ma.MaskedArray):
        band_valid &= ~np.ma.getmaskarray(array).reshape(data.shape)
    if data.dtype.kind in "fc":
        band_valid &= np.isfinite(data)
    band_valid &= differs(data, nodata)
    check_any_valid(band_valid, name, nodata)
    valid, apart = _joined(band_valid, range(len(data)))
    notes = tuple(count_non_finite(data, name))
    grid = Grid(data.shape[2], data.shape[1])
    return Raster(data, valid, grid, name=name, nodata=nodata, notes=notes, band_masks=apart)


def file_sha256(path: str | Path) -> str:
    """SHA-256 of the file of a path, read in pieces, as hex digits."""
    file = Path(path)
    with (file if file.is_file() else named(path, "input").file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _as_bands(array: ArrayLike, name: str) -> NDArray[Any]:
    data = np.ma.getdata(array) if isinstance(array, np.ma.MaskedArray) else np.asarray(array)
    if data.dtype.kind not in "biufc":
        raise InputError(f"{name} has dtype {data.dtype}; give bool, integer, real or complex numbers")
    if data.ndim == 2:
        data = data[None]
    if data.ndim != 3:
        raise InputError(f"{name} has {data.ndim} dimensions; give (H, W) or (C, H, W)")
    bands, height, width = data.shape
    if width in (3, 4) and min(bands, height) >= MIN_SIDE:
        raise InputError(f"{name} has shape {data.shape}, bands last; transpose it to (C, H, W): np.moveaxis(a, -1, 0)")
    if bands == 0:
        raise InputError(f"{name} has no band")
    check_side(name, width, height)
    return data


def _as_mask(mask: ArrayLike, data: NDArray[Any], name: str) -> BoolArray:
    valid = np.asarray(mask)
    if valid.shape != data.shape[1:]:
        raise InputError(f"mask {valid.shape} does not fit {name} {data.shape}; give (H, W), True where valid")
    return np.array(valid, bool)


def check_size(name: str, size: tuple[int, int, int], max_pixels: float) -> None:
    """Refuse an image that is too large before anything is allocated.

    Raises:
        InputError: more than `max_pixels` values (width x height x bands).
    """
    width, height, bands = size
    values = width * height * bands
    if values > max_pixels:
        raise InputError(
            f"{name} holds {values:.3g} pixel values ({width} x {height} x {bands}), more than max_pixels = "
            f"{max_pixels:.3g}; crop it or raise max_pixels"
        )


def check_side(name: str, width: int, height: int) -> None:
    """Raise `InputError` for an image that is too small to be registered."""
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{name} is {width} x {height} px; at least {MIN_SIDE} px a side are needed")


def check_any_valid(mask: BoolArray, name: str, nodata: float | None) -> None:
    """Raise `NoDataError` for a mask without any valid pixel."""
    if not mask.any():
        rule = f"nodata value {nodata:g}" if nodata is not None else "its mask, or NaN everywhere"
        raise NoDataError(f"{name} holds no valid pixel ({rule}); check the file or give another nodata value")


def count_non_finite(data: NDArray[Any], name: str) -> list[str]:
    """A note on how many pixels are NaN or infinite; () when there are none."""
    if data.dtype.kind not in "fc":
        return []
    count = data[0].size - int(np.isfinite(data).all(axis=0).sum())
    if not count:
        return []
    note = f"{name}: {count} NaN or infinite pixels masked"
    log.info(note)
    return [note]
