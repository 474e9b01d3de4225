"""Edges of a picture, whatever the sign of its contrast: of close-ups, and the slopes that the viewer thins itself."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.types import BoolArray, Modality

EDGE = (255, 61, 139)
"""Colour of edges: told apart from vegetation, soil, water and grey, also by colour-blind readers."""

_SMOOTH_PX: dict[Modality, float] = {"sar": 2.0}  # against speckle
_SMOOTH_OTHER_PX = 1.2
_STRONG, _WEAK = 0.92, 0.84  # quantiles of the gradient at which edges begin, and go on


def smoothing_of(modality: Modality) -> float:
    """Standard deviation of the Gaussian that goes before, pixels of the picture."""
    return _SMOOTH_PX.get(modality, _SMOOTH_OTHER_PX)


def slopes(
    picture: NDArray[np.uint8], mask: BoolArray, smooth_px: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], BoolArray]:
    """How a smoothed picture changes to the right and down, (h, w) each, and where that tells of the ground.

    Args:
        picture: (h, w) or (h, w, 3), any image.
        mask: (h, w) True where it shows something; its rim is no edge.
        smooth_px: standard deviation of the Gaussian that goes before.
    """
    grey = picture.mean(axis=2) if picture.ndim == 3 else picture
    weight = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), smooth_px)
    smooth = cv2.GaussianBlur(np.where(mask, grey, 0).astype(np.float32), (0, 0), smooth_px)
    smooth = np.where(weight > 0.05, smooth / np.maximum(weight, 0.05), 0).astype(np.float32)
    dx, dy = (cv2.Sobel(smooth, cv2.CV_32F, *axis, ksize=3).astype(np.float32) for axis in ((1, 0), (0, 1)))
    return dx, dy, np.asarray(weight > 0.98)


def edges(picture: NDArray[np.uint8], mask: BoolArray, smooth_px: float) -> BoolArray:
    """Lines (h, w), one pixel wide, where a picture (h, w) or (h, w, 3) changes most.

    Args:
        picture, mask, smooth_px: see `slopes`.
    """
    dx, dy, inside = slopes(picture, mask, smooth_px)
    size = np.hypot(dx, dy)[inside]
    strong, weak = np.quantile(size, (_STRONG, _WEAK)) if size.size else (0.0, 0.0)
    if strong < 1e-3:
        return np.zeros(mask.shape, bool)
    unit = 1000.0 / strong  # whole numbers, fine enough
    whole = [np.clip(unit * slope, -30000, 30000).astype(np.int16) for slope in (dx, dy)]
    found = cv2.Canny(whole[0], whole[1], unit * float(weak), 1000.0, L2gradient=True)
    return np.asarray((found > 0) & inside)
