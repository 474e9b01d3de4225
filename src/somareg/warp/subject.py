"""The raster that is warped, behind one interface for files and memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.errors import ConfigError
from somareg.geometry.sampler import Kernel
from somareg.io.source import Block
from somareg.io.verdicts import without_verdict
from somareg.io.writer import GeotiffSpec, storable_dtype
from somareg.types import BoolArray, Grid, Reading

log = logging.getLogger("somareg.warp")

Pixels = tuple[NDArray[Any], BoolArray]


@dataclass(frozen=True, eq=False)
class Subject:
    """The engine's input, with everything that must survive warping.

    Attributes:
        name: what messages call it.
        grid, dtype, count: place, pixel type and number of bands, alpha bands too.
        read: block -> pixels (C, h, w) and per-band mask (C, h, w).
        nodata: value for invalid pixels, None when the dtype can hold none.
        is_classes: a palette or mask, whose values must not be mixed.
        alphas: indices of the alpha bands, from 0.
        is_shown_by_alpha: whether the last alpha band defines validity: pixels above 0 are valid.
        has_mask: whether a mask band defines validity, independent of pixel values.
        reading: how it is read.
        metadata: keyword arguments of `GeotiffSpec` that go into the output unchanged.
    """

    name: str
    grid: Grid
    dtype: np.dtype[Any]
    count: int
    read: Callable[[Block], Pixels]
    nodata: float | None
    is_classes: bool
    alphas: tuple[int, ...] = ()
    is_shown_by_alpha: bool = False
    has_mask: bool = False
    reading: Reading = field(default_factory=Reading)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def kernel(self, wanted: Kernel) -> Kernel:
        """The given kernel, or "nearest" when values must not be mixed."""
        if self.is_classes and wanted != "nearest":
            log.info("%s holds classes; sampled with 'nearest' instead of '%s'", self.name, wanted)
            return "nearest"
        return wanted

    @property
    def own(self) -> list[int]:
        """Indices of the bands that are not alpha; of all bands when all are alpha."""
        return [i for i in range(self.count) if i not in self.alphas] or list(range(self.count))

    @property
    def fill(self) -> float:
        """Value written to invalid pixels; alpha bands hold 0 there."""
        if self.dtype.kind in "fc" and (self.nodata is None or self.has_mask):
            return float("nan")  # bands may differ behind one mask
        return 0.0 if self.nodata is None else self.nodata

    @property
    def _is_alpha_enough(self) -> bool:
        """Whether the alpha band alone tells GDAL the valid pixels of the output."""
        last = self.count - 1
        return self.is_shown_by_alpha and last in (1, 3) and last in self.alphas and self.dtype in ("uint8", "uint16")

    def output_spec(self, grid: Grid, tags: Mapping[str, str], *, averaged_overviews: bool) -> GeotiffSpec:
        """The GeoTIFF for this raster on another grid; without nodata value or alpha it gets a mask."""
        kept = dict(self.metadata)
        kept["tags"] = {**without_verdict(kept["tags"]), **tags}
        return GeotiffSpec(
            grid=grid,
            dtype=storable_dtype(self.dtype),
            count=self.count,
            nodata=self.nodata,
            has_mask=self.has_mask or (self.nodata is None and not self._is_alpha_enough),
            averaged_overviews=averaged_overviews,
            **kept,
        )


def masked(read: Callable[[Block], Pixels], valid: Callable[[Block], BoolArray]) -> Callable[[Block], Pixels]:
    """Apply a mask to every block that `read` returns."""

    def both(block: Block) -> Pixels:
        data, mask = read(block)
        return data, mask & valid(block)

    return both


def chosen(subject: Subject, bands: Sequence[int]) -> Subject:
    """Select 1-based bands of a subject."""
    for band in bands:
        if not 1 <= band <= subject.count:
            raise ConfigError(f"{subject.name} has no band {band}; choose from 1 to {subject.count}")
    picked = [band - 1 for band in bands]

    def read(block: Block) -> Pixels:
        data, mask = subject.read(block)
        return data[picked], mask[picked]

    per_band = ("descriptions", "colorinterp", "scales", "offsets", "units", "band_tags")
    kept = {
        name: tuple(values[i] for i in picked) if name in per_band and values else values
        for name, values in subject.metadata.items()
    }
    alphas = tuple(new for new, old in enumerate(picked) if old in subject.alphas)
    return replace(subject, count=len(picked), read=read, alphas=alphas, metadata=kept)
