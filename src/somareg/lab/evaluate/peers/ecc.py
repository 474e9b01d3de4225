"""Enhanced correlation coefficient on gradient magnitude, affine (OpenCV)."""

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
    gradient_magnitude,
    grey,
    well_inside,
)

_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 300, 1e-6)
_SMOOTHING_PX = 5
_HALVE_FROM_PX = 256  # below this size coarser levels diverge more often than they help


class Ecc:
    """`cv2.findTransformECC` from identity, coarse to fine; the confidence is the correlation reached.

    Images of 256 px and more go through a pyramid, which widens the capture range. A level that does not converge
    leaves the estimate unchanged; the pair fails when no level converges.
    """

    name = "ecc"

    def __call__(
        self, moving: ByteImage, reference: ByteImage, *, level: str, seed: int, known: Known = SAR_OPTICAL
    ) -> Prediction:
        pyramid = [
            (
                gradient_magnitude(grey(reference), known.reference_mask),
                gradient_magnitude(grey(moving), known.moving_mask),
            )
        ]
        while min(*pyramid[-1][0].shape, *pyramid[-1][1].shape) >= _HALVE_FROM_PX:
            template, image = pyramid[-1]
            pyramid.append((_half(template), _half(image)))
        mask = np.ones(pyramid[0][1].shape, bool) if known.moving_mask is None else well_inside(known.moving_mask)
        matrix, score = np.eye(2, 3), None
        for depth, (template, image) in reversed(list(enumerate(pyramid))):
            start = matrix.astype(np.float32)
            start[:, 2] /= 2**depth  # pixel centre p of level 0 is p / 2**depth: pyrDown keeps the even pixels
            where = np.ascontiguousarray(255 * mask[:: 2**depth, :: 2**depth].astype(np.uint8))
            try:
                score, warp = cv2.findTransformECC(
                    template, image, start, cv2.MOTION_AFFINE, _STOP, where, _SMOOTHING_PX
                )
            except cv2.error:  # "the algorithm stopped before its convergence"
                continue
            matrix = np.array(warp, float)
            matrix[:, 2] *= 2**depth
        if score is None:
            return Prediction(None, confidence=0.0)
        return Prediction(affine_displacement(matrix, reference.shape), confidence=float(score))


def _half(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.pyrDown(image), np.float32)
