"""Prepare a pair: working resolution, normalised bands, masks, and the maps back to the original pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from somareg.config import RegisterConfig
from somareg.errors import NoDataError, NoOverlapError
from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.geometry.proportions import STRIP_PX, keep_side
from somareg.preprocess.bands import check_bands, choose_bands
from somareg.preprocess.grid import to_reference_grid
from somareg.preprocess.normalise import normalise
from somareg.preprocess.sar import detect_scale
from somareg.types import BoolArray, Grid, Modality, Raster, SarScale, Transform

APART = 0.03  # starts closer than this share of the reference's longer side are merged
SAME_SIZE = 0.07  # logarithm of the ratio of two sides up to which one start suffices for images of the same extent
COARSER = 2.1  # ratio of pixel sizes from which the moving image is resampled to the reference's pixels before matching
_ROUNDING = 1e-6  # pixels
MIN_VALID = 2000  # least valid pixels in common for a measurement


@dataclass(frozen=True, eq=False)
class Prepared:
    """The input of the matcher, and how its pixels relate to the originals'.

    Attributes:
        reference, moving: (C, h, w) float32 normalised bands at working resolution.
        reference_mask, moving_mask: (h, w).
        starts: guesses of reference working pixels -> moving working pixels before matching.
        factor: original reference pixels per working pixel.
        reference_pixels, moving_pixels: working pixels -> reference pixels; moving working pixels -> the coordinates
            that `correction` maps to (reference grid when georeferenced, else moving pixels).
        notes: decisions taken.
    """

    reference: NDArray[np.float32]
    reference_mask: BoolArray
    moving: NDArray[np.float32]
    moving_mask: BoolArray
    starts: tuple[AffineTransform, ...]
    factor: int
    reference_pixels: AffineTransform
    moving_pixels: AffineTransform
    notes: tuple[str, ...]

    def affine_of(self, affine: AffineTransform) -> AffineTransform:
        """Convert an affine between working images to original pixels."""
        return self.moving_pixels.after(affine).after(self.reference_pixels.inverse)

    def field_of(self, field: FieldTransform) -> FieldTransform:
        """Convert a field on the working reference to original reference pixels."""
        origin = self.reference_pixels(np.array([field.origin]))[0]
        step = field.step[0] * self.factor, field.step[1] * self.factor
        return FieldTransform(field.array * self.factor, (float(origin[0]), float(origin[1])), step)


def prepare(
    moving: Raster, reference: Raster, georef: Transform, cfg: RegisterConfig, *, longest: int, radius_px: float
) -> Prepared:
    """Bring a pair to working resolution.

    The moving image is resampled to the reference's pixels where a georeference places it, and where its pixels are
    known or guessed to be of another size (`is_brought`), because the search works at one resolution.

    Args:
        moving, reference: as read.
        georef: reference pixels -> moving pixels; without georeferences a first guess, the identity without one.
        cfg: modalities, bands, scales.
        longest: largest working side; larger images are averaged by a whole factor, see `working_factor`.
        radius_px: margin of the moving image around the reference, reference pixels.

    Raises:
        ConfigError: a band that an image does not have.
        NoDataError: too few valid pixels.
        NoOverlapError: georeferenced images without common valid ground.
    """
    placed = reference.grid.is_georeferenced
    is_onto = placed or is_brought(reference.grid.shape, moving.grid.shape, georef)
    factor = working_factor(reference.grid.shape, None if is_onto else moving.grid.shape, longest)
    notes = []
    if factor > 1:
        notes.append(f"matched at 1/{factor} of the reference's resolution ({max(reference.grid.shape)} px side)")
    reference_bands = _bands(reference, cfg.reference_bands, cfg.reference_modality, "reference", notes)
    reference_data, reference_mask = reduce_blocks(
        reference.data[[b - 1 for b in reference_bands]], reference.mask, factor
    )
    moving_bands = _bands(moving, cfg.moving_bands, cfg.moving_modality, "moving", notes)
    up = AffineTransform.reduction(factor)
    guesses = () if placed else _guesses(reference.mask, moving.mask, georef)
    if is_onto:
        onto: Transform = georef if placed else guesses[0]
        reach = radius_px if placed else min(radius_px, _reach(guesses[0], reference.grid, moving.grid))
        pad = math.ceil(reach / factor) + 8
        grid = reduced_grid(reference.grid, factor, reference_mask.shape)
        moving_data, moving_mask = to_reference_grid(moving, grid, compose(onto, up), pad=pad, bands=moving_bands)
        moving_pixels = up.after(AffineTransform.from_parameters(shift=(-pad, -pad)))
        if not placed:
            moving_pixels = guesses[0].after(moving_pixels)
    else:
        moving_data, moving_mask = reduce_blocks(moving.data[[b - 1 for b in moving_bands]], moving.mask, factor)
        moving_pixels = up
    starts = tuple(moving_pixels.inverse.after(guess).after(up) for guess in guesses)
    if placed:
        starts = (AffineTransform.from_parameters(shift=(pad, pad)),)
        common = reference_mask & moving_mask[pad:-pad, pad:-pad]
        if common.sum() * factor**2 < MIN_VALID:
            raise NoOverlapError(
                f"{moving.name} and {reference.name} share only {int(common.sum()) * factor**2} valid pixels "
                "(at least 2000 are needed); check nodata values and footprints"
            )
    valid = moving_mask.sum() * factor**2 if placed else moving.mask.sum()
    for count, raster in ((reference_mask.sum() * factor**2, reference), (valid, moving)):
        if count < MIN_VALID:
            raise NoDataError(f"{raster.name} has fewer than {MIN_VALID} valid pixels to match; check its nodata value")
    settings = cfg.reference_modality, cfg.reference_scale
    reference_image = _normalised(reference, reference_bands, settings, (reference_data, reference_mask), notes)
    settings = cfg.moving_modality, cfg.moving_scale
    moving_image = _normalised(moving, moving_bands, settings, (moving_data, moving_mask), notes)
    return Prepared(
        reference_image, reference_mask, moving_image, moving_mask, starts, factor, up, moving_pixels, tuple(notes)
    )


def _bands(
    raster: Raster, wanted: tuple[int, ...] | None, modality: Modality, role: str, notes: list[str]
) -> tuple[int, ...]:
    count = len(raster.data)
    bands = choose_bands(count, wanted, raster.descriptions, modality)
    check_bands(bands, count, raster.name)
    if count > len(bands):
        notes.append(f"{role}: matched on band {', '.join(map(str, bands))} of {count}")
    return bands


def _scale(raster: Raster, bands: tuple[int, ...], modality: Modality, wanted: SarScale) -> tuple[SarScale, str]:
    """Detect the scale of SAR values, with the reason, on the values as read: averaging and resampling turn integers
    into real numbers, and complex values into moduli.
    """
    if modality != "sar" or wanted != "auto":
        return wanted, "as given"
    return detect_scale(raster.data[[b - 1 for b in bands]], raster.mask)


def _normalised(
    raster: Raster,
    bands: tuple[int, ...],
    settings: tuple[Modality, SarScale],
    working: tuple[NDArray[np.float32], BoolArray],
    notes: list[str],
) -> NDArray[np.float32]:
    """Normalise the working image of a raster; a note gives the SAR scale."""
    scale, reason = _scale(raster, bands, *settings)
    image, note = normalise(*working, settings[0], scale, reason)
    if note:
        notes.append(note)
    return image


def reduced_grid(grid: Grid, factor: int, shape: tuple[int, ...]) -> Grid:
    """The grid of an image averaged over `factor` x `factor` pixels; without its ground control points."""
    a, b, c, d, e, f = grid.transform
    transform = (a * factor, b * factor, c, d * factor, e * factor, f)
    return replace(grid, width=shape[1], height=shape[0], transform=transform, control=None)


def reduce_blocks(data: NDArray[np.generic], mask: BoolArray, factor: int) -> tuple[NDArray[np.float32], BoolArray]:
    """Mean over valid pixels of `factor` x `factor` blocks; of the modulus for complex values."""
    values = np.abs(data) if np.iscomplexobj(data) else data
    if factor == 1:
        return np.where(mask, np.nan_to_num(values.astype(np.float32)), 0.0).astype(np.float32), mask
    height, width = mask.shape[0] // factor, mask.shape[1] // factor
    out = np.zeros((len(values), height, width), np.float32)
    blocks = (height, factor, width, factor)
    count = mask[: height * factor, : width * factor].reshape(blocks).sum((1, 3))
    for band, target in zip(values, out, strict=True):
        part = np.where(mask, band, 0)[: height * factor, : width * factor].astype(np.float32)
        target[:] = part.reshape(blocks).sum((1, 3)) / np.maximum(count, 1)
    return out, count > factor**2 / 2


def _guesses(reference: BoolArray, moving: BoolArray, given: Transform) -> tuple[AffineTransform, ...]:
    """Guesses without georeferences, reference pixels -> moving pixels, the likeliest first: the given one if there is
    one, else the frames of both images on each other, and their valid parts.

    Equal sizes start pixel on pixel; others centre on centre, and stretched to the same extent. When an image is valid
    in a part of its frame only, the same starts are made for that part.
    """
    if _is_told(given):
        return (given,)
    frames = (_frame(reference), _frame(moving))
    parts = (_extent(reference), _extent(moving))
    starts = list(_on_each_other(*frames))
    # A small image of the same pixel size was looked for in the large one before (`register.locate`).
    if is_brought(reference.shape, moving.shape, given):
        starts.reverse()
    if parts != frames:
        starts += _on_each_other(*parts)
    kept: list[AffineTransform] = []
    for start in starts:
        corners = np.array([[0.0, 0.0], [reference.shape[1], 0.0], [0.0, reference.shape[0]]])
        if all(np.abs(start(corners) - one(corners)).max() > APART * max(reference.shape) for one in kept):
            kept.append(start)
    return tuple(kept)


Extent = tuple[float, float, float, float]
"""First and last valid column and row, (x0, y0, x1, y1)."""


def _frame(mask: BoolArray) -> Extent:
    return 0.0, 0.0, mask.shape[1] - 1.0, mask.shape[0] - 1.0


def _extent(mask: BoolArray) -> Extent:
    """Extent of the valid pixels; the frame when there are none."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return _frame(mask)
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])


