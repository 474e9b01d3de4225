"""What every method of the benchmark is: a call from two arrays to a prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.types import FloatArray

ByteImage = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a method says about one pair.

    Attributes:
        displacement: (2, H, W) float32 pixels on the reference grid (dx, dy), `moving_xy = reference_xy + (dx, dy)`;
            None when the method gave up.
        confidence: any score that grows with trust, for the failure flag's AUROC; None if the method has none.
        decision: "go", "review", "no-go", or None.
        predicted_rmse: the method's own estimate of its error in pixels, or None.
    """

    displacement: NDArray[np.float32] | None
    confidence: float | None = None
    decision: str | None = None
    predicted_rmse: float | None = None


class Method(Protocol):
    """A registration method under test.

    One that is somareg also has `preset`, and with learned weights `parameters`, their number, and `weights`, the
    SHA-256 of their file.
    """

    name: str

    def __call__(self, moving: ByteImage, reference: ByteImage, *, level: str, seed: int) -> Prediction:
        """Register one pair.

        Args:
            moving: (H, W) uint8 SAR.
            reference: (3, H, W) uint8 optical, RGB, the same size.
            level: key of the protocol's levels; a method may take from it how far to search.
            seed: makes random choices repeatable.
        """
        ...


def affine_displacement(matrix: FloatArray, shape: tuple[int, int]) -> NDArray[np.float32]:
    """(2, H, W) displacement of a (2, 3) affine that maps reference to moving pixel centres."""
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    x = matrix[0, 0] * cols + matrix[0, 1] * rows + matrix[0, 2]
    y = matrix[1, 0] * cols + matrix[1, 1] * rows + matrix[1, 2]
    return np.stack([x - cols, y - rows]).astype(np.float32)


def grey(reference: ByteImage) -> ByteImage:
    """(H, W) luminance of a (3, H, W) RGB image."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(reference.transpose(1, 2, 0)), cv2.COLOR_RGB2GRAY), np.uint8)


def gradient_magnitude(image: ByteImage) -> NDArray[np.float32]:
    """(H, W) float32 gradient magnitude after a light Gaussian, scaled to 0-1."""
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.5)
    dx = np.asarray(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), np.float32)
    dy = np.asarray(cv2.Sobel(smooth, cv2.CV_32F, 0, 1), np.float32)
    magnitude = np.sqrt(dx * dx + dy * dy)  # cv2.magnitude rounds by memory alignment, which no rerun repeats
    top = float(np.percentile(magnitude, 99.5))
    scaled: NDArray[np.float32] = np.clip(magnitude / max(top, 1e-6), 0.0, 1.0).astype(np.float32)
    return scaled
