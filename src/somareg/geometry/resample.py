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
    out = np.full((count, x.size), fill, dtype)
    per_band = mask is not None and mask.ndim == 3
    out_mask = np.zeros((count if per_band else 1, x.size), bool)
    x, y = _tame(x), _tame(y)
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
            values, valid = _averaged(sampler, x[part], y[part], offsets)
            _store(out[bands, part], values, valid)
            out_mask[mask_index, part] = valid
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
    """Flat float64 coordinates, snapped; anything not finite or absurd becomes a point outside."""
    flat = np.array(values, np.float64).ravel()
    flat[~(np.abs(flat) < 1e9)] = _FAR
    flat *= _SNAP
    np.rint(flat, out=flat)
    flat /= _SNAP
    return flat


def _are_whole(values: FloatArray) -> bool:
    return all(np.array_equal(part, np.rint(part)) for part in (values[:64], values))


def _sub_samples(footprint: Sequence[float], kernel: Kernel) -> list[tuple[float, float]]:
    """Offsets (source pixels) of the samples that are averaged into one."""
    axes = []
    for size in footprint:
        n = int(np.ceil(size - 1e-6)) if size > ANTIALIAS_ABOVE and kernel != "nearest" else 1
        axes.append([((i + 0.5) / n - 0.5) * size for i in range(n)])
    return [(ox, oy) for oy in axes[1] for ox in axes[0]]


def _averaged(
    sampler: _Sampler, x: FloatArray, y: FloatArray, offsets: list[tuple[float, float]]
) -> tuple[NDArray[Any], BoolArray]:
    """Mean of the valid sub-samples, valid where at least half of them are."""
    if len(offsets) == 1:
        return sampler(x, y)
    total = np.zeros((sampler.count, x.size), sampler.work)
    weight = np.zeros(x.size, np.int32)
    for ox, oy in offsets:
        values, valid = sampler(x + ox, y + oy)
        total += np.where(valid, values, 0)
        weight += valid
    return total / np.maximum(weight, 1).astype(sampler.real), 2 * weight >= len(offsets)


def _store(out: NDArray[Any], values: NDArray[Any], valid: BoolArray) -> None:
    """Write valid values with the rounding and clipping that the output dtype needs."""
    if out.dtype.kind in "iu" and values.dtype.kind == "f":
        info = np.iinfo(out.dtype)
        top = float(info.max) if info.bits <= 32 else float(np.nextafter(float(info.max), 0))
        values = np.clip(np.rint(values), float(info.min), top)
    with np.errstate(invalid="ignore", over="ignore"):
        np.copyto(out, values.astype(out.dtype, copy=False), where=valid)


@dataclass
class _Taps:
    """Base pixel, fractions and validity of a chunk of points."""

    base: NDArray[np.intp]
    fx: FloatArray
    fy: FloatArray
    rest: NDArray[np.intp]  # valid points whose kernel does not fit
    x: FloatArray
    y: FloatArray


class _Sampler:
    """Samples the bands of one image that share a mask; made once, called per chunk of points."""

    def __init__(self, data: NDArray[Any], mask: BoolArray | None, kernel: Kernel) -> None:
        self.count, self.height, self.width = data.shape
        self.bands = [np.ascontiguousarray(band).ravel() for band in data]
        self.kernel = kernel
        self.mask = None if mask is None or mask.all() else np.ascontiguousarray(mask, bool).ravel()
        single = data.dtype.type in _SINGLE or data.dtype == np.complex64
        self.real = np.dtype(np.float32 if single else np.float64)
        self.work = np.result_type(self.real, np.complex64) if data.dtype.kind == "c" else self.real
        self.before, self.after = (1, 2) if kernel == "cubic" else (0, 1)
        self.whole = None if self.mask is None or kernel == "nearest" else self._whole_neighbourhoods()

    def __call__(self, x: FloatArray, y: FloatArray) -> tuple[NDArray[Any], BoolArray]:
        """Values (C, N) and validity (N,)."""
        nearest, valid = self._nearest(x, y)
        if self.kernel == "nearest":
            return np.stack([band.take(nearest) for band in self.bands]), valid
        taps = self._taps(x, y, valid)
        values = np.empty((self.count, x.size), self.work)
        with np.errstate(invalid="ignore", over="ignore"):
            if taps.rest.size < x.size and min(self.height, self.width) > self.after:
                self._complete(taps, values)
        if taps.rest.size:
            values[:, taps.rest] = self._incomplete(taps)
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

    def _taps(self, x: FloatArray, y: FloatArray, valid: BoolArray) -> _Taps:
        floor_x, floor_y = np.floor(x), np.floor(y)
        fx, fy = (x - floor_x).astype(self.real), (y - floor_y).astype(self.real)
        column, row = floor_x.astype(np.intp), floor_y.astype(np.intp)
        last_x, last_y = self.width - 1 - self.after, self.height - 1 - self.after
        fits = (column >= self.before) & (column <= last_x) & (row >= self.before) & (row <= last_y)
        base = np.where(fits, row * self.width + column, self.before * (self.width + 1))
        if self.whole is not None:
            fits &= self.whole.take(base)
        return _Taps(base, fx, fy, np.flatnonzero(valid & ~fits), x, y)

    def _complete(self, taps: _Taps, values: NDArray[Any]) -> None:
        """The separable kernel on all its pixels; points where it does not fit get a value that is replaced later."""
        weights = _keys if self.kernel == "cubic" else _tent
        along_x, along_y = weights(taps.fx), weights(taps.fy)
        corner = taps.base - self.before * (self.width + 1)
        for band, out in zip(self.bands, values, strict=True):
            for j, weight_y in enumerate(along_y):
                line = corner + j * self.width
                row = band.take(line) * along_x[0]
                for i in range(1, len(along_x)):
                    row += band.take(line + i) * along_x[i]
                if j == 0:
                    np.multiply(row, weight_y, out=out)
                else:
                    out += row * weight_y

    def _incomplete(self, taps: _Taps) -> NDArray[Any]:
        """Bilinear on the valid ones of the four pixels, weights renormalised."""
        x, y = taps.x[taps.rest], taps.y[taps.rest]
        column, row = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
        fx, fy = taps.fx[taps.rest], taps.fy[taps.rest]
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
    return -0.5 * t * s * s, 1 + t * t * (1.5 * t - 2.5), 1 + s * s * (1.5 * s - 2.5), -0.5 * s * t * t
