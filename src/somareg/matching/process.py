"""A smooth random field with zero mean, seen through noisy measurements (Gaussian process regression).

Used by the local flow of the engine and, inside the network, by GLAM's.
"""

from __future__ import annotations

import torch
from torch import Tensor


def process_mean(
    points: Tensor, values: Tensor, noise: Tensor, length: float, variance: float, where: Tensor
) -> Tensor:
    """Posterior mean of a zero-mean Gaussian process; differentiable, with any leading batch dimensions.

    Args:
        points, values: (..., N, 2) positions and measurements.
        noise: (..., N, N) covariance of the measurements' errors.
        length, variance: of the squared-exponential prior.
        where: (..., M, 2) positions.

    Returns:
        (..., M, 2).
    """
    covariance = variance * kernel(points, points, length) + noise
    mean: Tensor = variance * kernel(where, points, length) @ torch.linalg.solve(covariance, values)
    return mean


def process_variance(points: Tensor, noise: Tensor, length: float, variance: float, where: Tensor) -> Tensor:
    """Posterior variance (..., M) of the same process."""
    cross = variance * kernel(where, points, length)
    covariance = variance * kernel(points, points, length) + noise
    removed: Tensor = (cross * torch.linalg.solve(covariance, cross.mT).mT).sum(-1)
    return (variance - removed).clamp(0.0, variance)


def kernel(a: Tensor, b: Tensor, length: float) -> Tensor:
    """Squared-exponential correlation of points (..., M, 2) and (..., N, 2)."""
    return torch.exp(-0.5 * (torch.cdist(a, b) / length).square())


def overlap_noise(points: Tensor, precision: Tensor, side: float) -> Tensor:
    """Covariance (..., N, N) of the windows' errors from their precisions (..., N) > 0 and common areas.

    Windows share speckle and structure where they overlap, so their errors agree there.
    """
    deviation = precision.rsqrt()
    shared = deviation[..., :, None] * deviation[..., None, :] * kernel(points, points, side / 2)
    return shared + 0.05 * torch.diag_embed(deviation.square())
