"""A robust affine from matches with many outliers: OpenCV's MAGSAC++."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from somareg.matching.affine import fit_affine_batch


def fit_magsac(
    points: Tensor, displacement: Tensor, confidence: Tensor, *, threshold_px: float = 16.0, keep: int = 400
) -> Tensor | None:
    """Affine of the most confident matches by OpenCV's MAGSAC++, seeded; for inference only.

    Args:
        points, displacement: (N, 2) pixels.
        confidence: (N,).
        threshold_px: upper bound of the residual of an inlier.
        keep: number of the most confident matches that take part.

    Returns:
        (2, 3) float64 matrix, or None when the matches support none.
    """
    usable = torch.nonzero(confidence > 0)[:, 0]
    best = usable[confidence[usable].argsort(descending=True)[:keep]].cpu()
    if len(best) < 4:
        return None
    origin = points.cpu()[best].double().numpy()
    found = origin + displacement.detach().cpu()[best].double().numpy()
    parameters = cv2.UsacParams()
    parameters.confidence, parameters.maxIterations, parameters.threshold = 0.999, 2000, threshold_px
    parameters.score, parameters.sampler = cv2.SCORE_METHOD_MAGSAC, cv2.SAMPLING_UNIFORM
    parameters.loMethod, parameters.randomGeneratorState = cv2.LOCAL_OPTIM_SIGMA, 0
    matrix, inliers = cv2.estimateAffine2D(origin, found, parameters)
    if matrix is None or inliers is None or int(inliers.sum()) < 4 or not np.isfinite(matrix).all():
        return None
    chosen = torch.from_numpy(inliers.ravel().astype(bool))
    fit = fit_affine_batch(
        points.cpu()[best][chosen][None],
        displacement.detach().cpu()[best][chosen][None],
        confidence.detach().cpu()[best][chosen][None],
    )  # without stiffness, which would hide that the inliers lie on a line
    return None if bool(fit.refused[0]) else fit.matrix[0]
