"""Opening raster files safely and reading them window by window, with one mask per band."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from somareg.config import GcpMethod
from somareg.errors import ReadError
from somareg.io.containers import open_container, open_page
from somareg.io.paths import Named, named
from somareg.io.placing import grid_of
from somareg.types import BoolArray, Grid

log = logging.getLogger("somareg.io")

ALLOWED_DRIVERS = ("GTiff", "COG", "JP2OpenJPEG", "ENVI", "PNG", "JPEG", "HFA")
"""Formats that are opened. VRT and everything that can point elsewhere is left out on purpose; netCDF and HDF5 are
opened by `somareg.io.containers`, after a look whether they do."""

_RGBA = ("red", "green", "blue", "alpha")


class Block(NamedTuple):
    """A rectangle of pixels: left column, top row, width, height."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class RasterSource:
    """An open raster file, read in blocks.

    Attributes:
        name: what messages call it.
        grid: where the pixels are.
        dtype: of the data bands as they are read.
        count: number of data bands (alpha is not one of them).
        nodata: value in force (override or declared), None without one.
        descriptions, colorinterp, scales, offsets, units, band_tags: one per data band.
        tags: dataset-level metadata.
        has_alpha: the file has an alpha band; it became the mask.
        colormap: of a palette image that is not expanded, {} otherwise.
        notes: what was decided while opening.
    """

    name: str
    grid: Grid
    dtype: np.dtype[Any]
    count: int
    nodata: float | None
    descriptions: tuple[str, ...]
    colorinterp: tuple[str, ...]
    tags: Mapping[str, str]
    has_alpha: bool
    dataset: Any = field(repr=False)
    bands: tuple[int, ...] = ()
    alpha: int | None = None
    palette: NDArray[np.uint8] | None = field(default=None, repr=False)
    colormap: Mapping[int, tuple[int, int, int, int]] = field(default_factory=dict, repr=False)
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    units: tuple[str, ...] = ()
    band_tags: tuple[Mapping[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def read(self, block: Block | None = None) -> tuple[NDArray[Any], BoolArray]:
        """Pixels (C, h, w) of a block (default: all) and their per-band mask (C, h, w), True where valid.

        Raises:
            ReadError: the file is truncated or damaged there.
        """
        window = None if block is None else Window(*block)
        try:
            data = self.dataset.read(self.bands, window=window)
            mask = np.stack([self._declared(i, band, window) for i, band in zip(self.bands, data, strict=True)])
            if self.alpha is not None:
                mask &= self.dataset.read(self.alpha, window=window) > 0
        except (RasterioError, OSError, ValueError) as error:
            raise ReadError(
                f"{self.name} is truncated or damaged: {gdal_cause(error)}. Fetch the file again."
            ) from error
        if self.palette is not None:
            rgba = self.palette[np.minimum(data[0], len(self.palette) - 1)]
            visible = mask[0] & (rgba[..., 3] > 0)
            return np.ascontiguousarray(np.moveaxis(rgba[..., :3], -1, 0)), np.broadcast_to(
                visible, (3, *visible.shape)
            )
        if data.dtype.kind in "fc":
            mask &= np.isfinite(data)
        return data, mask

    def _declared(self, index: int, band: NDArray[Any], window: Window | None) -> BoolArray:
        """Validity by the declared (or given) nodata value and the file's own mask."""
        flags = self.dataset.mask_flag_enums[index - 1]
        valid: BoolArray = np.ones(band.shape, bool)
        if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
            valid = self.dataset.read_masks(index, window=window) > 0
        if self.nodata is not None and np.isfinite(self.nodata):
            valid &= band != _as_pixel(self.nodata, band.dtype)
        return valid


@contextmanager
def open_source(
    path: str | Path,
    *,
    role: str,
    nodata: float | None = None,
    expand_palette: bool = False,
    gcp_method: GcpMethod = "auto",
    tell: bool = True,
) -> Iterator[RasterSource]:
    """Open a local raster file of an allowed format.

    Args:
        path: file on this machine.
        role: "moving", "reference" or what else messages should call it.
        nodata: overrides the declared nodata value.
        expand_palette: turn a palette image into red, green and blue bands.
        gcp_method: the curve through ground control points where no geotransform places the image.
        tell: log what was decided. Who opens a file again, as every tile of a scene does, leaves it to the notes.

    Raises:
        UnsupportedError: a URL or GDAL virtual path.
        ReadError: missing, empty, a folder, unreadable, or not one of `ALLOWED_DRIVERS`.
        GeoreferenceError: its ground control points place nothing.
    """
    place = named(path, role)
    name = f"{role} image {path}"
    with rasterio.Env():
        dataset, notes = _open(place, name)
        with dataset:
            yield _describe(dataset, name, nodata, expand_palette, gcp_method, tell, (place, notes))


def _open(place: Named, name: str) -> tuple[Any, tuple[str, ...]]:
    """What a path names, and what was chosen and not read."""

    def opener(text: str, drivers: Sequence[str]) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            try:
                # The class behind rasterio.open, which alone takes a list of drivers.
                return DatasetReader(text, driver=list(drivers))
            except (RasterioError, OSError, ValueError) as error:
                cause = _is_vrt(place.file) or gdal_cause(error)
                raise ReadError(f"{name} cannot be opened as one of {', '.join(drivers)}: {cause}") from error

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
    nodata: float | None,
    expand_palette: bool,
    gcp_method: GcpMethod,
    tell: bool,
    found: tuple[Named, tuple[str, ...]],
) -> RasterSource:
    """`found`: what was opened, and notes about it."""
    grid, about = grid_of(dataset, name, gcp_method, found[0])
    notes = [*found[1], *about]
    level = logging.WARNING if tell else logging.DEBUG
    for note in notes:
        log.log(level, note)
    placed = len(notes)
    interp = dataset.colorinterp
    colours = [i for i in dataset.indexes if interp[i - 1] != ColorInterp.alpha]
    bands = tuple(colours or dataset.indexes)
    alpha = next((i for i in dataset.indexes if i not in bands), None)
    palette, colormap = _palette(dataset, bands, interp)
    expanded = palette is not None and expand_palette
    if expanded:
        notes.append(f"{name}: palette expanded to red, green, blue")
    scaled = [i for i in bands if (dataset.scales[i - 1], dataset.offsets[i - 1]) != (1.0, 0.0)]
    if scaled:
        notes.append(f"{name}: scale and offset tags kept, raw values used")
    dtypes = {dataset.dtypes[i - 1] for i in bands}
    for note in notes[placed:]:
        log.log(logging.INFO if tell else logging.DEBUG, note)
    return RasterSource(
        name=name,
        grid=grid,
        dtype=np.dtype("uint8") if expanded else np.result_type(*(_numpy_dtype(d) for d in dtypes)),
        count=3 if expanded else len(bands),
        nodata=_nodata(dataset, bands, nodata),
        descriptions=("", "", "") if expanded else tuple(dataset.descriptions[i - 1] or "" for i in bands),
        colorinterp=_RGBA[:3] if expanded else tuple(interp[i - 1].name for i in bands),
        tags=dict(dataset.tags()),
        has_alpha=alpha is not None,
        dataset=dataset,
        bands=bands,
        alpha=alpha,
        palette=palette if expanded else None,
        colormap={} if expanded else colormap,
        scales=tuple(dataset.scales[i - 1] for i in bands),
        offsets=tuple(dataset.offsets[i - 1] for i in bands),
        units=tuple(dataset.units[i - 1] or "" for i in bands),
        band_tags=tuple({k: v for k, v in dataset.tags(i).items() if not k.startswith("STATISTICS_")} for i in bands),
        notes=tuple(notes),
    )


def _numpy_dtype(name: str) -> np.dtype[Any]:
    return np.dtype("complex64" if name == "complex_int16" else name)


def _nodata(dataset: Any, bands: tuple[int, ...], override: float | None) -> float | None:
    declared = override if override is not None else dataset.nodatavals[bands[0] - 1]
    return None if declared is None else float(declared)


def _as_pixel(value: float, dtype: np.dtype[Any]) -> Any:
    """The nodata value as the band stores it; a value outside an integer's range stays a float and matches nothing."""
    if dtype.kind in "fc":
        with np.errstate(over="ignore"):
            return dtype.type(value)
    return value


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


def gdal_cause(error: BaseException) -> str:
    """GDAL's own words, which rasterio keeps in the chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
