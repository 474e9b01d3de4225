"""The raster that is warped: an open file or an array in memory, seen the same way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from somareg.geometry.resample import Kernel
from somareg.io.dataarray import ArrayHeader, is_dataarray, read_header
from somareg.io.source import Block, RasterSource, open_source
from somareg.io.writer import GeotiffSpec, storable_dtype, storable_nodata
from somareg.types import BoolArray, Grid, Raster

if TYPE_CHECKING:
    import xarray

log = logging.getLogger("somareg.warp")


@dataclass(frozen=True, eq=False)
class Subject:
    """What the engine reads from and what it must keep.

    Attributes:
        name: what messages call it.
        grid, dtype, count: place, pixel type and number of data bands.
        read: block -> pixels (C, h, w) and per-band mask (C, h, w).
        nodata: value for invalid pixels, None where there is none that the dtype can hold.
        is_classes: a palette or mask, whose values must not be mixed.
        metadata: keyword arguments of `GeotiffSpec` that go into the output unchanged.
    """

    name: str
    grid: Grid
    dtype: np.dtype[Any]
    count: int
    read: Callable[[Block], tuple[NDArray[Any], BoolArray]]
    nodata: float | None
    is_classes: bool
    metadata: Mapping[str, Any] = field(repr=False)

    def kernel(self, wanted: Kernel) -> Kernel:
        """The wanted kernel, or "nearest" where values must not be mixed."""
        if self.is_classes and wanted != "nearest":
            log.info("%s holds classes; sampled with 'nearest' instead of '%s'", self.name, wanted)
            return "nearest"
        return wanted

    @property
    def fill(self) -> float:
        """Value written to invalid pixels."""
        if self.nodata is not None:
            return self.nodata
        return float("nan") if self.dtype.kind in "fc" else 0.0

    def output_spec(self, grid: Grid, tags: Mapping[str, str], *, averaged_overviews: bool) -> GeotiffSpec:
        """The GeoTIFF that will hold it on another grid; without nodata value or alpha, a mask marks the outside."""
        kept = dict(self.metadata)
        kept["tags"] = {**kept["tags"], **tags}
        return GeotiffSpec(
            grid=grid,
            dtype=storable_dtype(self.dtype),
            count=self.count,
            nodata=self.nodata,
            has_mask=self.nodata is None and not kept["has_alpha"],
            averaged_overviews=averaged_overviews,
            **kept,
        )


@contextmanager
def open_subject(raster: Raster | xarray.DataArray | str | Path, nodata: float | None = None) -> Iterator[Subject]:
    """A `Subject` of a raster in memory, a DataArray or a file (see `read_header` and `open_source` for errors)."""
    if isinstance(raster, Raster):
        yield _from_memory(raster, nodata)
    elif is_dataarray(raster):
        yield _from_dataarray(read_header(raster, "input", nodata))
    else:
        with open_source(cast(str | Path, raster), role="input", nodata=nodata) as source:
            yield _from_file(source)


def _from_file(source: RasterSource) -> Subject:
    return Subject(
        name=source.name,
        grid=source.grid,
        dtype=source.dtype,
        count=source.count,
        read=source.read,
        nodata=storable_nodata(source.nodata, source.dtype),
        is_classes=bool(source.colormap),
        metadata={
            "has_alpha": source.has_alpha,
            "descriptions": source.descriptions,
            "colorinterp": source.colorinterp,
            "scales": source.scales,
            "offsets": source.offsets,
            "units": source.units,
            "tags": source.tags,
            "band_tags": source.band_tags,
            "colormap": source.colormap,
        },
    )


def _from_dataarray(header: ArrayHeader) -> Subject:
    """Blocks are computed as they are read."""
    dtype = header.bands.dtype
    is_bool = dtype.kind == "b"
    return Subject(
        name=f"input DataArray {header.bands.name or ''}".strip(),
        grid=header.grid,
        dtype=dtype,
        count=header.bands.shape[0],
        read=lambda block: header.read(*block),
        nodata=None if is_bool else storable_nodata(header.nodata, dtype),
        is_classes=is_bool,
        metadata={
            "has_alpha": False,
            "descriptions": header.descriptions,
            "colorinterp": (),
            "tags": header.tags,
        },
    )


def _from_memory(raster: Raster, nodata: float | None) -> Subject:
    count = len(raster.data)
    has_alpha = len(raster.colorinterp) == count + 1 and raster.colorinterp[-1] == "alpha"

    def read(block: Block) -> tuple[NDArray[Any], BoolArray]:
        part = slice(block.y, block.y + block.height), slice(block.x, block.x + block.width)
        data = raster.data[(slice(None), *part)]
        mask = np.broadcast_to(raster.mask[part], data.shape)
        if nodata is not None:
            mask = mask & (data != nodata)
        return data, mask

    value = raster.nodata if nodata is None else nodata
    return Subject(
        name=raster.name,
        grid=raster.grid,
        dtype=raster.data.dtype,
        count=count,
        read=read,
        nodata=None if raster.data.dtype == bool else storable_nodata(value, raster.data.dtype),
        is_classes=raster.data.dtype == bool,
        metadata={
            "has_alpha": has_alpha,
            "descriptions": raster.descriptions,
            "colorinterp": raster.colorinterp[:count],
            "tags": raster.tags,
        },
    )
