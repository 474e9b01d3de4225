"""SIFT key points, ratio test, affine by MAGSAC++ (OpenCV)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.lab.evaluate.peers.base import (
    SAR_OPTICAL,
    ByteImage,
    Known,
    Prediction,
    affine_displacement,
    grey,
    well_inside,
)
from somareg.types import BoolArray

_RATIO = 0.9  # SAR against optical leaves few clear matches; a strict ratio leaves none
_REPROJECTION_PX = 3.0


class Sift:
    """The classical matcher; the confidence is the number of inliers."""

    name = "sift"

    def __call__(
        self, moving: ByteImage, reference: ByteImage, *, level: str, seed: int, known: Known = SAR_OPTICAL
    ) -> Prediction:
        sift = cv2.SIFT.create(contrastThreshold=0.01)
        points_r, words_r = sift.detectAndCompute(grey(reference), _where(known.reference_mask))
        points_m, words_m = sift.detectAndCompute(grey(moving), _where(known.moving_mask))
        if words_r is None or words_m is None or len(words_m) < 2:
            return Prediction(None, confidence=0.0)
        pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(words_r, words_m, k=2)
        matches = [two[0] for two in pairs if len(two) == 2 and two[0].distance < _RATIO * two[1].distance]
        if len(matches) < 3:
            return Prediction(None, confidence=0.0)
        from_xy = np.array([points_r[match.queryIdx].pt for match in matches])
        to_xy = np.array([points_m[match.trainIdx].pt for match in matches])
        cv2.setRNGSeed(seed)
        matrix, inliers = cv2.estimateAffine2D(
            from_xy, to_xy, method=cv2.USAC_MAGSAC, ransacReprojThreshold=_REPROJECTION_PX, maxIters=10000
        )
        if matrix is None or not np.isfinite(matrix).all():
            return Prediction(None, confidence=0.0)
        return Prediction(
            affine_displacement(np.asarray(matrix, float), reference.shape), confidence=float(inliers.sum())
        )


def _where(mask: BoolArray | None) -> NDArray[np.uint8] | None:
    """Mask of key points for OpenCV; beside nodata they would describe its edge."""
    return None if mask is None else well_inside(mask).astype(np.uint8)
