"""Interpolation kernels on one image: nearest, bilinear and Keys cubic (a = -0.5), with rules for holes and edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from somareg.types import BoolArray, FloatArray

Kernel = Literal["nearest", "bilinear", "cubic"]

_SINGLE = (np.uint8, np.int8, np.uint16, np.int16, np.float16, np.float32)


@dataclass
class _Taps:
    """Base pixels and fractions of a chunk of points; `fits` marks where the whole kernel lies on valid pixels."""

    base: NDArray[np.intp]
    fx: FloatArray
    fy: FloatArray
    fits: BoolArray | None  # None where all do


class Sampler:
    """Samples bands that share a mask; created once, called per chunk of points."""

    def __init__(self, data: NDArray[Any], mask: BoolArray | None, kernel: Kernel) -> None:
        self.count, self.height, self.width = data.shape
        self.kernel = kernel
        self.mask = None if mask is None or mask.all() else np.ascontiguousarray(mask, bool).ravel()
        single = data.dtype.type in _SINGLE or data.dtype == np.complex64
        self.real = np.dtype(np.float32 if single else np.float64)
        self.work = np.result_type(self.real, np.complex64) if data.dtype.kind == "c" else self.real
        stored = data.dtype if kernel == "nearest" else self.work  # made once, not for every tap
        self.bands = [np.ascontiguousarray(band, stored).ravel() for band in data]
        self.before, self.after = (1, 2) if kernel == "cubic" else (0, 1)
        self.whole = None if self.mask is None or kernel == "nearest" else self._whole_neighbourhoods()

    def __call__(self, x: FloatArray, y: FloatArray) -> tuple[NDArray[Any], BoolArray | None]:
        """Values (C, N) and validity (N,); None where all are valid."""
        if self.kernel == "nearest":
            nearest, valid = self._nearest(x, y)
            return np.stack([band.take(nearest) for band in self.bands]), valid
        taps = self._taps(x, y)
        values = np.empty((self.count, x.size), self.work)
        with np.errstate(invalid="ignore", over="ignore"):
            if taps.fits is None or taps.fits.any():
                self._complete(taps, values)
            if taps.fits is None:
                return values, None
            _, valid = self._nearest(x, y)
            rest = np.flatnonzero(valid & ~taps.fits)
            if rest.size:
                values[:, rest] = self._incomplete(x[rest], y[rest])
        return values, valid

    def _nearest(self, x: FloatArray, y: FloatArray) -> tuple[NDArray[np.intp], BoolArray]:
        column, row = np.floor(x + 0.5).astype(np.intp), np.floor(y + 0.5).astype(np.intp)
        valid = (column >= 0) & (column < self.width) & (row >= 0) & (row < self.height)
        index = np.where(valid, row * self.width + column, 0)
        if self.mask is not None:
            valid &= self.mask.take(index)
        return index, valid

    def _whole_neighbourhoods(self) -> BoolArray:
        """(H*W,), True at base pixels whose whole kernel lies on valid pixels."""
        assert self.mask is not None
        whole = self.mask.reshape(self.height, self.width)
        for axis in (0, 1):
            narrowed = np.zeros_like(whole)
            length = whole.shape[axis]
            if length > self.before + self.after:
                inner = np.moveaxis(narrowed, axis, 0)[self.before : length - self.after]
                source = np.moveaxis(whole, axis, 0)
                inner[...] = True
                for shift in range(self.before + self.after + 1):
                    inner &= source[shift : shift + len(inner)]
            whole = narrowed
        return whole.ravel()

    def _taps(self, x: FloatArray, y: FloatArray) -> _Taps:
        last_x, last_y = self.width - 1 - self.after, self.height - 1 - self.after
        column, fx = self._split(x)
        row, fy = self._split(y)
        inside = (
            min(column.min(initial=last_x), row.min(initial=last_y)) >= self.before
            and column.max(initial=0) <= last_x
            and row.max(initial=0) <= last_y
        )
        base = row * self.width + column
        if inside and self.whole is None:
            return _Taps(base, fx, fy, None)
        fits = (column >= self.before) & (column <= last_x) & (row >= self.before) & (row <= last_y)
        if not inside:
            base = np.where(fits, base, self.before * (self.width + 1))
        if self.whole is not None:
            fits &= self.whole.take(base)
        return _Taps(base, fx, fy, None if fits.all() else fits)

    def _split(self, values: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
        """The pixel before each coordinate and the fraction beyond it."""
        floor = np.floor(values)
        return floor.astype(np.intp), (values - floor).astype(self.real)

    def _complete(self, taps: _Taps, values: NDArray[Any]) -> None:
        """Apply the separable kernel everywhere; points where it does not fit are overwritten later."""
        weights = _keys if self.kernel == "cubic" else _tent
        along_x, along_y = weights(taps.fx), weights(taps.fy)
        corner = taps.base - self.before * (self.width + 1)
        picked, row = np.empty(corner.shape, self.work), np.empty_like(values)
        for j, weight_y in enumerate(along_y):
            for i, weight_x in enumerate(along_x):
                for band, sums in zip(self.bands, row, strict=True):
                    # A shifted view takes the same indices; "clip" because no index can be outside, and it is fastest.
                    np.take(band[j * self.width + i :], corner, out=picked if i else sums, mode="clip")
                    if i:
                        picked *= weight_x
                        sums += picked
                    else:
                        sums *= weight_x
            for sums, out in zip(row, values, strict=True):
                if j:
                    sums *= weight_y
                    out += sums
                else:
                    np.multiply(sums, weight_y, out=out)

    def _incomplete(self, x: FloatArray, y: FloatArray) -> NDArray[Any]:
        """Bilinear on the valid pixels among the four, with renormalised weights."""
        column, fx = self._split(x)
        row, fy = self._split(y)
        total = np.zeros((self.count, x.size), self.work)
        norm = np.zeros(x.size, self.real)
        for dy, weight_y in enumerate((1 - fy, fy)):
            for dx, weight_x in enumerate((1 - fx, fx)):
                c, r = column + dx, row + dy
                usable = (c >= 0) & (c < self.width) & (r >= 0) & (r < self.height)
                index = np.where(usable, r * self.width + c, 0)
                if self.mask is not None:
                    usable &= self.mask.take(index)
                weight = np.where(usable, weight_x * weight_y, 0)
                norm += weight
                for band, out in zip(self.bands, total, strict=True):
                    out += np.where(usable, band.take(index), 0) * weight
        return total / norm


def _tent(fraction: FloatArray) -> tuple[FloatArray, ...]:
    return 1 - fraction, fraction


def _keys(t: FloatArray) -> tuple[FloatArray, ...]:
    """Weights at -1, 0, 1, 2 of the cubic convolution kernel with a = -0.5 (Keys 1981), exact on quadratics."""
    s = 1 - t
    u = -0.5 * t * s
    first, last = u * s, u * t
    # The two middle weights follow from the sum, 1, and the first moment, t.
    return first, s + last - 2 * first, t + first - 2 * last, last
