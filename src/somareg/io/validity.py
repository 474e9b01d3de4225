"""Valid pixels of an open file, band by band: GDAL's masks, and own computation only for a user's nodata value.

GDAL's masks (`read_masks`) know alpha bands of some types and places only. Otherwise a last band that is
flagged alpha decides, as in `gdalwarp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NodataShadowWarning
from rasterio.windows import Window

from somareg.runtime.quiet import without
from somareg.types import BoolArray

_LOOK_PX = 256  # side of the window in which an alpha band is examined


@dataclass(frozen=True, eq=False)
class Validity:
    """Rules for the valid pixels of one file.

    Attributes:
        dataset: open file.
        nodata: the user's nodata value, which replaces the declared one.
        imagery: 1-based bands that the file flags as alpha and the user calls imagery.
        alphas: 1-based bands that are alpha.
    """

    dataset: Any = field(repr=False)
    nodata: float | None = None
    imagery: tuple[int, ...] = ()
    alphas: tuple[int, ...] = ()

    def of(
        self, bands: Sequence[int], values: NDArray[Any], window: Window | None, size: tuple[int, int] | None = None
    ) -> BoolArray:
        """(C, h, w) True where a pixel is valid.

        Each band follows GDAL's mask: from the mask band or alpha band where the file has one, else from the nodata
        value that the band declares. NaN and infinite values are never valid.

        Args:
            bands: 1-based.
            values: (C, h, w) of these bands, as they were read.
            window: that was read; None for all.
            size: (h, w) when the window was reduced.
        """
        valid = np.ones(values.shape, bool)
        shared: BoolArray | None = None  # the mask band or alpha band of the file, read once
        for band, pixels, out in zip(bands, values, valid, strict=True):
            rule = self._rule(band)
            if rule == "shared":
                shared = self._mask(band, window, size) if shared is None else shared
                out &= shared
            elif rule == "own":
                out &= self._mask(band, window, size)
            elif rule == "alpha":
                shared = self._alpha(window, size) if shared is None else shared
                out &= shared
            if self.nodata is not None and band not in self.alphas:
                out &= differs(pixels, self.nodata)
            elif rule == "complex":
                out &= differs(pixels, self._declared[band - 1])
            if pixels.dtype.kind in "fc":
                out &= np.isfinite(pixels)
        return valid

    @property
    def has_none(self) -> bool:
        """Whether the file itself marks no pixel as invalid."""
        return all(MaskFlags.all_valid in own for own in self._flags) and not self.follows_alpha

    @property
    def has_mask(self) -> bool:
        """Whether one mask applies to all bands and overrides their nodata values."""
        flags = self._flags[0]
        return self.nodata is None and MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags

    @property
    def follows_alpha(self) -> bool:
        """Whether the last band is alpha and decides what is valid."""
        last = self.dataset.count
        flags = self._flags[last - 1]
        # The user's nodata value replaces the file's, and GDAL ignores an alpha band beside a nodata value.
        told_otherwise = self.nodata is not None and MaskFlags.nodata in flags
        return last in self.alphas and (MaskFlags.all_valid in flags or told_otherwise)

    @cached_property
    def _flags(self) -> tuple[list[MaskFlags], ...]:
        return tuple(self.dataset.mask_flag_enums)

    @cached_property
    def _kinds(self) -> tuple[str, ...]:
        return tuple(self.dataset.dtypes)

    @cached_property
    def _declared(self) -> tuple[float | None, ...]:
        return tuple(self.dataset.nodatavals)

    def note(self) -> str | None:
        """A sentence about an alpha band that is no plain mask, or that has no effect."""
        if not self.alphas:
            return None
        band = self.alphas[-1]
        if not self.follows_alpha:
            return (
                f"band {band} is flagged alpha and masks nothing, as for GDAL: a mask band or a nodata value does, or "
                "it is not the last band"
            )
        width, height = (min(side, _LOOK_PX) for side in (self.dataset.width, self.dataset.height))
        left, top = (self.dataset.width - width) // 2, (self.dataset.height - height) // 2
        codes = np.unique(self.dataset.read(band, window=Window(left, top, width, height)))
        if len(codes) <= 2:
            return None
        every = ",".join(map(str, self.dataset.indexes))
        return (
            f"band {band} is flagged alpha and holds {len(codes)} values or more: pixels are invalid where it is 0, as "
            f"for GDAL, and it is kept as it is; if it is imagery, name it among the bands ({every})"
        )

    def _rule(self, band: int) -> str:
        """The rule by which GDAL decides what is valid in a band; "" when all of it is."""
        flags = self._flags[band - 1]
        if self.follows_alpha:
            return "alpha"
        if MaskFlags.alpha in flags:  # of a band that the user calls imagery
            return ""
        if self.nodata is not None and MaskFlags.nodata in flags:
            return ""
        if MaskFlags.per_dataset in flags:
            return "shared"
        if MaskFlags.all_valid in flags:
            return ""
        # GDAL compares real parts only, which are zero in many valid pixels of a complex image.
        return "complex" if self._kinds[band - 1].startswith("complex") else "own"

    def _alpha(self, window: Window | None, size: tuple[int, int] | None) -> BoolArray:
        return np.asarray(self.dataset.read(self.alphas[-1], window=window, **_sized(size)) > 0)

    def _mask(self, band: int, window: Window | None, size: tuple[int, int] | None) -> BoolArray:
        with without(NodataShadowWarning):  # reported by `note`
            return np.asarray(self.dataset.read_masks(band, window=window, **_sized(size)) > 0)


def flagged_alpha(dataset: Any) -> tuple[int, ...]:
    """1-based bands that a file flags as alpha; none when it flags all of them."""
    meanings = dataset.colorinterp
    flagged = tuple(i for i in dataset.indexes if meanings[i - 1] == ColorInterp.alpha)
    return flagged if len(flagged) < dataset.count else ()


def _sized(size: tuple[int, int] | None) -> dict[str, Any]:
    return {} if size is None else {"out_shape": size}


def differs(values: NDArray[Any], nodata: float | None) -> BoolArray:
    """Whether values differ from the nodata value, compared as GDAL does: floats to about their last digit.

    Nodata values pass through text and other types and come back rounded. Both parts of a complex value count.
    None, and a value that the integer type cannot hold, match nothing.
    """
    if nodata is None or not np.isfinite(nodata):
        return np.ones(values.shape, bool)
    if values.dtype.kind == "c":
        return np.asarray(differs(values.real, nodata) | (values.imag != 0))
    if values.dtype.kind != "f":
        return np.asarray(values != nodata)
    with np.errstate(over="ignore", invalid="ignore"):
        stored = values.dtype.type(nodata)
        # The sum overflows near the largest value; as in GDAL, a nodata value of -3.40282e+38 then means that one.
        near = np.abs(values - stored) < 2 * np.finfo(values.dtype).eps * np.abs(values + stored)
    return np.asarray((values != stored) & ~near)
