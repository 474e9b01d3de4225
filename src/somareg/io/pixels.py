"""An open raster file, read window by window, with one mask per band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio import Env
from rasterio.enums import Resampling
from rasterio.windows import Window

from somareg.errors import ReadError
from somareg.io.gdal_errors import GDAL_ERRORS, gdal_cause
from somareg.io.memory import block_bytes
from somareg.io.validity import Validity
from somareg.types import BoolArray, Grid

CAREFUL = {"GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO"}
"""Options of GDAL that must hold when a file is opened and when it is read.

Where an 8-bit PNG breaks off, GDAL's short cut for whole images fills it up with rubbish and reports no error.
"""


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
        nodata: value in force (override or declared) of the first data band that has one, None without any.
        nodatas: the same of each data band.
        descriptions, colorinterp, scales, offsets, units, band_tags: one per data band.
        tags: dataset-level metadata.
        bands: numbers of the data bands in the file, from 1.
        alphas: numbers of its alpha bands.
        validity: which pixels are valid.
        palette: of a palette image that is expanded to red, green and blue.
        colormap: of a palette image that is not expanded, {} otherwise.
        notes: what was decided while opening.
    """

    name: str
    grid: Grid
    dtype: np.dtype[Any]
    count: int
    nodata: float | None
    nodatas: tuple[float | None, ...]
    descriptions: tuple[str, ...]
    colorinterp: tuple[str, ...]
    tags: Mapping[str, str]
    validity: Validity = field(repr=False)
    dataset: Any = field(repr=False)
    bands: tuple[int, ...] = ()
    alphas: tuple[int, ...] = ()
    palette: NDArray[np.uint8] | None = field(default=None, repr=False)
    colormap: Mapping[int, tuple[int, int, int, int]] = field(default_factory=dict, repr=False)
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    units: tuple[str, ...] = ()
    band_tags: tuple[Mapping[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def block_bytes(self) -> int:
        """Bytes of the largest piece that is decoded in one go."""
        return block_bytes(self.dataset)

    @property
    def all_colorinterp(self) -> tuple[str, ...]:
        """One colour interpretation per band of the file, alpha bands included."""
        names = iter(self.colorinterp)
        if not self.alphas:
            return self.colorinterp
        return tuple("alpha" if i in self.alphas else next(names) for i in self.dataset.indexes)

    def read(
        self, block: Block | None = None, bands: Sequence[int] | None = None, size: tuple[int, int] | None = None
    ) -> tuple[NDArray[Any], BoolArray]:
        """Pixels (C, h, w) of a block and their per-band mask (C, h, w), True where valid.

        Args:
            block: rectangle of pixels; default all.
            bands: numbers in the file, alpha bands too; default the data bands. Of an expanded palette 1, 2, 3.
            size: (h, w) to average the block to, from overviews where the file has some; classes are sampled instead.

        Raises:
            ReadError: the file is truncated or damaged there.
        """
        window = None if block is None else Window(*block)
        numbers = list(self.bands if bands is None or self.palette is not None else bands)
        more: dict[str, Any] = {}
        if size is not None:
            kernel = Resampling.nearest if self._is_unmixable else Resampling.average
            more = {"out_shape": (len(numbers), *size), "resampling": kernel}
        try:
            with self._careful():
                data = self.dataset.read(numbers, window=window, **more)
                mask = self.validity.of(numbers, data, window, size)
        except GDAL_ERRORS as error:
            raise ReadError(
                f"{self.name} is truncated or damaged: {gdal_cause(error)}. Fetch the file again."
            ) from error
        if self.palette is None:
            return data, mask
        rgba = self.palette[np.minimum(data[0], len(self.palette) - 1)]
        visible = mask[0] & (rgba[..., 3] > 0)
        channels = [band - 1 for band in bands or (1, 2, 3)]
        colours = np.ascontiguousarray(np.moveaxis(rgba[..., channels], -1, 0))
        return colours, np.broadcast_to(visible, colours.shape)

    def _careful(self) -> AbstractContextManager[Any]:
        """Options of GDAL that hold while a file is read, also in a thread other than the one that opened it."""
        return Env(**CAREFUL) if self.dataset.driver == "PNG" else nullcontext()

    @property
    def _is_unmixable(self) -> bool:
        return self.palette is not None or bool(self.colormap) or self.dtype.kind == "c"
