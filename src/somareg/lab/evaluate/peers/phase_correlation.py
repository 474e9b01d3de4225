"""One shift from the phase correlation of gradient magnitudes (OpenCV)."""

from __future__ import annotations

import cv2
import numpy as np

from somareg.lab.evaluate.peers.base import ByteImage, Prediction, affine_displacement, gradient_magnitude, grey


class PhaseCorrelation:
    """`cv2.phaseCorrelate` under a Hanning window; the confidence is its response."""

    name = "phase_correlation"

    def __call__(self, moving: ByteImage, reference: ByteImage, *, level: str, seed: int) -> Prediction:
        height, width = moving.shape
        window = cv2.createHanningWindow((width, height), cv2.CV_32F)
        (dx, dy), response = cv2.phaseCorrelate(gradient_magnitude(grey(reference)), gradient_magnitude(moving), window)
        matrix = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]])
        return Prediction(affine_displacement(matrix, moving.shape), confidence=float(response))
