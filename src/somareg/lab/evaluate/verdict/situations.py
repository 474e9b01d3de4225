"""Artefacts of real files, drawn on crops on the pixel grid of both images.

A related pair with an overlay may be aligned or refused; an unrelated pair with the same overlay on both images must
never be *go*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

ByteImage = NDArray[np.uint8]
Rng = np.random.Generator
Draw = Callable[[ByteImage, Rng], ByteImage]
"""Draws on an image (H, W) or (C, H, W), reproducibly for a state of the generator."""


@dataclass(frozen=True)
class Situation:
    """An artefact on both images of a pair.

    Attributes:
        moving, reference: see `Draw`.
    """

    moving: Draw
    reference: Draw

    def on(self, moving: ByteImage, reference: ByteImage, seed: int) -> tuple[ByteImage, ByteImage]:
        """Draw on both images."""
        return (
            self.moving(moving, np.random.default_rng(seed)),
            self.reference(reference, np.random.default_rng(seed)),
        )


def _filled(mask: NDArray[np.bool_], image: ByteImage, value: int = 0) -> ByteImage:
    return np.where(mask, image, np.uint8(value))


def area_of_interest(image: ByteImage, rng: Rng) -> ByteImage:
    """Set pixels outside a polygon to 0."""
    height, width = image.shape[-2:]
    angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
    radius = rng.uniform(0.36, 0.52, 7)[:, None]
    corners = (0.5 + radius * np.column_stack([np.cos(angles), np.sin(angles)])) * np.array([width, height])
    inside = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(inside, cv2.convexHull(corners.astype(np.int32)), 1)
    return _filled(inside > 0, image)


def curved_area(image: ByteImage, rng: Rng) -> ByteImage:
    """Set pixels outside a curve without straight edges to 255."""
    height, width = image.shape[-2:]
    y, x = np.mgrid[:height, :width]
    angle = np.arctan2(y - height / 2, x - width / 2)
    waves = np.zeros((height, width))
    for k in (2, 3, 5, 9, 17):
        waves += rng.uniform(0.005, 0.04) * np.sin(k * angle + rng.uniform(0, 6))
    inside = np.hypot((y - height / 2) / height, (x - width / 2) / width) < 0.42 + waves
    return _filled(inside, image, 255)


def scan_gaps(image: ByteImage, rng: Rng) -> ByteImage:
    """Set slanting stripes to 0."""
    height, width = image.shape[-2:]
    y, x = np.mgrid[:height, :width]
    slope, period = rng.uniform(-0.2, 0.2), rng.uniform(45, 70)
    return _filled((y + slope * x) % period > 0.27 * period, image)


def graticule(image: ByteImage, rng: Rng) -> ByteImage:
    """Draw white lines of two pixels along rows and columns."""
    step, first = int(rng.integers(40, 70)), int(rng.integers(5, 40))
    out = image.copy()
    for k in range(first, max(image.shape[-2:]), step):
        out[..., k : k + 2, :] = 255
        out[..., k : k + 2] = 255
    return out


def faint_graticule(image: ByteImage, rng: Rng) -> ByteImage:
    """Draw the graticule half transparent."""
    return np.asarray((image.astype(np.uint16) + graticule(image, rng)) // 2, np.uint8)


def compressed(draw: Draw, quality: int) -> Draw:
    """Draw the graticule, then compress as JPEG."""

    def drawn(image: ByteImage, rng: Rng) -> ByteImage:
        done = draw(image, rng)
        bands = done[None] if done.ndim == 2 else done
        out = np.zeros_like(bands)
        for band, target in zip(bands, out, strict=True):
            _, coded = cv2.imencode(".jpg", band, [cv2.IMWRITE_JPEG_QUALITY, quality])
            target[:] = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)
        return out[0] if done.ndim == 2 else out

    return drawn


def labels(image: ByteImage, rng: Rng) -> ByteImage:
    """Write labels over the image."""
    height, width = image.shape[-2:]
    ink = np.zeros((height, width), np.uint8)
    for y in range(int(rng.integers(20, 40)), height, int(rng.integers(45, 60))):
        cv2.putText(ink, "SENTINEL 2026", (5, y), cv2.FONT_HERSHEY_SIMPLEX, width / 260, 255, 2, cv2.LINE_AA)
    return np.asarray(np.maximum(image, ink), np.uint8)


def frame(image: ByteImage, rng: Rng) -> ByteImage:
    """Draw a frame of one value with a black line inside it."""
    out, side = image.copy(), int(rng.integers(8, 20))
    for edge in (slice(0, side), slice(-side, None)):
        out[..., edge, :] = 255
        out[..., edge] = 255
    for k in (side, -side - 2):
        out[..., k : k + 2, side:-side] = 0
        out[..., side:-side, k : k + 2] = 0
    return out


def _blended(image: ByteImage, ink: ByteImage, share: float, value: int = 255) -> ByteImage:
    """Blend a value into an image where the ink (H, W), 0-255, says so, at most by `share`."""
    weight = ink / np.float32(255) * share
    return np.asarray(np.clip(image * (1 - weight) + value * weight, 0, 255), np.uint8)


def watermark(image: ByteImage, rng: Rng) -> ByteImage:
    """Write slanting lines of half transparent text all over the image."""
    height, width = image.shape[-2:]
    page = np.zeros((2 * height, 2 * width), np.uint8)
    for y in range(int(rng.integers(20, 40)), 2 * height, int(rng.integers(35, 50))):
        text, start = "(c) PREVIEW  " * (width // 40), (int(rng.integers(-30, 0)), y)
        cv2.putText(page, text, start, cv2.FONT_HERSHEY_SIMPLEX, 0.55, 255, 1, cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((width, height), float(rng.uniform(15, 40)), 1)
    ink = cv2.warpAffine(page, turn, (2 * width, 2 * height))[height // 2 :, width // 2 :][:height, :width]
    return _blended(image, np.asarray(ink, np.uint8), 0.45)


def outlines(image: ByteImage, rng: Rng) -> ByteImage:
    """Draw curves like coasts and borders, half transparent."""
    height, width = image.shape[-2:]
    ink, along = np.zeros((height, width), np.uint8), np.linspace(0, 1, 60)[:, None]
    for _ in range(5):
        start, end = rng.uniform(-0.1, 1.1, (2, 2))
        line = start + (end - start) * along
        for k in (1, 2, 3, 5):
            line = line + rng.normal(0, 0.06 / k, 2) * np.sin(np.pi * k * along + rng.uniform(0, 6))
        cv2.polylines(ink, [np.rint(line * [width, height]).astype(np.int32)], False, 255, 2, cv2.LINE_AA)
    return _blended(image, ink, 0.6)


def markers(image: ByteImage, rng: Rng) -> ByteImage:
    """Draw crosses and circles, as of tie points or stations."""
    height, width = image.shape[-2:]
    ink = np.zeros((height, width), np.uint8)
    for number in range(width * height // 1000):
        x, y = (int(v) for v in rng.integers(5, [width - 5, height - 5]))
        if number % 2:
            cv2.drawMarker(ink, (x, y), 255, cv2.MARKER_CROSS, 9, 1)
        else:
            cv2.circle(ink, (x, y), 4, 255, 1, cv2.LINE_AA)
    return _blended(image, ink, 0.9)


def areas(image: ByteImage, rng: Rng) -> ByteImage:
    """Tint polygons, as a map of classes laid over the image."""
    height, width = image.shape[-2:]
    out = image
    for _ in range(5):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 6))
        corners = rng.uniform(0.15, 0.85, 2) + 0.22 * np.column_stack([np.cos(angles), np.sin(angles)])
        ink = np.zeros((height, width), np.uint8)
        cv2.fillPoly(ink, [np.rint(corners * [width, height]).astype(np.int32)], 255)
        out = _blended(out, ink, 0.4, int(rng.integers(60, 255)))
    return out


def _both(draw: Draw) -> Situation:
    return Situation(draw, draw)


def _untouched(image: ByteImage, rng: Rng) -> ByteImage:
    return image


SITUATIONS: Mapping[str, Situation] = {
    "area of interest": _both(area_of_interest),
    "area of interest, moving only": Situation(area_of_interest, _untouched),
    "area of interest, JPEG": _both(compressed(area_of_interest, 80)),
    "curved area": _both(curved_area),
    "scan gaps": _both(scan_gaps),
    "graticule": _both(graticule),
    "graticule, JPEG": _both(compressed(graticule, 85)),
    "faint graticule": _both(faint_graticule),
    "labels": _both(labels),
    "frame": _both(frame),
    "watermark": _both(watermark),
    "outlines": _both(outlines),
    "markers": _both(markers),
    "areas": _both(areas),
}
"""By name."""


def repeated(moving: ByteImage, reference: ByteImage, rng: Rng) -> tuple[ByteImage, ByteImage, NDArray[np.float64]]:
    """Tile both images with a part of an aligned pair; returns them and the truth (2, 3) between them."""
    side = moving.shape[-1]
    period = int(rng.integers(20, 56))
    y, x = (int(v) for v in rng.integers(0, side - period, 2))
    shift = rng.integers(-side // 8, side // 8 + 1, 2)
    count = 3 * side // period + 2

    def tiled(image: ByteImage, dx: int, dy: int) -> ByteImage:
        tile = image[..., y : y + period, x : x + period]
        whole = np.tile(tile, (*(1,) * (tile.ndim - 2), count, count))
        noise = rng.gamma(8.0, 1 / 8.0, (side, side)) if image.ndim == 2 else rng.normal(1.0, 0.05, (side, side))
        patch = whole[..., side - dy : 2 * side - dy, side - dx : 2 * side - dx] * noise
        return np.clip(patch, 0, 255).astype(np.uint8)

    truth = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])
    return tiled(moving, int(shift[0]), int(shift[1])), tiled(reference, 0, 0), truth


def one_direction(
    moving: ByteImage, reference: ByteImage, rng: Rng
) -> tuple[ByteImage, ByteImage, NDArray[np.float64]]:
    """Stretch both images of an aligned pair along one direction until every row is the same line of ground."""
    side = moving.shape[-1]
    line = int(rng.integers(0, side))
    shift = int(rng.integers(-side // 12, side // 12 + 1))
    along = int(rng.integers(-side // 10, side // 10 + 1))

    def drawn(image: ByteImage, by: int, deviation: float) -> Any:
        row = np.roll(image[..., line, :], by, axis=-1)[..., None, :]
        noise = rng.gamma(1 / deviation**2, deviation**2, (side, side))
        return np.clip(row * noise, 0, 255).astype(np.uint8)

    truth = np.array([[1.0, 0.0, shift], [0.0, 1.0, along]])
    both = drawn(moving, shift, 0.3), drawn(reference, 0, 0.1)
    if rng.random() < 0.5:
        return both[0], both[1], truth
    turned = tuple(np.ascontiguousarray(np.swapaxes(image, -1, -2)) for image in both)
    return turned[0], turned[1], np.array([[1.0, 0.0, along], [0.0, 1.0, shift]])
