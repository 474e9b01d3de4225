"""Mattes mutual information, affine, three levels (SimpleITK; extra `bench`)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.errors import UnsupportedError
from somareg.lab.evaluate.peers.base import SAR_OPTICAL, ByteImage, Known, Prediction, affine_displacement, grey
from somareg.types import Modality


def _import_sitk() -> Any:
    try:
        import SimpleITK
    except ImportError:
        raise UnsupportedError("method 'mattes_mi' needs SimpleITK; pip install 'somareg[bench]'") from None
    return SimpleITK


class MattesMi:
    """Multi-resolution gradient descent on mutual information, on one thread; the confidence is the information.

    Raises:
        UnsupportedError: SimpleITK is not installed.
    """

    name = "mattes_mi"

    def __init__(self) -> None:
        self._sitk = _import_sitk()

    def __call__(
        self, moving: ByteImage, reference: ByteImage, *, level: str, seed: int, known: Known = SAR_OPTICAL
    ) -> Prediction:
        sitk = self._sitk
        height, width = reference.shape[-2:]
        transform = sitk.AffineTransform(2)
        transform.SetCenter(((width - 1) / 2, (height - 1) / 2))
        # one thread is reproducible: the order of sums over threads varies, and the search amplifies that to a pixel
        threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        method = self._configured(transform, seed)
        for mask, tell in (
            (known.reference_mask, method.SetMetricFixedMask),
            (known.moving_mask, method.SetMetricMovingMask),
        ):
            if mask is not None:
                tell(sitk.GetImageFromArray(mask.astype(np.uint8)))
        fixed = _calm(grey(reference), known.reference_modality)
        image = _calm(grey(moving), known.moving_modality)
        try:
            found = method.Execute(sitk.GetImageFromArray(fixed), sitk.GetImageFromArray(image))
        except RuntimeError:  # no sample is inside the moving image
            return Prediction(None, confidence=0.0)
        finally:
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
        matrix = _matrix(found)
        if not np.isfinite(matrix).all():
            return Prediction(None, confidence=0.0)
        return Prediction(affine_displacement(matrix, reference.shape), confidence=-float(method.GetMetricValue()))

    def _configured(self, transform: Any, seed: int) -> Any:
        sitk = self._sitk
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(32)
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(0.5, seed + 1)  # 0 would seed from the clock
        method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 300)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel([4, 2, 1])
        method.SetSmoothingSigmasPerLevel([3, 1.5, 0])
        method.SetInitialTransform(transform, inPlace=True)
        method.SetInterpolator(sitk.sitkLinear)
        return method


def _calm(image: ByteImage, modality: Modality) -> NDArray[np.float32]:
    """Prepare an image for the histogram; speckle would flatten it, so SAR gets a logarithm and a light Gaussian."""
    values = image.astype(np.float32)
    if modality != "sar":
        return values
    return np.asarray(cv2.GaussianBlur(np.log1p(values), (0, 0), 1.0), np.float32)


def _matrix(transform: Any) -> NDArray[np.float64]:
    """(2, 3) matrix of any SimpleITK affine, from the images of three points."""
    origin, right, down = (np.array(transform.TransformPoint(point)) for point in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)))
    return np.column_stack([right - origin, down - origin, origin])
