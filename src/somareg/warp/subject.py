"""The raster that is warped, with one interface for files, arrays and DataArrays."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.errors import ConfigError
from somareg.geometry.resample import Kernel
from somareg.io.source import Block
from somareg.io.verdicts import without_verdict
from somareg.io.writer import GeotiffSpec, storable_dtype
from somareg.types import BoolArray, Grid, Reading

log = logging.getLogger("somareg.warp")

Pixels = tuple[NDArray[Any], BoolArray]


@dataclass(frozen=True, eq=False)
class Subject:
    """What the engine reads from and what it must keep.

    Attributes:
        name: what messages call it.
        grid, dtype, count: place, pixel type and number of bands, alpha bands too.
        read: block -> pixels (C, h, w) and per-band mask (C, h, w).
        nodata: value for invalid pixels, None where there is none that the dtype can hold.
        is_classes: a palette or mask, whose values must not be mixed.
        alphas: indices of the alpha bands, from 0.
        is_shown_by_alpha: whether the last of them says what is valid: it is above 0 there.
        has_mask: whether a mask band says what is valid, whatever value a pixel has.
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
        """The wanted kernel, or "nearest" where values must not be mixed."""
        if self.is_classes and wanted != "nearest":
            log.info("%s holds classes; sampled with 'nearest' instead of '%s'", self.name, wanted)
            return "nearest"
        return wanted

    @property
    def own(self) -> list[int]:
        """Indices of the bands that are not alpha; of all where there are no others."""
        return [i for i in range(self.count) if i not in self.alphas] or list(range(self.count))

    @property
    def fill(self) -> float:
        """Value written to invalid pixels; alpha bands hold 0 there."""
        if self.dtype.kind in "fc" and (self.nodata is None or self.has_mask):
            return float("nan")  # bands may differ behind one mask
        return 0.0 if self.nodata is None else self.nodata

    @property
    def _is_alpha_enough(self) -> bool:
        """Whether GDAL knows valid pixels of the output by its alpha band."""
        last = self.count - 1
        return self.is_shown_by_alpha and last in (1, 3) and last in self.alphas and self.dtype in ("uint8", "uint16")

    def output_spec(self, grid: Grid, tags: Mapping[str, str], *, averaged_overviews: bool) -> GeotiffSpec:
        """The GeoTIFF that will hold it on another grid; without nodata value or alpha, a mask marks the outside."""
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
    """What `read` gives, without the pixels that a mask leaves out."""

    def both(block: Block) -> Pixels:
        data, mask = read(block)
        return data, mask & valid(block)

    return both


def chosen(subject: Subject, bands: Sequence[int]) -> Subject:
    """Some bands of a subject, from 1."""
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
