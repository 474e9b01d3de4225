"""The interface of a method: a call from two arrays to a prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.lab.evaluate.metrics import true_displacement
from somareg.types import BoolArray, FloatArray, Modality

ByteImage = NDArray[np.uint8]

_REACH_PX = 7  # radius of the light Gaussian, 6, and of the derivative


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The output of a method for one pair.

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


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Information for every method beside the pixels.

    Attributes:
        moving_modality, reference_modality: of the images.
        moving_mask, reference_mask: (H, W) bool, False where the pair declares no data; None: data everywhere.
    """

    moving_modality: Modality
    reference_modality: Modality
    moving_mask: BoolArray | None = None
    reference_mask: BoolArray | None = None


SAR_OPTICAL = Known("sar", "optical")


class Method(Protocol):
    """A registration method under test.

    somareg's own methods also have `preset`, and with learned weights `parameters`, their number, and `weights`, the
    SHA-256 of their file. A method from a function has `function`, the place of its import.
    """

    name: str

    def __call__(
        self, moving: ByteImage, reference: ByteImage, *, level: str, seed: int, known: Known = SAR_OPTICAL
    ) -> Prediction:
        """Register one pair.

        Args:
            moving: (H, W) or (3, H, W) uint8; a sample that was cut has (S, S) SAR.
            reference: the same, maybe of another size; a sample that was cut has (3, S, S) optical, RGB.
            level: name of the protocol's level; a method may derive its search range from it.
            seed: makes random choices repeatable.
            known: modalities and declared no-data.
        """
        ...


def affine_displacement(matrix: FloatArray, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """(2, H, W) displacement of a (2, 3) affine, reference to moving pixel centres, on a reference (..., H, W)."""
    return true_displacement(matrix, (shape[-2], shape[-1])).astype(np.float32)


def grey(image: ByteImage) -> ByteImage:
    """(H, W) luminance of a (3, H, W) RGB image; an image (H, W) as it is."""
    if image.ndim == 2:
        return image
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image.transpose(1, 2, 0)), cv2.COLOR_RGB2GRAY), np.uint8)


def gradient_magnitude(image: ByteImage, mask: BoolArray | None = None) -> NDArray[np.float32]:
    """(H, W) float32 gradient magnitude after a light Gaussian, scaled to 0-1; 0 where the Gaussian meets no data."""
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.5)
    dx = np.asarray(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), np.float32)
    dy = np.asarray(cv2.Sobel(smooth, cv2.CV_32F, 0, 1), np.float32)
    magnitude = np.sqrt(dx * dx + dy * dy)  # cv2.magnitude rounds by memory alignment, which is not reproducible
    if mask is not None:
        magnitude[~well_inside(mask)] = 0.0
    top = float(np.percentile(magnitude, 99.5))
    scaled: NDArray[np.float32] = np.clip(magnitude / max(top, 1e-6), 0.0, 1.0).astype(np.float32)
    return scaled


def well_inside(mask: BoolArray) -> BoolArray:
    """`mask` without pixels whose gradient would touch nodata; the array's edge counts as data."""
    kernel = np.ones((2 * _REACH_PX + 1, 2 * _REACH_PX + 1), np.uint8)
    inside: BoolArray = cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_REPLICATE).astype(bool)
    return inside
