"""Raster files in QGIS: source, displayed bands and stretch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags

from somareg.io.paths import whole_path
from somareg.io.source import Block, RasterSource, open_source
from somareg.report.plain import text
from somareg.report.previews import limits_of, shown_bands
from somareg.types import BoolArray, FloatArray, Modality

_ACROSS, _SIDE = 3, 256  # windows per axis for the limits, and their side in pixels


@dataclass(frozen=True, eq=False)
class Shown:
    """Display settings of a raster in QGIS.

    Attributes:
        source: of the layer: a path relative to the project's folder, or GDAL's name of a part of a file.
        bands: numbers in the file: three for red, green and blue, or one.
        limits: (C, 2) values of these bands that are displayed as black and white.
        alpha: number of the opacity band; -1 for none.
        colours: of the classes of a palette, value -> red, green, blue, alpha; {} for any other image.
        nodata: nodata value that replaces the file's; None for the file's.
    """

    source: str
    bands: tuple[int, ...]
    limits: FloatArray
    alpha: int = -1
    colours: dict[int, tuple[int, int, int, int]] | None = None
    nodata: float | None = None


def shown_file(
    path: Path, folder: Path, modality: Modality, *, place: Path | None = None, wanted: Sequence[int] | None = None
) -> Shown:
    """Display settings of a raster file, with the same stretch as its picture in the report.

    Args:
        path: of the file, see `io.paths.named`.
        folder: of the project.
        modality: SAR gets a darker white point.
        place: current path of an output, if it differs from `path`.
        wanted: numbers of the matched bands; default all.

    Raises:
        ReadError and others of `open_source`: it cannot be read.
    """
    with open_source(place or path, role="image of the project", tell=False) as source:
        bands = _bands(source, wanted)
        name = str(path) if place else source.dataset.name
        return Shown(
            source=source_name(name, whole_path(path), folder),
            bands=bands,
            limits=_limits(source, bands, modality),
            alpha=_alpha(source),
            colours=dict(source.colormap),
        )


def source_name(name: str, path: str, folder: Path) -> str:
    """The source of a file in a project: a path relative to its folder, or absolute, as on another drive.

    Args:
        name: GDAL's name of the file, perhaps with a part of it, such as NETCDF:"FILE":vv.
        path: absolute, of the file or its part.
        folder: of the project.
    """
    kind, _, rest = name.partition(":")
    if kind in ("NETCDF", "HDF5") and rest.startswith('"'):
        file, _, part = rest[1:].partition('"')
        return text(f'{kind}:"{_relative(file, folder)}"{part}')  # relative to the project in QGIS, too
    if kind == "GTIFF_DIR":
        return text(name)  # but not these
    return text(_relative(name if Path(name).is_absolute() else path, folder))


def _relative(file: str, folder: Path) -> str:
    try:
        way = Path(os.path.relpath(file, os.path.abspath(folder))).as_posix()  # noqa: PTH100 - links stay links
    except ValueError:
        return Path(file).as_posix()
    return way if way.startswith("../") else f"./{way}"


def _alpha(source: RasterSource) -> int:
    """The opacity band for QGIS: an alpha band, or the mask, which QGIS counts after the bands."""
    if source.alphas:
        return source.alphas[0]
    is_masked = source.dataset.mask_flag_enums[0] == [MaskFlags.per_dataset]
    return source.dataset.count + 1 if is_masked else -1


def _bands(source: RasterSource, wanted: Sequence[int] | None) -> tuple[int, ...]:
    numbers = tuple(band for band in wanted or () if band in source.bands) or source.bands
    return numbers[: shown_bands(len(numbers))]


def _limits(source: RasterSource, bands: tuple[int, ...], modality: Modality) -> FloatArray:
    """Black and white points (C, 2), from windows spread over the image."""
    windows = [source.read(block, bands) for block in _windows(source.grid.width, source.grid.height)]
    if not any(mask.any() for _, mask in windows):  # all windows are without valid pixels
        rows, columns = source.grid.shape
        step = max(1.0, max(rows, columns) / (_ACROSS * _SIDE))
        windows = [source.read(None, bands, (max(1, int(rows / step)), max(1, int(columns / step))))]
    data: NDArray[Any] = np.concatenate([own.reshape(len(bands), 1, -1) for own, _ in windows], axis=2)
    mask: BoolArray = np.concatenate([own.all(axis=0).reshape(1, -1) for _, own in windows], axis=1)
    # QGIS shows the real part of complex values.
    return limits_of(data.real if np.iscomplexobj(data) else data, mask, modality)


def _windows(width: int, height: int) -> Iterator[Block]:
    """Windows spread evenly over an image; they cover a small one."""
    for top, high in _spans(height):
        for left, wide in _spans(width):
            yield Block(left, top, wide, high)


def _spans(size: int) -> Iterator[tuple[int, int]]:
    edges = [size * number // _ACROSS for number in range(_ACROSS + 1)]
    for start, end in pairwise(edges):
        side = min(end - start, _SIDE)
        if side:
            yield (start + end - side) // 2, side
