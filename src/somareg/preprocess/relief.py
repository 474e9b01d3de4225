"""Heights as bands that resemble what a camera or a radar sees of them.

An image shows no height. In towns it shows steps of height, in hills the shading of slopes: under any sun a
mixture of the slopes towards east and towards north. The matcher gets all of them as bands.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.preprocess.local import filled
from somareg.types import BoolArray

BANDS = 4  # bands per band of heights
SIGMA = 0.7  # of the smoothing before slopes are taken, pixels
STEEP = 1.5  # a steep slope, in root mean squares of all slopes


def relief(heights: NDArray[np.float32], mask: BoolArray) -> NDArray[np.float32]:
    """Height, slope, and slope towards east and north; the unit of heights does not matter.

    Args:
        heights: (H, W), finite where valid.
        mask: (H, W) valid, somewhere.

    Returns:
        (4, H, W): the heights; slopes in 0-1, where 0.7 is a steep one of this image; slopes along the rows and along
        the columns in -1..1. Pixels at an edge take the slope of their neighbours.
    """
    whole = filled(heights - heights[mask].mean(), mask, 3.0)
    smooth = cv2.GaussianBlur(whole, (0, 0), SIGMA)
    away = [
        np.asarray(cv2.Sobel(smooth, cv2.CV_32F, *along, ksize=3, scale=1 / 8), np.float32)
        for along in ((1, 0), (0, 1))
    ]
    inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0).astype(bool)
    east, north = (filled(slope, inner, 2.0) for slope in away) if inner.any() else away
    slope = np.hypot(east, north)
    steep = STEEP * float(np.sqrt(np.square(slope[mask], dtype=np.float64).mean()))
    bound = np.sqrt(slope * slope + np.float32(max(steep, 1e-9) ** 2))
    return np.stack([whole, slope / bound, east / bound, north / bound])
