"""Exact, mask-aware sampling of images at arbitrary points: nearest, bilinear, Keys cubic (a = -0.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from somareg.types import BoolArray, FloatArray

Kernel = Literal["nearest", "bilinear", "cubic"]

ANTIALIAS_ABOVE = 1.3
"""Source pixels per output pixel above which samples are averaged."""

_CHUNK = 1 << 15  # points at a time: the temporaries of a chunk stay in the processor's cache
_SNAP = float(1 << 20)  # coordinates are rounded to a millionth of a pixel, so an identity map stays an identity
_ABSURD = 1e9
_FAR = -16.0  # stands for any coordinate that is not finite or far outside
_SINGLE = (np.uint8, np.int8, np.uint16, np.int16, np.float16, np.float32)


def resample(
    data: NDArray[Any],
    mask: BoolArray | None,
    xy: FloatArray | tuple[FloatArray, FloatArray],
    *,
    kernel: Kernel = "cubic",
    footprint: tuple[float, float] = (1.0, 1.0),
    out_dtype: DTypeLike | None = None,
    fill: complex = 0.0,
) -> tuple[NDArray[Any], BoolArray]:
    """Sample an image at pixel-centre coordinates.

    A sample is valid exactly where the pixel nearest to it is valid. Cubic is used where all its 16 pixels are valid;
    beside a hole or the edge the bilinear weights of the valid pixels take over, renormalised, so no invalid value
    ever enters a sample. Bool images are always sampled with "nearest".

    Args:
        data: (C, H, W), integer, real, complex or bool.
        mask: (H, W), or (C, H, W) when bands differ, True where valid; None when all pixels are.
        xy: (h, w, 2) coordinates, or the (h, w) arrays x and y. Not finite means outside.
        kernel: interpolation.
        footprint: source pixels per output pixel along source x and y. Above 1.3 an evenly spaced grid of
            ceil(footprint) samples is averaged (a box filter), because a finer image would alias. Ignored by "nearest".
        out_dtype: of the result; default that of `data`. Integers are rounded and clipped to their range.
        fill: value of invalid samples.

    Returns:
        The samples (C, h, w) and their mask, (h, w) or (C, h, w) like `mask`.

    Raises:
        ValueError: shapes do not agree, or complex data with a real `out_dtype`.
    """
    x, y = (xy[0], xy[1]) if isinstance(xy, tuple) else (xy[..., 0], xy[..., 1])
    dtype = np.dtype(data.dtype if out_dtype is None else out_dtype)
    _check(data, mask, x, y, dtype)
    if data.dtype == bool:
        kernel = "nearest"
    shape, count = x.shape, data.shape[0]
    out = np.empty((count, x.size), dtype)
    per_band = mask is not None and mask.ndim == 3
    out_mask = np.empty((count if per_band else 1, x.size), bool)
    x, y = np.ravel(x), np.ravel(y)
    offsets = _sub_samples(footprint, kernel)
    if len(offsets) == 1 and _are_whole(x) and _are_whole(y):
        kernel = "nearest"
    if per_band:
        assert mask is not None
        groups = [(slice(i, i + 1), i, mask[i]) for i in range(count)]
    else:
        groups = [(slice(0, count), 0, mask)]
    for bands, mask_index, group_mask in groups:
        sampler = _Sampler(data[bands], group_mask, kernel)
        for start in range(0, x.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            values, valid = _averaged(sampler, _tame(x[part]), _tame(y[part]), offsets)
            _store(out[bands, part], values, valid, fill)
            out_mask[mask_index, part] = True if valid is None else valid
    result_mask = out_mask.reshape(-1, *shape)
    return out.reshape(count, *shape), result_mask if per_band else result_mask[0]


def footprint_of(jacobian: FloatArray) -> tuple[float, float]:
    """Source pixels per output pixel along source x and y, of the map's 2x2 Jacobian (1, 1 for a pure rotation)."""
    x, y = np.hypot(jacobian[:, 0], jacobian[:, 1])
    return float(x), float(y)


def _check(data: NDArray[Any], mask: BoolArray | None, x: FloatArray, y: FloatArray, dtype: np.dtype[Any]) -> None:
    if data.ndim != 3:
        raise ValueError(f"data must be (C, H, W), not {data.shape}")
    if mask is not None and mask.shape not in (data.shape, data.shape[1:]):
        raise ValueError(f"mask {mask.shape} does not fit data {data.shape}")
    if x.shape != y.shape:
        raise ValueError(f"x {x.shape} and y {y.shape} differ in shape")
    if data.dtype.kind == "c" and dtype.kind != "c":
        raise ValueError("complex data cannot be sampled to a real dtype; take the amplitude first")


