"""One shift from the phase correlation of gradient magnitudes (OpenCV)."""

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
)


class PhaseCorrelation:
    """`cv2.phaseCorrelate` under a Hanning window; the confidence is its response."""

    name = "phase_correlation"

    def __call__(
        self, moving: ByteImage, reference: ByteImage, *, level: str, seed: int, known: Known = SAR_OPTICAL
    ) -> Prediction:
        fixed = gradient_magnitude(grey(reference), known.reference_mask)
        gradient = gradient_magnitude(grey(moving), known.moving_mask)
        height, width = np.maximum(fixed.shape, gradient.shape)
        window = cv2.createHanningWindow((int(width), int(height)), cv2.CV_32F)
        (dx, dy), response = cv2.phaseCorrelate(_filled(fixed, height, width), _filled(gradient, height, width), window)
        matrix = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]])
        return Prediction(affine_displacement(matrix, reference.shape), confidence=float(response))


def _filled(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """`image` with zeros to the right and below."""
    return np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1])))
