"""Exact, mask-aware sampling of images at arbitrary points: nearest, bilinear, Keys cubic (a = -0.5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from somareg.geometry.sampler import Kernel, Sampler
from somareg.types import BoolArray, FloatArray

ANTIALIAS_ABOVE = 1.3
"""Source pixels per output pixel above which samples are averaged."""

_CHUNK = 1 << 15  # points at a time, so that temporaries stay in the processor's cache
_SNAP = float(1 << 20)  # coordinates are rounded to a millionth of a pixel, so an identity map stays an identity
_ABSURD = 1e9
_FAR = -16.0  # stands for any coordinate that is not finite or far outside


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
        sampler = Sampler(data[bands], group_mask, kernel)
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
    """Whether all values are whole after snapping; the first few are checked alone, as they mostly decide."""
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
    sampler: Sampler, x: FloatArray, y: FloatArray, offsets: list[tuple[float, float]]
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
    """Write valid values, rounded and clipped as the dtype needs, and `fill` elsewhere."""
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
