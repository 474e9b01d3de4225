"""A raster file in QGIS: its name, the bands shown, and their range of values."""

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

_ACROSS, _SIDE = 3, 256  # windows along each axis that limits are taken from, and their side in pixels


@dataclass(frozen=True, eq=False)
class Shown:
    """A raster as QGIS is to show it.

    Attributes:
        source: what the project calls it: a path from the project's folder, or what GDAL calls a part of a file.
        bands: numbers in the file: three for red, green and blue, or one.
        limits: (C, 2) values of these bands that are drawn black and white.
        alpha: number of the band that tells QGIS how opaque pixels are; -1 for none.
        colours: of the classes of a palette, value -> red, green, blue, alpha; {} for any other image.
        nodata: value that means no data otherwise than the file says; None for what the file says.
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
    """A raster file with the limits of its picture in the report, which is stretched in the same way.

    Args:
        path: of the file, see `io.paths.named`.
        folder: of the project.
        modality: SAR gets a darker white point.
        place: where an output lies now, if that is not `path`.
        wanted: numbers of the bands that were matched; all without.

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
    """The path of a file in a project: relative to its folder, or absolute if there is no relative one (another drive).

    Args:
        name: GDAL's, which names the file and perhaps a part of it, as in NETCDF:"FILE":vv.
        path: absolute, of the file or its part.
        folder: of the project.
    """
    kind, _, rest = name.partition(":")
    if kind in ("NETCDF", "HDF5") and rest.startswith('"'):
        file, _, part = rest[1:].partition('"')
        return text(f'{kind}:"{_relative(file, folder)}"{part}')  # QGIS takes such paths from the project, too
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
    """The band by which QGIS tells what is transparent: one of the file, or its mask, which QGIS counts after them."""
    if source.alphas:
        return source.alphas[0]
    is_masked = source.dataset.mask_flag_enums[0] == [MaskFlags.per_dataset]
    return source.dataset.count + 1 if is_masked else -1


def _bands(source: RasterSource, wanted: Sequence[int] | None) -> tuple[int, ...]:
    known = tuple(band for band in wanted or () if band in source.bands) or source.bands
    return known[: shown_bands(len(known))]


def _limits(source: RasterSource, bands: tuple[int, ...], modality: Modality) -> FloatArray:
    """Black and white points (C, 2), from some windows that are spread over the image."""
    windows = [source.read(block, bands) for block in _windows(source.grid.width, source.grid.height)]
    if not any(mask.any() for _, mask in windows):  # the middle of all of them holds no data
        rows, columns = source.grid.shape
        step = max(1.0, max(rows, columns) / (_ACROSS * _SIDE))
        windows = [source.read(None, bands, (max(1, int(rows / step)), max(1, int(columns / step))))]
    data: NDArray[Any] = np.concatenate([own.reshape(len(bands), 1, -1) for own, _ in windows], axis=2)
    mask: BoolArray = np.concatenate([own.all(axis=0).reshape(1, -1) for _, own in windows], axis=1)
    # QGIS shows the real part of complex values.
    return limits_of(data.real if np.iscomplexobj(data) else data, mask, modality)


def _windows(width: int, height: int) -> Iterator[Block]:
    """Evenly spread over an image; those of a small one cover it."""
    for top, high in _spans(height):
        for left, wide in _spans(width):
            yield Block(left, top, wide, high)


def _spans(size: int) -> Iterator[tuple[int, int]]:
    edges = [size * number // _ACROSS for number in range(_ACROSS + 1)]
    for start, end in pairwise(edges):
        side = min(end - start, _SIDE)
        if side:
            yield (start + end - side) // 2, side
