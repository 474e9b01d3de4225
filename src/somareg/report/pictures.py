"""Pictures as data URIs, small enough to embed."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

PNG_LIMIT = 300_000
"""Bytes up to which a preview stays lossless."""
JPEG_LIMIT = 900_000
"""Bytes above which a JPEG is reduced, first in quality, then in pixels."""

_BACKDROP_PX, _BACKDROP_QUALITY, _DIMMED = 800, 78, 0.62


@dataclass(frozen=True, slots=True)
class Picture:
    """An embedded picture and its size in pixels."""

    uri: str
    width: int
    height: int


def data_uri(content: bytes, kind: str) -> str:
    """`data:image/<kind>;base64,...`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def embed_preview(image: NDArray[np.uint8]) -> Picture:
    """A preview as PNG when that is small, else as JPEG of at most `JPEG_LIMIT` bytes.

    Args:
        image: (h, w) or (h, w, 3) RGB uint8.
    """
    pixels = np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image)
    # A PNG of speckle is as large as its pixels, so it is not tried for large images.
    if pixels.nbytes <= 4 * PNG_LIMIT:
        lossless = _encode(pixels, ".png")
        if len(lossless) <= PNG_LIMIT:
            return Picture(data_uri(lossless, "png"), pixels.shape[1], pixels.shape[0])
    return _small_jpeg(pixels)


def png_uri(image: NDArray[np.uint8]) -> str:
    """An image (h, w), (h, w, 3) RGB or (h, w, 4) RGB with alpha as a PNG."""
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}
    pixels = image if image.ndim == 2 else image[..., order[image.shape[2]]]
    return data_uri(_encode(np.ascontiguousarray(pixels), ".png"), "png")


def jpeg_uri(image: NDArray[np.uint8], quality: int) -> str:
    """An image (h, w) or (h, w, 3) RGB as a JPEG of a quality of 1-100."""
    pixels = np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image)
    return data_uri(_encode(pixels, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality]), "jpeg")


def grey_backdrop(image: NDArray[np.uint8]) -> str:
    """A picture (h, w) or (h, w, 3) RGB in dimmed grey, as a small JPEG for a background."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    return jpeg_uri(np.asarray(_DIMMED * reduced(np.asarray(grey), _BACKDROP_PX), np.uint8), _BACKDROP_QUALITY)


def reduced(image: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """Reduce a picture by averaging until its longer side is at most `longest` pixels."""
    rows, columns = image.shape[:2]
    share = min(1.0, longest / max(rows, columns))
    if share == 1.0:
        return image
    size = max(1, round(columns * share)), max(1, round(rows * share))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _small_jpeg(pixels: NDArray[np.uint8]) -> Picture:
    while True:
        for quality in (90, 82, 74):
            content = _encode(pixels, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])
            if len(content) <= JPEG_LIMIT:
                return Picture(data_uri(content, "jpeg"), pixels.shape[1], pixels.shape[0])
        size = (max(1, pixels.shape[1] * 3 // 4), max(1, pixels.shape[0] * 3 // 4))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _encode(pixels: NDArray[np.uint8], extension: str, options: list[int] | None = None) -> bytes:
    done, content = cv2.imencode(extension, pixels, options or [])
    if not done:
        raise ValueError(f"cannot encode a {pixels.shape} {pixels.dtype} preview as {extension}")
    buffer: Any = content
    return bytes(buffer.tobytes())
