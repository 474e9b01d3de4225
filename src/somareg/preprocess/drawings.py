"""What a program drew into both images at one place: watermarks, markers, outlines, legends, of any transparency.

A radar and an optical image share edges and fields, but hardly the finest periods, below 3.3 pixels: speckle and the
optics of each differ there. What was drawn into both does share them, exactly pixel on pixel. So a phase correlation of
these periods shows a drawing if it peaks at no displacement, hardly a pixel beside it, and no higher a fraction of a
pixel away. The last matters where speckle was averaged, as on grids of 20 to 40 m: there the ground agrees, too, but a
tenth or two of a pixel beside the place, as georeferences do. Images of one kind of sensor are left alone.

Measured on 2300 pairs of nine sets: of 290 000 tiles and whole shifts of their own pixels none is taken for a drawing;
of 2700 pairs averaged over 2 to 4 pixels 18 are, at the place where they fit. Drawings reach 10 to 150 deviations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.preprocess.pixelwise import Greys, brought
from somareg.types import BoolArray, FloatArray, Modality, Raster, Transform

Image = NDArray[np.float32]
Spectrum = NDArray[np.complex64]
Part = tuple[slice, slice]
"""Rows and columns."""

EVERYWHERE = (
    "The finest detail of both images agrees exactly, pixel on pixel, as that of radar and another sensor hardly does. "
    "Something is drawn all over both (mask it), or both are of one kind (say --moving-modality or "
    "--reference-modality)."
)

TILE_PX = 256  # a drawing may cover a small part of a large image
BENT_PX = 0.1  # largest departure of a map from an affine within a tile
ENOUGH = 0.25  # of a tile that must be valid
FINEST = 0.3  # cycles per pixel from which only drawings agree
PEAK, SHARP = 12.0, 1.3  # deviations of chance, and multiple of the correlation one pixel beside, of a drawing
APART, APART_SHARE = 3.0, 0.02  # most by which a displacement may be better: deviations, and share of the square
MORE = 6.0  # deviations for further parts of a drawing that is known from another tile
GONE = 5.0  # deviations below which nothing is left of it
ROUNDS = 6
LEFT = 8.0  # deviations above which the images still agree elsewhere
SAME_SIZE = 1.02  # pixels up to this many times larger count as equally large
BLUR_PX, SPREAD_PX = 3.0, 17  # width of the structure that is removed, and side of the area whose contrast is evened
INK_PX, INK, FAINT = 2.0, 3.0, 0.08  # see `_ink`
RIM_PX = 2  # values beside a drawing are blended with it
MOST = 0.75  # share of both images above which no drawing is assumed
AWAY = [(1, 5), (5, 3), (7, -2), (3, -7), (-3, -8), (-8, -4), (-9, 3), (6, 8)]  # displacements that show chance


def without_drawings(
    moving: Raster,
    reference: Raster,
    places: Sequence[Transform],
    modalities: tuple[Modality, Modality],
    greys: Greys,
) -> tuple[Raster, Raster, tuple[str, ...], tuple[str, ...]]:
    """Mask drawings that a radar image and one of another kind share; other pairs stay as they are.

    Args:
        moving, reference: the bands that are matched.
        places: maps, reference pixels -> moving pixels, by which a program may have drawn in both.
        modalities: of moving and reference.
        greys: of both.

    Returns:
        The images, notes on what was left out, and sentences that forbid "go".
    """
    notes, doubts = [], []
    for place in places if modalities.count("sar") == 1 else ():
        ink, there, is_everywhere = drawings((greys.reference, reference.mask), (greys.moving, moving.mask), place)
        if is_everywhere:
            doubts.append(EVERYWHERE)
        elif ink.any():
            share = ink.sum() / reference.mask.sum()
            moving = replace(moving, mask=moving.mask & ~there, band_masks=None)
            reference = replace(reference, mask=reference.mask & ~ink, band_masks=None)
            notes.append(
                f"{share:.1%} of both images show something drawn at the same pixels (a watermark, markers, outlines, "
                "a legend); left out"
            )
    return moving, reference, tuple(notes), tuple(dict.fromkeys(doubts))


def drawings(
    reference: tuple[Image, BoolArray], moving: tuple[Image, BoolArray], place: Transform
) -> tuple[BoolArray, BoolArray, bool]:
    """Find what is drawn into both images at one place.

    Args:
        reference, moving: grey values (H, W) and valid pixels.
        place: reference pixels -> moving pixels.

    Returns:
        Pixels (H, W) of the reference and of the moving image that belong to a drawing or lie beside one; and whether
        the images agree nearly everywhere instead, or still agree elsewhere.
    """
    # On the larger pixels' grid the smaller ones are averaged, and the ground agrees there. It does not on the other.
    if _pixel_size(place, reference[1].shape) > SAME_SIZE:
        there, here, is_everywhere = drawings(moving, reference, place.inverse)
        return here, there, is_everywhere
    ink, common = (np.zeros(reference[1].shape, bool) for _ in range(2))

    def both(tile: Part) -> tuple[Image, Image, BoolArray]:
        second, seen = _under(*moving, place, tile)
        return reference[0][tile], second, reference[1][tile] & seen

    peaks, is_found = [], False
    for tile in _tiles(ink.shape):
        first, second, mask = both(tile)
        common[tile] |= mask
        if mask.mean() >= ENOUGH:
            one, two = _finest(first, mask), _finest(second, mask)
            height, beside = _peak(one, two, mask.shape)
            peaks.append((tile, height))
            is_found |= height > max(PEAK, SHARP * beside) and _is_exact(one, two, mask.shape)
    if not is_found:
        return ink, np.zeros(moving[1].shape, bool), False
    left = 0.0
    for tile, height in peaks:
        if height > MORE:
            first, second, mask = both(tile)
            drawn, height = _drawn(first, second, mask & ~ink[tile])
            ink[tile] |= drawn
            left = max(left, height)
    is_everywhere = left > LEFT or bool(ink.sum() > MOST * common.sum())
    return ink, brought(ink, moving[1].shape, place.inverse), is_everywhere


def _pixel_size(place: Transform, shape: tuple[int, ...]) -> float:
    """Side of a pixel of the reference in moving pixels, at its centre; 1 where the map is unknown."""
    height, width = shape[:2]
    centre = np.array([width - 1, height - 1]) / 2
    middle, *ends = place(centre + np.array([[0, 0], [1, 0], [0, 1]]))
    size = math.sqrt(abs(np.linalg.det(np.array(ends) - middle)))
    return size if math.isfinite(size) and size > 0 else 1.0


def _tiles(shape: tuple[int, ...]) -> Iterator[Part]:
    """Rows and columns of tiles that cover an image, overlapping where they do not fit."""
    starts = []
    for length in shape[:2]:
        count = -(-length // TILE_PX)
        starts.append([round(i * max(0, length - TILE_PX) / max(count - 1, 1)) for i in range(count)])
    for y, x in product(*starts):
        yield slice(y, min(y + TILE_PX, shape[0])), slice(x, min(x + TILE_PX, shape[1]))


def _under(image: Image, mask: BoolArray, place: Transform, tile: Part) -> tuple[Image, BoolArray]:
    """The moving image and its mask at the pixels of a tile of the reference."""
    height, width = (part.stop - part.start for part in tile)
    to_moving = _affine(place, tile)
    if to_moving is None:
        return np.zeros((height, width), np.float32), np.zeros((height, width), bool)
    size, inverse = (width, height), cv2.WARP_INVERSE_MAP
    values = cv2.warpAffine(image, to_moving, size, flags=cv2.INTER_CUBIC | inverse)
    seen = cv2.warpAffine(255 * mask.astype(np.uint8), to_moving, size, flags=cv2.INTER_LINEAR | inverse)
    return np.asarray(values, np.float32), np.asarray(seen > 252)


def _affine(place: Transform, tile: Part) -> FloatArray | None:
    """The affine (2, 3) from a tile's pixels to the moving image's that a map comes down to; None where it bends."""
    rows, columns = tile
    y, x = np.meshgrid(*(np.linspace(0, part.stop - part.start - 1, 5) for part in tile), indexing="ij")
    own = np.column_stack([x.ravel(), y.ravel(), np.ones(x.size)])
    target = place(own[:, :2] + [columns.start, rows.start])
    if not np.isfinite(target).all():
        return None
    solution = np.linalg.lstsq(own, target, rcond=None)[0]
    return np.asarray(solution.T) if np.abs(own @ solution - target).max() < BENT_PX else None


def _drawn(first: Image, second: Image, mask: BoolArray) -> tuple[BoolArray, float]:
    """Pixels of a drawing in one tile, found in rounds until nothing of it is left; and the peak beside them."""
    ink = np.zeros(mask.shape, bool)
    rim = np.ones((2 * RIM_PX + 1, 2 * RIM_PX + 1), np.uint8)
    for done in range(ROUNDS + 1):
        left = mask & ~ink
        one, two = _finest(first, left), _finest(second, left)
        height, _ = _peak(one, two, mask.shape)
        if height < GONE or done == ROUNDS:
            break
        agreeing = _ink(_image(one, mask.shape), _image(two, mask.shape), left)
        ink |= (cv2.dilate(agreeing.astype(np.uint8), rim) > 0) & mask
    return ink, height


def _finest(image: Image, mask: BoolArray) -> Spectrum:
    """Spectrum of an image (H, W) with the same energy at all of the finest periods, and none elsewhere."""
    spectrum = np.fft.rfft2(_sharp(image, mask))
    size = np.abs(spectrum)
    return np.asarray(_band(image.shape)[0] * spectrum / np.maximum(size, 1e-9 * size.max() + 1e-12), np.complex64)


@lru_cache(maxsize=8)
def _band(shape: tuple[int, int]) -> tuple[NDArray[np.float32], int]:
    """The finest periods in a real spectrum as a mask, and their number in a complex one."""
    rows, columns = (np.fft.fftfreq(length) for length in shape)
    fine = np.hypot(rows[:, None], columns) > FINEST
    return fine[:, : shape[1] // 2 + 1].astype(np.float32), int(fine.sum())


def _image(spectrum: Spectrum, shape: tuple[int, int]) -> Image:
    return np.asarray(np.fft.irfft2(spectrum, s=shape), np.float32)


def _peak(one: Spectrum, two: Spectrum, shape: tuple[int, int]) -> tuple[float, float]:
    """Correlation at no displacement and the largest one pixel beside it, in standard deviations of chance."""
    correlation = np.fft.irfft2(one * two.conj(), s=shape)
    near = correlation[np.ix_((0, 1, -1), (0, 1, -1))].ravel() * (shape[0] * shape[1]) ** 1.5 / _band(shape)[1]
    return float(near[0]), float(np.abs(near[1:]).max())


def _is_exact(one: Spectrum, two: Spectrum, shape: tuple[int, int]) -> bool:
    """Whether no displacement of a fraction of a pixel correlates clearly better than none."""
    steps = np.linspace(-0.5, 0.5, 21)
    along_y = np.exp(2j * np.pi * np.outer(steps, np.fft.fftfreq(shape[0])))
    along_x = np.exp(2j * np.pi * np.outer(np.fft.rfftfreq(shape[1]), steps))
    twice = np.where(np.arange(shape[1] // 2 + 1) % (shape[1] / 2) == 0, 1, 2)  # the other half of a real spectrum
    correlation = (
        (along_y @ (one * two.conj() * twice) @ along_x).real * math.sqrt(shape[0] * shape[1]) / _band(shape)[1]
    )
    none, best = correlation[10, 10], correlation.max()
    return bool(best**2 - none**2 < max(APART**2, APART_SHARE * best**2))


def _sharp(image: Image, mask: BoolArray) -> Image:
    """Deviation from the surroundings in local deviations, clipped to +-3; 0 where not valid."""
    weight = mask.astype(np.float32)
    low = _blurred(image) if mask.all() else _blurred(image * weight) / np.maximum(_blurred(weight), 1e-3)
    away = (image - low) * weight
    area = (SPREAD_PX, SPREAD_PX)
    spread = np.sqrt(np.maximum(cv2.blur(away * away, area), 0) / np.maximum(cv2.blur(weight, area), 1e-3))
    typical = float(np.sqrt((away * away).sum() / max(weight.sum(), 1.0)))
    return np.asarray(np.clip(away / (spread + 0.05 * typical + 1e-9), -3, 3) * weight, np.float32)


def _blurred(image: Image) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), BLUR_PX), np.float32)


def _ink(one: Image, two: Image, mask: BoolArray) -> BoolArray:
    """Pixels around which the finest periods agree better than anywhere by chance, and not only faintly."""
    agreement = np.asarray(cv2.GaussianBlur(one * two, (0, 0), INK_PX))
    chance = [np.square(cv2.GaussianBlur(one * np.roll(two, by, (0, 1)), (0, 0), INK_PX)) for by in AWAY]
    deviation = np.sqrt(cv2.GaussianBlur(np.mean(chance, axis=0, dtype=np.float32), (0, 0), 4 * INK_PX))
    strong = float(np.quantile(agreement[mask], 0.99))
    return np.asarray(mask & (agreement > INK * deviation) & (agreement > FAINT * strong))