def _tame(values: FloatArray) -> FloatArray:
    """Float64 coordinates, snapped; anything not finite or absurd becomes a point outside."""
    tame = np.multiply(values, _SNAP, dtype=np.float64)
    np.rint(tame, out=tame)
    tame /= _SNAP
    if not (tame.min(initial=0.0) > -_ABSURD and tame.max(initial=0.0) < _ABSURD):  # also where one is no number
        tame[~(np.abs(tame) < _ABSURD)] = _FAR
    return tame


def _are_whole(values: FloatArray) -> bool:
    """Whether all are whole numbers once they are snapped; a few of them mostly tell."""
    for start in (0, *range(64, len(values), _CHUNK)):
        part = _tame(values[start : start + (_CHUNK if start else 64)])
        if not np.array_equal(part, np.rint(part)):
            return False
    return True


def _sub_samples(footprint: Sequence[float], kernel: Kernel) -> list[tuple[float, float]]:
    """Offsets (source pixels) of the samples that are averaged into one."""
    axes = []
    for size in footprint:
        n = int(np.ceil(size - 1e-6)) if size > ANTIALIAS_ABOVE and kernel != "nearest" else 1
        axes.append([((i + 0.5) / n - 0.5) * size for i in range(n)])
    return [(ox, oy) for oy in axes[1] for ox in axes[0]]


def _averaged(
    sampler: _Sampler, x: FloatArray, y: FloatArray, offsets: list[tuple[float, float]]
) -> tuple[NDArray[Any], BoolArray | None]:
    """Mean of the valid sub-samples, valid where at least half of them are; None where all are."""
    if len(offsets) == 1:
        return sampler(x, y)
    total = np.zeros((sampler.count, x.size), sampler.work)
    weight = np.zeros(x.size, np.int32)
    for ox, oy in offsets:
        values, valid = sampler(x + ox, y + oy)
        total += values if valid is None else np.where(valid, values, 0)
        weight += 1 if valid is None else valid
    return total / np.maximum(weight, 1).astype(sampler.real), 2 * weight >= len(offsets)


def _store(out: NDArray[Any], values: NDArray[Any], valid: BoolArray | None, fill: complex) -> None:
    """Write valid values with the rounding and clipping that the output dtype needs, and the others' fill."""
    if out.dtype.kind in "iu" and values.dtype.kind == "f":
        info = np.iinfo(out.dtype)
        top = float(info.max) if info.bits <= 32 else float(np.nextafter(float(info.max), 0))
        with np.errstate(invalid="ignore"):  # NaN where nothing is valid, which is filled below
            np.rint(values, out=values)
            np.clip(values, float(info.min), top, out=values)
    with np.errstate(invalid="ignore", over="ignore"):
        out[...] = values
    if valid is not None and not valid.all():
        np.copyto(out, np.asarray(fill).astype(out.dtype), where=~valid)


@dataclass
class _Taps:
    """Base pixel and fractions of a chunk of points, and which of them the whole kernel does not fit."""

    base: NDArray[np.intp]
    fx: FloatArray
    fy: FloatArray
    fits: BoolArray | None  # None where all do


class _Sampler:
    """Samples the bands of one image that share a mask; made once, called per chunk of points."""

    def __init__(self, data: NDArray[Any], mask: BoolArray | None, kernel: Kernel) -> None:
        self.count, self.height, self.width = data.shape
        self.kernel = kernel
        self.mask = None if mask is None or mask.all() else np.ascontiguousarray(mask, bool).ravel()
        single = data.dtype.type in _SINGLE or data.dtype == np.complex64
        self.real = np.dtype(np.float32 if single else np.float64)
        self.work = np.result_type(self.real, np.complex64) if data.dtype.kind == "c" else self.real
        kept = data.dtype if kernel == "nearest" else self.work  # made once, not for every tap
        self.bands = [np.ascontiguousarray(band, kept).ravel() for band in data]
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
        """(H*W,) True at the base pixels whose whole kernel lies on valid pixels."""
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
        """The separable kernel on all its pixels; points where it does not fit get a value that is replaced later."""
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
        """Bilinear on the valid ones of the four pixels, weights renormalised."""
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
    # The weights sum to 1 and their first moment is t: that gives the two in the middle.
    return first, s + last - 2 * first, t + first - 2 * last, last
