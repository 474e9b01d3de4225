"""Local mean and local contrast over the valid pixels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.types import BoolArray

SURROUNDINGS = 8  # the neighbourhood of a pixel is one of this many parts of the image's longer side
FLOOR = 0.3  # share of the typical deviation; calmer places are not stretched further
_COARSE = 4  # standard deviation in pixels of the reduced image on which wide means are computed


def local_mean(image: NDArray[np.float32], mask: BoolArray, sigma: float) -> NDArray[np.float32]:
    """Gaussian mean over the valid pixels around every pixel; the global mean where none is near.

    Args:
        image: (H, W), finite where valid.
        mask: (H, W) valid.
        sigma: of the Gaussian, pixels.
    """
    height, width = image.shape
    factor = max(1, int(sigma / _COARSE))
    size = max(1, width // factor), max(1, height // factor)
    weight = mask.astype(np.float32)
    overall = np.float32(image[mask].mean()) if mask.any() else np.float32(0)
    both: NDArray[Any] = np.stack([np.where(mask, image - overall, 0).astype(np.float32), weight], axis=-1)
    if factor > 1:
        both = np.asarray(cv2.resize(both, size, interpolation=cv2.INTER_AREA))
    both = np.asarray(cv2.GaussianBlur(both, (0, 0), sigma / factor, borderType=cv2.BORDER_CONSTANT))
    mean: NDArray[Any] = both[..., 0] / np.maximum(both[..., 1], 1e-4)
    if factor > 1:
        mean = np.asarray(cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR))
    return np.asarray(mean + overall, np.float32)


def filled(image: NDArray[np.float32], mask: BoolArray, sigma: float) -> NDArray[np.float32]:
    """Replace invalid pixels by the local mean, so that nodata has no edge."""
    return np.asarray(image if mask.all() else np.where(mask, image, local_mean(image, mask, sigma)), np.float32)


def against_surroundings(image: NDArray[np.float32], mask: BoolArray) -> NDArray[np.float32]:
    """Deviation from the local mean in local deviations, clipped to +-3, so that weak contrast counts too.

    Args:
        image: (H, W), finite where valid.
        mask: (H, W) valid.
    """
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    sigma = max(2.0, max(np.ptp(rows), np.ptp(columns)) / SURROUNDINGS) if len(rows) else 2.0
    away = image - local_mean(image, mask, sigma)
    deviation = np.sqrt(np.maximum(local_mean(away * away, mask, sigma), 0))
    typical = float(np.median(deviation[mask])) if len(rows) else 0.0
    scaled = away / np.maximum(deviation + FLOOR * typical, 1e-6)
    return np.asarray(np.clip(scaled, -3.0, 3.0), np.float32)
