"""Opening raster files safely: format, grid, and the role of each band."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader

from somareg.config import GcpMethod
from somareg.errors import ReadError, SomaregError
from somareg.io.containers import open_container, open_page
from somareg.io.gdal_errors import GDAL_ERRORS, gdal_cause
from somareg.io.memory import check_block
from somareg.io.paths import Named, named
from somareg.io.pixels import CAREFUL, Block, RasterSource
from somareg.io.placing import grid_of
from somareg.io.raw import check_whole
from somareg.io.side_files import check_overviews, check_side_files
from somareg.io.validity import Validity, flagged_alpha
from somareg.runtime.quiet import without

__all__ = ["ALLOWED_DRIVERS", "Block", "RasterSource", "gdal_cause", "open_source"]

log = logging.getLogger("somareg.io")

ALLOWED_DRIVERS = ("GTiff", "COG", "JP2OpenJPEG", "ENVI", "PNG", "JPEG", "HFA")
"""Formats that are opened. VRT and all formats that can refer to other files are left out; netCDF and HDF5 are
opened by `somareg.io.containers` after a check for such references."""

_RGBA = ("red", "green", "blue", "alpha")


@contextmanager
def open_source(
    path: str | Path,
    *,
    role: str,
    nodata: float | None = None,
    bands: Sequence[int] | None = None,
    expand_palette: bool = False,
    gcp_method: GcpMethod = "auto",
    tell: bool = True,
) -> Iterator[RasterSource]:
    """Open a local raster file of an allowed format.

    Args:
        path: file on this machine.
        role: "moving", "reference" or what else messages should call it.
        nodata: overrides the declared nodata value.
        bands: 1-based bands that the user named; one that the file flags as alpha is then imagery, too.
        expand_palette: turn a palette image into red, green and blue bands.
        gcp_method: the curve through ground control points where no geotransform places the image.
        tell: log the decisions; False when a file is opened again, as for every tile.

    Raises:
        UnsupportedError: a URL or GDAL virtual path.
        ReadError: missing, empty, a folder, unreadable, not whole, or not one of `ALLOWED_DRIVERS`.
        GeoreferenceError: its ground control points place nothing.
        MemoryLimitError: a single tile or strip does not fit into the memory limit.
    """
    place = named(path, role)
    name = f"{role} image {path}"
    with rasterio.Env(**CAREFUL):
        dataset, notes = _open(place, name)
        with dataset:
            try:
                check_whole(dataset, place.file, name)
                check_block(dataset, name)
                found = place, notes
                source = _describe(dataset, name, (nodata, bands or ()), expand_palette, gcp_method, tell, found)
            except SomaregError:
                raise
            except GDAL_ERRORS as error:
                raise ReadError(
                    f"{name} is truncated or damaged: {gdal_cause(error)}. Fetch the file again."
                ) from error
            yield source


def _open(place: Named, name: str) -> tuple[Any, tuple[str, ...]]:
    """Open the target of a path; also return notes on the choices made."""
    check_side_files(place.file, name)

    def opener(text: str, drivers: Sequence[str]) -> Any:
        with without(NotGeoreferencedWarning):
            try:
                # The class behind rasterio.open, which alone takes a list of drivers.
                dataset = DatasetReader(text, driver=list(drivers))
            except GDAL_ERRORS as error:
                cause = _is_vrt(place.file) or gdal_cause(error)
                raise ReadError(f"{name} cannot be opened as one of {', '.join(drivers)}: {cause}") from error
        try:
            check_overviews(dataset, name)
        except BaseException:
            dataset.close()
            raise
        return dataset

    dataset = open_container(place, name, opener)
    if dataset is not None:
        return dataset, place.notes
    whole = opener(str(place.file.absolute()), ALLOWED_DRIVERS)
    dataset, note = open_page(place, name, opener, whole)
    return dataset, (*place.notes, *((note,) if note else ()))


def _is_vrt(file: Path) -> str:
    """Why a VRT is not opened, and the way out; "" for anything else."""
    try:
        with file.open("rb") as stream:
            is_vrt = b"<VRTDataset" in stream.read(1024)
    except OSError:
        return ""
    way_out = f"make it one file that holds its pixels: gdal_translate {file.name} OUT.tif"
    return f"it is a VRT, which may point to any file or address; {way_out}" if is_vrt else ""


def _describe(
    dataset: Any,
    name: str,
    overrides: tuple[float | None, Sequence[int]],
    expand_palette: bool,
    gcp_method: GcpMethod,
    tell: bool,
    located: tuple[Named, tuple[str, ...]],
) -> RasterSource:
    """Describe an open file; `overrides` are nodata value and bands, `located` is the target with notes."""
    grid, about = grid_of(dataset, name, gcp_method, located[0])
    notes = [*located[1], *about]
    level = logging.WARNING if tell else logging.DEBUG
    for note in notes:
        log.log(level, note)
    count_before = len(notes)
    interp, flagged = dataset.colorinterp, flagged_alpha(dataset)
    imagery = tuple(i for i in flagged if i in overrides[1])
    alphas = tuple(i for i in flagged if i not in imagery)
    bands = tuple(i for i in dataset.indexes if i not in alphas)
    validity = Validity(dataset, overrides[0], imagery, alphas)
    if tell and (about_alpha := validity.note()):
        notes.append(f"{name}: {about_alpha}")
    palette, colormap = _palette(dataset, bands, interp)
    expanded = palette is not None and expand_palette
    if expanded:
        notes.append(f"{name}: palette expanded to red, green, blue")
    # rasterio builds each of these lists over all bands anew at every access.
    scales, offsets, units, dtypes = dataset.scales, dataset.offsets, dataset.units, dataset.dtypes
    texts, declared = dataset.descriptions, dataset.nodatavals
    scaled = [i for i in bands if (scales[i - 1], offsets[i - 1]) != (1.0, 0.0)]
    if scaled:
        notes.append(f"{name}: scale and offset tags kept, raw values used")
    for note in notes[count_before:]:
        log.log(logging.INFO if tell else logging.DEBUG, note)
    nodatas = tuple(_nodata(declared[i - 1], overrides[0]) for i in bands)
    return RasterSource(
        name=name,
        grid=grid,
        dtype=np.dtype("uint8") if expanded else np.result_type(*{_numpy_dtype(dtypes[i - 1]) for i in bands}),
        count=3 if expanded else len(bands),
        nodata=next((value for value in nodatas if value is not None), None),
        nodatas=nodatas,
        descriptions=("", "", "") if expanded else tuple(texts[i - 1] or "" for i in bands),
        colorinterp=_RGBA[:3] if expanded else tuple(_colour(interp[i - 1], i in imagery) for i in bands),
        tags=dict(dataset.tags()),
        validity=validity,
        dataset=dataset,
        bands=bands,
        alphas=alphas,
        palette=palette if expanded else None,
        colormap={} if expanded else colormap,
        scales=tuple(scales[i - 1] for i in bands),
        offsets=tuple(offsets[i - 1] for i in bands),
        units=tuple(units[i - 1] or "" for i in bands),
        band_tags=tuple({k: v for k, v in dataset.tags(i).items() if not k.startswith("STATISTICS_")} for i in bands),
        notes=tuple(notes),
    )


def _colour(interp: ColorInterp, is_imagery: bool) -> str:
    return "undefined" if is_imagery else str(interp.name)


def _numpy_dtype(name: str) -> np.dtype[Any]:
    return np.dtype("complex64" if name == "complex_int16" else name)


def _nodata(declared: float | None, override: float | None) -> float | None:
    value = declared if override is None else override
    return None if value is None else float(value)


def _palette(
    dataset: Any, bands: tuple[int, ...], interp: Any
) -> tuple[NDArray[np.uint8] | None, dict[int, tuple[int, int, int, int]]]:
    if len(bands) != 1 or interp[bands[0] - 1] != ColorInterp.palette:
        return None, {}
    try:
        colours = dataset.colormap(bands[0])
    except ValueError:
        return None, {}
    table = np.zeros((max(colours) + 1, 4), np.uint8)
    for index, colour in colours.items():
        table[index] = colour
    return table, colours
