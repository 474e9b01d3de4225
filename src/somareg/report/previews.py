"""Pictures of a pair on the reference grid, for the report."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.geometry.lattice import jacobian_at, on_lattice
from somareg.geometry.resample import footprint_of, resample
from somareg.preprocess.subsample import subsample
from somareg.types import BoolArray, FloatArray, Modality, Previews, Raster, Transform


def make_previews(
    reference: Raster,
    moving: Raster,
    before: Transform,
    after: Transform,
    modalities: tuple[Modality, Modality],
    place: tuple[tuple[float, float], float] = ((0.0, 0.0), 1.0),
    longest: int = 1024,
) -> Previews:
    """Draw previews of both images.

    Args:
        reference, moving: their matched parts.
        before, after: reference pixels -> moving pixels without and with the estimate.
        modalities: of moving and reference.
        place: pixel of the whole reference where this one begins, and how many of those one of its pixels covers.
        longest: longer side of the pictures, pixels.
    """
    height, width = reference.grid.shape
    step = max(1.0, max(height, width) / longest)
    rows, columns = int(height / step), int(width / step)
    y, x = np.mgrid[0:rows, 0:columns].astype(float)
    points = np.stack([(x + 0.5) * step - 0.5, (y + 0.5) * step - 0.5], axis=-1)
    own, own_mask = resample(
        shown_values(reference), reference.mask, points, kernel="bilinear", footprint=(step, step), out_dtype=np.float32
    )
    sides = {name: _side(moving, transform, points, step) for name, transform in (("b", before), ("a", after))}
    pixels, valid = sides["a"]
    limits = limits_of(pixels, valid, modalities[0])
    return Previews(
        reference=picture_of(own, own_mask, limits_of(own, own_mask, modalities[1])),
        before=picture_of(*sides["b"], limits),
        after=picture_of(pixels, valid, limits),
        step=step * place[1],
        corner=place[0],
    )


def shown_bands(count: int) -> int:
    """Number of bands in an image's picture, from the first: three as red, green and blue, otherwise one."""
    return 3 if count >= 3 else 1


def shown_values(raster: Raster) -> NDArray[Any]:
    """Three bands of an image of three or more, the first one otherwise; complex by its modulus."""
    data = raster.data[: shown_bands(len(raster.data))]
    return np.abs(data) if np.iscomplexobj(data) else data


def _side(moving: Raster, transform: Transform, points: FloatArray, step: float) -> tuple[NDArray[Any], BoolArray]:
    (left, top), (right, bottom) = points[0, 0].tolist(), points[-1, -1].tolist()
    fast = on_lattice(transform, (left, top, right, bottom))
    footprint = footprint_of(jacobian_at(transform, ((left + right) / 2, (top + bottom) / 2)) * step)
    where = fast(points.reshape(-1, 2)).reshape(points.shape)
    return resample(
        shown_values(moving), moving.mask, where, kernel="bilinear", footprint=footprint, out_dtype=np.float32
    )


def limits_of(data: NDArray[Any], mask: BoolArray, modality: Modality) -> FloatArray:
    """Black and white points (C, 2) of an image (C, h, w); SAR gets a darker white point than reflectances."""
    limits = np.tile([0.0, 1.0], (len(data), 1))
    for band, own in zip(subsample(data, mask), limits, strict=True):
        finite = band[np.isfinite(band)]
        if finite.size:
            low, high = np.percentile(finite, [1, 98.5 if modality == "sar" else 99.5])
            own[:] = low, high if high > low else low + 1
    return limits


def picture_of(data: NDArray[Any], mask: BoolArray, limits: FloatArray) -> NDArray[np.uint8]:
    """(h, w) of one band or (h, w, 3) uint8, black where invalid."""
    low, high = limits.astype(np.float32).T[..., None, None]
    stretched = np.clip((np.nan_to_num(data) - low) / (high - low), 0, 1) ** 0.8
    picture = np.where(mask, 255 * stretched + 0.5, 0).astype(np.uint8)
    return picture[0] if len(picture) == 1 else np.moveaxis(picture, 0, -1)
