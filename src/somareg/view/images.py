"""A raster file seen through the reference grid, at any zoom, without ever being read whole at full resolution."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.geometry import AffineTransform
from somareg.geometry.lattice import jacobian_at, on_lattice, source_window
from somareg.geometry.resample import footprint_of, resample
from somareg.io.source import Block, open_source
from somareg.report.previews import shown_bands
from somareg.types import BoolArray, FloatArray, Grid, Transform
from somareg.view.pyramid import Area

BASE_PX = 2048
"""Longer side of the reduced copy that is held in memory: what is seen from afar comes from it."""
SMALLEST_PX = 256
LATTICE_PX = 16.0
TOLERANCE_PX = 0.05


@dataclass(frozen=True, eq=False)
class Reduced:
    """The whole image, smaller, in memory.

    Attributes:
        data: (C, h, w).
        mask: (h, w).
        full: (width, height) of the file.
    """

    data: NDArray[Any]
    mask: BoolArray
    full: tuple[int, int]

    @property
    def ratio(self) -> FloatArray:
        """Its pixels per pixel of the file (x, y)."""
        return np.array(self.mask.shape[::-1]) / self.full

    def part(self, window: Block) -> tuple[NDArray[Any], BoolArray, FloatArray, FloatArray]:
        """As `SceneImage._read`, of at least a window of the file."""
        ratio = self.ratio
        left, top = np.floor(np.array(window[:2]) * ratio).astype(int)
        right, bottom = np.ceil((np.array(window[:2]) + window[2:]) * ratio).astype(int)
        rows, columns = slice(top, bottom), slice(left, right)
        return self.data[:, rows, columns], self.mask[rows, columns], np.array([left, top]) / ratio, ratio

    def halved(self) -> Reduced:
        """Half the size; valid pixels are averaged, valid where at least half of them are."""
        height, width = self.mask.shape
        size = max(1, width // 2), max(1, height // 2)
        weight = np.asarray(cv2.resize(self.mask.astype(np.float32), size, interpolation=cv2.INTER_AREA))
        bands = [
            np.asarray(cv2.resize(np.where(self.mask, band, 0).astype(np.float32), size, interpolation=cv2.INTER_AREA))
            for band in self.data
        ]
        return Reduced(np.stack(bands) / np.maximum(weight, 1e-6), weight >= 0.5 - 1e-6, self.full)


class SceneImage:
    """An open raster and the map that leads to its pixels.

    Reads take turns (a GDAL dataset serves one thread at a time); resampling does not wait.

    Args:
        path: file of an allowed format.
        role: what messages call it.
        nodata: overrides the declared nodata value.
        bands: to show, from 1; default the first three, or the first.
        named: bands that were named when the image was registered, see `open_source`.

    Attributes:
        grid: of the file.
        to_pixels: reference pixel centres -> pixel centres of the file; set it where that is no identity.

    Raises:
        ReadError, UnsupportedError, GeoreferenceError: as `open_source`.
    """

    def __init__(
        self,
        path: Path,
        role: str,
        nodata: float | None = None,
        bands: tuple[int, ...] | None = None,
        named: Sequence[int] | None = None,
    ) -> None:
        self._stack = ExitStack()
        said: dict[str, Any] = {"nodata": nodata, "bands": named}
        source = open_source(path, role=role, **said, expand_palette=True, tell=False)  # the report has it all
        self._source = self._stack.enter_context(source)
        self._lock, self._base_lock = threading.Lock(), threading.Lock()
        self._palette = self._source.palette
        self._bands = bands or self._source.bands[: shown_bands(len(self._source.bands))]
        self.path = path
        self.grid: Grid = self._source.grid
        self.to_pixels: Transform = AffineTransform.identity()

    def close(self) -> None:
        """Close the file, after the read that is under way."""
        with self._lock:
            self._stack.close()

    def picture(self, area: Area) -> tuple[NDArray[Any], BoolArray]:
        """Values (C, h, w) float32 and mask (h, w) of an area of the reference grid.

        Raises:
            ReadError: the file is damaged there.
        """
        where = self._where(area)
        footprint = self._footprint(area)
        margin = 3 + int(max(footprint))
        window = source_window(where.reshape(-1, 2), self.grid.shape, margin)
        if window is None:
            return np.zeros((self._count, area.height, area.width), np.float32), np.zeros(where.shape[:2], bool)
        reduction = 2 ** max(0, int(math.log2(max(min(footprint), 1.0))))
        data, mask, corner, ratio = self._read(Block(*window), reduction)
        return resample(
            data,
            mask,
            (where + 0.5 - corner) * ratio - 0.5,
            kernel="bilinear",
            footprint=(footprint[0] * ratio[0], footprint[1] * ratio[1]),
            out_dtype=np.float32,
        )

    @property
    def _count(self) -> int:
        return 3 if self._palette is not None else len(self._bands)

    def _where(self, area: Area) -> FloatArray:
        """(h, w, 2) pixel centres of the file for the pixels of the area."""
        points = area.points
        tolerance = TOLERANCE_PX * max(1.0, area.step)
        fast = on_lattice(self.to_pixels, area.bounds, step=LATTICE_PX * area.step, tolerance_px=tolerance)
        return fast(points.reshape(-1, 2)).reshape(points.shape)

    def _footprint(self, area: Area) -> tuple[float, float]:
        left, top, right, bottom = area.bounds
        middle = (left + right) / 2, (top + bottom) / 2
        jacobian = jacobian_at(self.to_pixels, middle, step=max(1.0, area.step))
        if not np.isfinite(jacobian).all():
            return area.step, area.step
        return footprint_of(jacobian * area.step)

    def _read(self, window: Block, reduction: int) -> tuple[NDArray[Any], BoolArray, FloatArray, FloatArray]:
        """Pixels and mask of a window, reduced; its corner in the file and pixels read per pixel of the file (x, y)."""
        fine_enough = [level for level in self._base if reduction * level.ratio.min() >= 0.999]
        if fine_enough:
            return fine_enough[-1].part(window)
        window = self._aligned(window, reduction)
        size = max(1, round(window.width / reduction)), max(1, round(window.height / reduction))
        data, mask = self._from_file(window, size)
        return data, mask, np.array(window[:2], float), np.array([size[0] / window.width, size[1] / window.height])

    def _aligned(self, window: Block, reduction: int) -> Block:
        """A window grown to whole pixels of the overview that is `reduction` times coarser."""
        left, top = (start // reduction * reduction for start in window[:2])
        right = min(self.grid.width, -(-(window.x + window.width) // reduction) * reduction)
        bottom = min(self.grid.height, -(-(window.y + window.height) // reduction) * reduction)
        return Block(left, top, right - left, bottom - top)

    @property
    def _base(self) -> tuple[Reduced, ...]:
        """Reduced copies of the whole image, each half the size of the one before."""
        with self._base_lock:  # whoever comes second waits and does not read it again
            return self._copies

    @cached_property
    def _copies(self) -> tuple[Reduced, ...]:
        width, height = self.grid.width, self.grid.height
        shrink = min(1.0, BASE_PX / max(width, height))
        size = max(1, round(width * shrink)), max(1, round(height * shrink))
        copies = [Reduced(*self._from_file(Block(0, 0, width, height), size), (width, height))]
        while max(copies[-1].mask.shape) > SMALLEST_PX:
            copies.append(copies[-1].halved())
        return tuple(copies)

    def _from_file(self, window: Block, size: tuple[int, int]) -> tuple[NDArray[Any], BoolArray]:
        """Bands (C, h, w) of a window at `size` (width, height), averaged, from overviews where the file has some."""
        with self._lock:
            shown = None if self._palette is not None else self._bands
            data, seen = self._source.read(window, shown, (size[1], size[0]))
        return np.abs(data) if data.dtype.kind == "c" else data, np.asarray(seen.all(axis=0))
