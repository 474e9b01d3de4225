"""A smooth random field with zero mean, seen through noisy measurements (Gaussian process regression).

Used by the engine's local flow, by that of given points, and by GLAM's inside the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from somareg.geometry import FieldTransform
from somareg.matching.linear import cholesky, solve, solve_by


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """A fitted process, float64; a variance of 0 means no displacement.

    Attributes:
        points, values: (N, 2) positions and displacements, pixels.
        noise: (N, N) covariance of the values' errors.
        length: correlation length, pixels.
        variance: of the displacement.
    """

    points: Tensor
    values: Tensor
    noise: Tensor
    length: float
    variance: float

    def predict(self, where: Tensor) -> Tensor:
        """Posterior mean (M, 2) at points (M, 2)."""
        if self.variance == 0:
            return torch.zeros_like(where)
        return process_mean(self.points, self.values, self.noise, self.length, self.variance, where)

    def uncertainty(self, where: Tensor, variance: float) -> Tensor:
        """Posterior variance (M,) at points (M, 2) of a displacement of the given prior variance."""
        if variance == 0:
            return where.new_zeros(len(where))
        return process_variance(self.points, self.noise, self.length, variance, where)


def profiled_likelihood(covariance: Tensor, values: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Marginal log likelihood, up to a constant, of values whose covariance is known up to a factor.

    Both axes share size, smoothness and noise; the factor is set to its most likely value (profiled out).

    Args:
        covariance: (..., N, N), signal and noise in units of the factor.
        values: (..., N, 2).
        floor: smallest plausible factor.

    Returns:
        (...) log likelihoods, minus infinity where the matrix is not a covariance, and (...) factors.
    """
    root, refused = cholesky(covariance)
    count = values.shape[-2] * values.shape[-1]
    factor = ((values * solve_by(root, values)).sum((-2, -1)) / count).clamp_min(floor)
    log_det = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    hopeless = refused | ~torch.isfinite(values).all(-1).all(-1)
    return torch.where(hopeless, -torch.inf, -0.5 * count * factor.log() - log_det), factor


def lattice(shape: tuple[int, int], step: float) -> tuple[FieldTransform, Tensor]:
    """A field of zeros over an image (height, width) with nodes every `step` pixels, and its nodes (M, 2)."""
    columns, rows = (math.ceil((side - 1) / step) + 1 for side in reversed(shape))
    y, x = torch.meshgrid(torch.arange(rows).double() * step, torch.arange(columns).double() * step, indexing="ij")
    field = FieldTransform(np.zeros((2, rows, columns)), (0.0, 0.0), (step, step))
    return field, torch.stack([x.flatten(), y.flatten()], dim=-1)


def process_mean(
    points: Tensor, values: Tensor, noise: Tensor, length: float | Tensor, variance: float, where: Tensor
) -> Tensor:
    """Posterior mean of a zero-mean Gaussian process; differentiable, with any leading batch dimensions.

    Args:
        points, values: (..., N, 2) positions and measurements.
        noise: (..., N, N) covariance of the measurements' errors.
        length, variance: of the squared-exponential prior; one length per batch member has shape (..., 1, 1).
        where: (..., M, 2) positions.

    Returns:
        (..., M, 2).
    """
    covariance = variance * kernel(points, points, length) + noise
    mean: Tensor = variance * kernel(where, points, length) @ solve(covariance, values)
    return mean


def process_variance(points: Tensor, noise: Tensor, length: float | Tensor, variance: float, where: Tensor) -> Tensor:
    """Posterior variance (..., M) of the same process."""
    root, refused = cholesky(variance * kernel(points, points, length) + noise)
    left = left_variance(variance * kernel(where, points, length), root, variance)
    return torch.where(refused[..., None], torch.nan, left)


def left_variance(cross: Tensor, root: Tensor, variance: float) -> Tensor:
    """(..., M) variance that is left after measurements.

    Args:
        cross: (..., M, N) covariance between the queried and the measured points.
        root: (..., N, N) lower Cholesky factor of the measurements' covariance.
        variance: before the measurements.
    """
    removed: Tensor = torch.linalg.solve_triangular(root, cross.mT, upper=False).square().sum(-2)
    return (variance - removed).clamp(0.0, variance)


def kernel(a: Tensor, b: Tensor, length: float | Tensor) -> Tensor:
    """Squared-exponential correlation of points (..., M, 2) and (..., N, 2)."""
    a, b = a / length, b / length
    squared = a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :] - 2.0 * a @ b.mT
    return torch.exp(-0.5 * squared.clamp_min(0.0))
