"""Confidence-weighted affine fit in closed form, robust by reweighting, refused when ill-conditioned."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform


def fit_affine(
    points: Tensor, displacement: Tensor, weight: Tensor, *, stiffness: float = 0.0, extent: float | None = None
) -> Tensor:
    """Weighted least-squares affine `points -> points + displacement`; differentiable.

    Args:
        points, displacement: (N, 2) pixels.
        weight: (N,) >= 0.
        stiffness: pull of the linear part towards the identity, in units of the mean weight (0 none); with few or
            ambiguous points it keeps the first fits close to a translation.
        extent: length that makes coordinates dimensionless, pixels; defaults to the spread of the points.

    Returns:
        (2, 3) float64 matrix.

    Raises:
        EstimationError: fewer than three weighted points, or points on a line.
    """
    p, d, w = points.double(), displacement.double(), weight.double()
    total = w.sum()
    if int((w > 0).sum()) < 3 or float(total) <= 0:
        raise EstimationError("too few matches for an affine transform")
    centre = (p * w[:, None]).sum(0) / total
    length = float(extent) if extent else float((p - centre).abs().max().clamp_min(1.0))
    design = torch.cat([(p - centre) / length, torch.ones_like(p[:, :1])], dim=1)
    pull = torch.diag(torch.tensor([stiffness, stiffness, 0.0], dtype=p.dtype, device=p.device)) * total / len(p)
    normal = (design * w[:, None]).T @ design / total + pull / total
    if float(torch.linalg.cond(normal)) > 1e6:
        raise EstimationError("matches lie on a line or in one spot: no affine transform is determined")
    solution = torch.linalg.solve(normal, (design * w[:, None]).T @ d / total).T
    linear = torch.eye(2, dtype=p.dtype, device=p.device) + solution[:, :2] / length
    shift = solution[:, 2] - (linear - torch.eye(2, dtype=p.dtype, device=p.device)) @ centre
    return torch.cat([linear, shift[:, None]], dim=1)


def apply_affine(matrix: Tensor, points: Tensor) -> Tensor:
    """(N, 2) points through a (2, 3) matrix, float64."""
    return points.double() @ matrix[:, :2].T + matrix[:, 2]


def fit_affine_robust(
    points: Tensor, displacement: Tensor, weight: Tensor, *, scale_px: float, stiffness: float = 0.0, rounds: int = 5
) -> tuple[Tensor, Tensor]:
    """Iteratively reweighted fit (Geman-McClure), so that wrong windows fade instead of pulling.

    Args:
        points, displacement, weight, stiffness: see `fit_affine`.
        scale_px: residual at which a match keeps a quarter of its weight.
        rounds: reweightings.

    Returns:
        (2, 3) matrix and the robust factors (N,) in 0-1.
    """
    factor = torch.ones_like(weight)
    matrix = fit_affine(points, displacement, weight, stiffness=stiffness)
    for _ in range(rounds):
        residual = (apply_affine(matrix, points) - points - displacement).square().sum(-1)
        factor = (scale_px**2 / (scale_px**2 + residual)).square().to(weight)
        matrix = fit_affine(points, displacement, weight * factor, stiffness=stiffness)
    return matrix, factor


def to_transform(matrix: Tensor) -> AffineTransform:
    """A fitted matrix as a transform of plane geometry."""
    return AffineTransform(np.asarray(matrix.detach().cpu().numpy(), dtype=np.float64))