def _on_each_other(reference: Extent, moving: Extent) -> tuple[AffineTransform, ...]:
    """Starts with centre on centre and, for different sizes, stretched to the same extent."""
    (rw, rh), (mw, mh) = ((x1 - x0 + 1, y1 - y0 + 1) for x0, y0, x1, y1 in (reference, moving))
    (rx, ry), (mx, my) = (((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in (reference, moving))
    centred = AffineTransform.from_parameters(shift=(mx - rx, my - ry))
    scale_x, scale_y = mw / rw, mh / rh
    if max(abs(math.log(scale_x)), abs(math.log(scale_y))) < SAME_SIZE:
        return (centred,)
    return centred, AffineTransform(np.array([[scale_x, 0.0, mx - scale_x * rx], [0.0, scale_y, my - scale_y * ry]]))


def working_factor(reference: tuple[int, ...], moving: tuple[int, ...] | None, longest: int) -> int:
    """The factor by which a pair is reduced: to `longest` pixels of the reference, or less where a side gets too short.

    Args:
        reference, moving: (height, width); None for a moving image that is resampled to the reference's pixels.
        longest: longer side of the reference, pixels.
    """
    return keep_side(math.ceil(max(reference) / longest), *reference, *(moving or ()), least=STRIP_PX)


def is_brought(reference: tuple[int, ...], moving: tuple[int, ...], given: Transform) -> bool:
    """Whether `prepare` resamples a moving image without a georeference to the reference's pixels: by the given map, or
    if frames of (height, width) that show the same ground have pixels of very different sizes.
    """
    area = moving[0] * moving[1] / (reference[0] * reference[1])
    if _is_told(given):
        area = abs(float(np.linalg.det(given.matrix[:, :2])))
    return not COARSER**-2 < area < COARSER**2


def _is_told(given: Transform) -> TypeGuard[AffineTransform]:
    """Whether a map says anything; the identity stands for none."""
    return isinstance(given, AffineTransform) and not np.array_equal(given.matrix, np.eye(2, 3))


def _reach(guess: AffineTransform, reference: Grid, moving: Grid) -> float:
    """How far the moving image reaches beyond the reference, reference pixels."""
    (rows, columns), (height, width) = reference.shape, moving.shape
    edges = np.array([[0.0, 0.0], [width, 0.0], [0.0, height], [width, height]]) - 0.5
    corners = guess.inverse(edges) + 0.5
    return max(0.0, float(np.concatenate([-corners, corners - [columns, rows]]).max()) - _ROUNDING)
