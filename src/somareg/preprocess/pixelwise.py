"""Two images pixel on pixel: shift and shared part, masks brought from one to the other, and their grey values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from somareg.geometry import AffineTransform
from somareg.preprocess.subsample import subsample
from somareg.types import BoolArray, FloatArray, Raster, Transform


def whole_shift(place: Transform) -> tuple[int, int] | None:
    """The shift (x, y) of a map that moves by whole pixels; None for any other."""
    if not isinstance(place, AffineTransform):
        return None
    shift = np.rint(place.matrix[:, 2])
    moved = np.column_stack([np.eye(2), shift])
    return (int(shift[0]), int(shift[1])) if np.allclose(place.matrix, moved, atol=1e-6) else None


def overlap(
    here: tuple[int, ...], there: tuple[int, ...], shift: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Rows and columns that two images of (height, width) share when pixel x of the first is x + shift of the other."""
    near, away = [], []
    for length, other, step in zip(here[:2], there[:2], shift[::-1], strict=True):
        first, last = max(0, -step), max(0, -step, min(length, other - step))
        near.append(slice(first, last))
        away.append(slice(first + step, last + step))
    return (near[0], near[1]), (away[0], away[1])


def without(image: Raster, part: tuple[slice, slice], pixels: BoolArray) -> Raster:
    """The image with these pixels of a part (rows, columns) masked."""
    mask = image.mask.copy()
    mask[part] &= ~pixels
    return replace(image, mask=mask, band_masks=None)


def brought(mask: BoolArray, shape: tuple[int, ...], to_other: Transform) -> BoolArray:
    """Another image's mask at this one's pixels, False beyond it; `to_other` maps these pixels to the other's."""
    inside, at = met(to_other, shape, mask.shape)
    out = np.zeros(shape[:2], bool)
    out[inside] = mask[at]
    return out


def met(
    to_other: Transform, shape: tuple[int, ...], other: tuple[int, ...]
) -> tuple[BoolArray, tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Mask (H, W) of the pixels that fall on another image of shape `other`, with its rows and columns."""
    height, width = shape[:2]
    if isinstance(to_other, AffineTransform) and not (to_other.matrix[0, 1] or to_other.matrix[1, 0]):
        # Columns map to columns and rows to rows, so one line of each is enough.
        line = np.arange(max(height, width), dtype=float)
        x, y = _nearest(to_other(np.stack([line, line], axis=-1)))
        x, y = np.broadcast_arrays(x[None, :width], y[:height, None])
    else:
        rows, columns = np.indices((height, width), dtype=float)
        x, y = _nearest(to_other(np.stack([columns.ravel(), rows.ravel()], axis=-1))).reshape(2, height, width)
    inside = np.asarray((x >= 0) & (x < other[1]) & (y >= 0) & (y < other[0]))
    return inside, (y[inside], x[inside])


def _nearest(points: FloatArray) -> NDArray[np.intp]:
    """(2, N) columns and rows of points (N, 2); -1 where a point is not finite."""
    return np.rint(np.nan_to_num(points, nan=-1.0, posinf=-1.0, neginf=-1.0)).astype(np.intp).T


@dataclass(frozen=True, eq=False)
class Greys:
    """(H, W) grey values of both images, see `grey`."""

    moving: NDArray[np.float32]
    reference: NDArray[np.float32]

    @classmethod
    def of(cls, moving: Raster, reference: Raster) -> Greys:
        """Of the matched bands."""
        return cls(grey(moving.data, moving.mask), grey(reference.data, reference.mask))


def grey(data: NDArray[np.generic], mask: BoolArray) -> NDArray[np.float32]:
    """(H, W) mean of the bands (C, H, W), each stretched to its own range."""
    values = np.abs(data) if np.iscomplexobj(data) else data
    exact = np.float32 if values.dtype.itemsize <= 2 else np.float64
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    grey = np.zeros(mask.shape, np.float32)
    for band, sample in zip(values, subsample(values, mask), strict=True):
        finite = sample[np.isfinite(sample)].astype(np.float64)
        low, high = np.percentile(finite, [1, 99]) if finite.size else (0.0, 1.0)
        # Relative to the middle, so that float32 keeps the contrast of large values.
        stretched = np.nan_to_num(np.subtract(band, (low + high) / 2, dtype=exact).astype(np.float32, copy=False))
        grey += np.clip(stretched / np.float32(max(high - low, 1e-12)) + 0.5, -0.5, 1.5)
    return grey / np.float32(len(values))
