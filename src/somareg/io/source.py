"""Opening raster files safely: what they are, where they lie, and which of their bands hold what."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from somareg.config import GcpMethod
from somareg.errors import ReadError, UnsupportedError
from somareg.io.ground_control import control_grid
from somareg.io.pixels import Block, RasterSource, gdal_cause
from somareg.io.side_files import check_overviews, check_side_files
from somareg.io.validity import Validity, flagged_alpha
from somareg.types import IDENTITY, Grid

__all__ = ["ALLOWED_DRIVERS", "REMOTE", "Block", "RasterSource", "check_local_file", "gdal_cause", "open_source"]

log = logging.getLogger("somareg.io")

ALLOWED_DRIVERS = ("GTiff", "COG", "JP2OpenJPEG", "ENVI", "PNG", "JPEG", "HFA")
"""Formats that are opened. VRT and everything that can point elsewhere is left out on purpose."""

REMOTE = re.compile(r"^(/vsi|[a-z][a-z0-9+.\-]+:/)", re.IGNORECASE)
"""URLs, also those that a `Path` has shortened, and GDAL's virtual files."""

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
        bands: 1-based bands that somebody named; one of them that is flagged alpha is imagery all the same.
        expand_palette: turn a palette image into red, green and blue bands.
        gcp_method: the curve through ground control points where no geotransform places the image.
        tell: log what was decided. Who opens a file again, as every tile of a scene does, leaves it to the notes.

    Raises:
        UnsupportedError: a URL or GDAL virtual path.
        ReadError: missing, empty, a folder, unreadable, or not one of `ALLOWED_DRIVERS`.
        GeoreferenceError: its ground control points place nothing.
    """
    local = check_local_file(path, role)
    name = f"{role} image {path}"
    with rasterio.Env(), _open(local, name) as dataset:
        yield _describe(dataset, name, (nodata, bands or ()), expand_palette, gcp_method, tell)


def _open(path: Path, name: str) -> Any:
    check_side_files(path, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            # The class behind rasterio.open, which alone takes a list of drivers.
            dataset = DatasetReader(str(path.absolute()), driver=list(ALLOWED_DRIVERS))
        except (RasterioError, OSError, ValueError) as error:
            formats = ", ".join(ALLOWED_DRIVERS)
            raise ReadError(f"{name} cannot be opened as one of {formats}: {gdal_cause(error)}") from error
    try:
        check_overviews(dataset, name)
    except BaseException:
        dataset.close()
        raise
    return dataset


def check_local_file(path: str | Path, role: str) -> Path:
    """The path, if it is a non-empty file on this machine.

    Raises:
        UnsupportedError: a URL or GDAL virtual path.
        ReadError: missing, a folder, or empty.
    """
    text = str(path)
    if REMOTE.match(text):
        raise UnsupportedError(f"{role} image {text} is not a local file; download it first and give its path")
    local = Path(path)
    try:
        is_folder, is_file = local.is_dir(), local.is_file()
        size = local.stat().st_size if is_file else 0
    except (OSError, ValueError) as error:
        raise ReadError(f"{role} image {text} cannot be read: {error}") from error
    if is_folder:
        raise ReadError(f"{role} image {text} is a folder; give a file in it")
    if not is_file:
        raise ReadError(f"{role} image {text} does not exist; check the path")
    if size == 0:
        raise ReadError(f"{role} image {text} is an empty file; fetch it again")
    return local


def _describe(
    dataset: Any,
    name: str,
    said: tuple[float | None, Sequence[int]],
    expand_palette: bool,
    gcp_method: GcpMethod,
    tell: bool,
) -> RasterSource:
    """`said`: nodata value and bands, see `open_source`."""
    notes: list[str] = []
    grid = _grid(dataset, name, notes, gcp_method, logging.WARNING if tell else logging.DEBUG)
    interp, flagged = dataset.colorinterp, flagged_alpha(dataset)
    imagery = tuple(i for i in flagged if i in said[1])
    alphas = tuple(i for i in flagged if i not in imagery)
    bands = tuple(i for i in dataset.indexes if i not in alphas)
    validity = Validity(dataset, said[0], imagery, alphas)
    if tell and (about_alpha := _look(validity, name)):
        notes.append(f"{name}: {about_alpha}")
    palette, colormap = _palette(dataset, bands, interp)
    expanded = palette is not None and expand_palette
    if expanded:
        notes.append(f"{name}: palette expanded to red, green, blue")
    scaled = [i for i in bands if (dataset.scales[i - 1], dataset.offsets[i - 1]) != (1.0, 0.0)]
    if scaled:
        notes.append(f"{name}: scale and offset tags kept, raw values used")
    dtypes = {dataset.dtypes[i - 1] for i in bands}
    for note in notes:
        log.log(logging.INFO if tell else logging.DEBUG, note)
    nodatas = tuple(_nodata(dataset, i, said[0]) for i in bands)
    return RasterSource(
        name=name,
        grid=grid,
        dtype=np.dtype("uint8") if expanded else np.result_type(*(_numpy_dtype(d) for d in dtypes)),
        count=3 if expanded else len(bands),
        nodata=next((value for value in nodatas if value is not None), None),
        nodatas=nodatas,
        descriptions=("", "", "") if expanded else tuple(dataset.descriptions[i - 1] or "" for i in bands),
        colorinterp=_RGBA[:3] if expanded else tuple(_colour(interp[i - 1], i in imagery) for i in bands),
        tags=dict(dataset.tags()),
        validity=validity,
        dataset=dataset,
        bands=bands,
        alphas=alphas,
        palette=palette if expanded else None,
        colormap={} if expanded else colormap,
        scales=tuple(dataset.scales[i - 1] for i in bands),
        offsets=tuple(dataset.offsets[i - 1] for i in bands),
        units=tuple(dataset.units[i - 1] or "" for i in bands),
        band_tags=tuple({k: v for k, v in dataset.tags(i).items() if not k.startswith("STATISTICS_")} for i in bands),
        notes=tuple(notes),
    )


def _look(validity: Validity, name: str) -> str | None:
    try:
        return validity.note()
    except (RasterioError, OSError, ValueError) as error:
        raise ReadError(f"{name} is truncated or damaged: {gdal_cause(error)}. Fetch the file again.") from error


def _colour(interp: ColorInterp, is_imagery: bool) -> str:
    return "undefined" if is_imagery else str(interp.name)


def _numpy_dtype(name: str) -> np.dtype[Any]:
    return np.dtype("complex64" if name == "complex_int16" else name)


def _nodata(dataset: Any, band: int, override: float | None) -> float | None:
    declared = override if override is not None else dataset.nodatavals[band - 1]
    return None if declared is None else float(declared)


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


def _grid(dataset: Any, name: str, notes: list[str], gcp_method: GcpMethod, level: int) -> Grid:
    coefficients = tuple(float(v) for v in dataset.transform[:6])
    crs = dataset.crs
    points, points_crs = dataset.gcps
    if coefficients == IDENTITY and len(points) >= 3 and points_crs:
        grid, note = control_grid((dataset.width, dataset.height), points, points_crs, name, gcp_method)
        log.log(level, note)
        notes.append(note)
        return grid
    if coefficients == IDENTITY and points:
        notes.append(f"{name}: its {len(points)} ground control points are too few or have no CRS, and are ignored")
    elif coefficients == IDENTITY and crs:
        log.log(level, "%s names a CRS but has no geotransform; it is used as not georeferenced", name)
        notes.append(f"{name}: a CRS without geotransform is ignored")
        crs = None
    try:
        wkt = crs.to_wkt() if crs else None
    except CRSError:
        wkt = None
        notes.append(f"{name}: its CRS cannot be understood and is ignored")
    a, b, c, d, e, f = coefficients
    return Grid(dataset.width, dataset.height, (a, b, c, d, e, f), wkt or None)
