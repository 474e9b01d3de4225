"""Confidence-weighted affine fit in closed form, robust by reweighting, refused when ill-conditioned."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform
from somareg.matching.linear import condition_number, solve

Shape = tuple[float, float]
"""Aspect and shear of a map; see `departure`."""
NO_SHAPE: Shape = (0.0, 0.0)

MAX_CONDITION = 1e6
MIN_AREA = 1e-6  # determinant below which a map counts as singular


@dataclass(frozen=True, eq=False)
class AffineFit:
    """Fitted affines of a batch.

    Attributes:
        matrix: (B, 2, 3) float64, the identity where refused.
        condition: (B,) condition number of the normal matrix, see `condition_number`.
        refused: (B,) bool: fewer than three weighted points, points on a line or in one spot, or not finite.
    """

    matrix: Tensor
    condition: Tensor
    refused: Tensor


# The two linear maps that change shape: stretching x against y, and shear. Each is the rows (x, y, 1) of both axes.
_NO_SIMILARITY = ((1.0, 0.0, 0.0, 0.0, -1.0, 0.0), (0.0, 1.0, 0.0, 1.0, 0.0, 0.0))


@dataclass(frozen=True)
class ShapePrior:
    """Prior that the whole map is nearly a similarity.

    Two products of one place are rotated and scaled against each other, but hardly sheared.

    Attributes:
        strength: pull of aspect and shear towards zero, in units of the mean weight; a number or (B,).
        known: (aspect, shear) of the map that is applied after the residual, see `departure`; numbers or (B,).
    """

    strength: float | Tensor
    known: Shape | tuple[Tensor, Tensor] = NO_SHAPE


def departure(transform: AffineTransform) -> Shape:
    """Departure of a map A from the nearest similarity S: (E_xx - E_yy, E_xy + E_yx) with `E = S^-1 A - 1`.

    A mirroring map is compared with mirroring similarities.
    """
    aspect, shear = departures(torch.tensor(transform.matrix))
    return float(aspect), float(shear)


def departures(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """`departure` of maps (..., 2, 3): aspect and shear, (...) each."""
    a, b, c, d = (matrix[..., i, j] for i in (0, 1) for j in (0, 1))
    side = torch.where(a * d >= b * c, 1.0, -1.0).to(matrix)
    x, y = (a + side * d) / 2, (b - side * c) / 2  # S is [[x, y], [-side y, side x]]
    square = (x.square() + y.square()).clamp_min(1e-30)
    aspect = (x * a - side * y * c - y * b - side * x * d) / square
    shear = (x * b - side * y * d + y * a + side * x * c) / square
    return aspect, shear


def fit_affine_batch(
    points: Tensor,
    displacement: Tensor,
    weight: Tensor,
    *,
    stiffness: float | Tensor = 0.0,
    extent: float | None = None,
    shape: ShapePrior | None = None,
) -> AffineFit:
    """Weighted least-squares affines `points -> points + displacement` in closed form, in float64; differentiable.

    Args:
        points, displacement: (B, N, 2) pixels.
        weight: (B, N) >= 0, or (B, N, 2, 2) precision matrices: a match is precise across an edge, not along it.
        stiffness: pull of the linear part towards the identity, in units of the mean weight (0: no pull). With few or
            ambiguous points it keeps the first fits close to a translation. A number or (B,).
        extent: length by which coordinates are divided, pixels; defaults to the spread of each sample's points.
        shape: prior on shear and aspect.
    """
    if points.shape[1] == 0:
        still = torch.eye(2, 3, dtype=torch.float64, device=points.device).expand(len(points), 2, 3)
        nothing = torch.full((len(points),), torch.inf, dtype=torch.float64, device=points.device)
        return AffineFit(still, nothing, torch.ones(len(points), dtype=torch.bool, device=points.device))
    p, d, precision = points.double(), displacement.double(), weight.double()
    isotropic = weight.ndim == 2
    w = precision if isotropic else precision.diagonal(dim1=-2, dim2=-1).mean(-1)
    total = w.sum(-1)
    too_few = ((w > 0).sum(-1) < 3) | ~(total > 0)
    total = total.clamp_min(1e-12)
    centre = (p * (w / total[:, None])[..., None]).sum(1, keepdim=True)
    spread = (p - centre).detach().abs().amax((1, 2), keepdim=True).clamp_min(1.0)
    length = torch.full_like(spread, extent) if extent else spread
    design = torch.cat([(p - centre) / length, torch.ones_like(p[..., :1])], dim=-1)
    linear_part = torch.tensor([1.0, 1.0, 0.0], dtype=p.dtype, device=p.device)
    stiff = torch.as_tensor(stiffness, dtype=p.dtype, device=p.device).reshape(-1, 1, 1)
    pull = stiff * torch.diag(linear_part) / p.shape[1]
    identity = torch.eye(2, dtype=p.dtype, device=p.device)
    by_axis = isotropic and shape is None
    if by_axis:
        weighted = design * (w / total[:, None])[..., None]
        normal, right = weighted.mT @ design + pull, weighted.mT @ d
    else:
        share = (w[..., None, None] * identity if isotropic else precision) / total[:, None, None, None]
        normal, right = _joint_normal(design, d, share, pull, length, shape)
    unit = torch.eye(normal.shape[-1], dtype=p.dtype, device=p.device)
    hopeless = too_few | ~torch.isfinite(torch.cat([normal, right], dim=-1)).all(-1).all(-1)
    condition = condition_number(torch.where(hopeless[:, None, None], unit, normal).detach())
    refused = hopeless | ~(condition <= MAX_CONDITION)
    solution = solve(torch.where(refused[:, None, None], unit, normal), right)
    rows = solution.mT if by_axis else solution.reshape(-1, 2, 3)
    linear = identity + rows[..., :2] / length
    shift = rows[..., 2:] - (linear - identity) @ centre.mT
    still = torch.eye(2, 3, dtype=p.dtype, device=p.device)
    matrix = torch.where(refused[:, None, None], still, torch.cat([linear, shift], dim=-1))
    return AffineFit(matrix, torch.where(hopeless, torch.inf, condition), refused)


def _joint_normal(
    design: Tensor, d: Tensor, share: Tensor, pull: Tensor, length: Tensor, shape: ShapePrior | None
) -> tuple[Tensor, Tensor]:
    """Normal matrix (B, 6, 6) and right side (B, 6, 1) of both axes at once, unknowns (x row, y row).

    Args:
        design: (B, N, 3) rows of dimensionless (x, y, 1).
        d: (B, N, 2) displacement.
        share: (B, N, 2, 2) precisions, divided by their sum.
        pull: (B or 1, 3, 3) towards the identity, added for each axis.
        length: (B, 1, 1) by which the coordinates were divided.
        shape: see `fit_affine_batch`.
    """
    # The sum of precision (x) design design'.
    normal = torch.einsum("bnij,bnk,bnl->bikjl", share, design, design).reshape(-1, 6, 6)
    both = torch.eye(2, dtype=d.dtype, device=d.device)
    normal = normal + torch.einsum("ij,bkl->bikjl", both, pull).reshape(-1, 6, 6)
    right = torch.einsum("bnij,bnk,bnj->bik", share, design, d).reshape(-1, 6, 1)
    if shape is not None:
        strength, *known = (
            torch.as_tensor(x, dtype=d.dtype, device=d.device).reshape(-1, 1, 1) for x in (shape.strength, *shape.known)
        )
        strength = strength / d.shape[1]
        for direction, bent in zip(_NO_SIMILARITY, known, strict=True):
            v = torch.tensor(direction, dtype=d.dtype, device=d.device)
            normal = normal + strength * torch.outer(v, v)
            right = right - strength * bent * length * v[:, None]
    return normal, right


def fit_affine(
    points: Tensor,
    displacement: Tensor,
    weight: Tensor,
    *,
    stiffness: float = 0.0,
    extent: float | None = None,
    shape: ShapePrior | None = None,
    what: str = "matches",
) -> Tensor:
    """`fit_affine_batch` for one pair: (N, 2), (N, 2) and (N,) -> (2, 3) float64 matrix.

    Raises:
        EstimationError: fewer than three weighted points, or points on a line; the message calls them `what`.
    """
    fit = fit_affine_batch(
        points[None], displacement[None], weight[None], stiffness=stiffness, extent=extent, shape=shape
    )
    if bool(fit.refused[0]):
        raise refusal(weight, what)
    return fit.matrix[0]


def refusal(weight: Tensor, what: str = "matches") -> EstimationError:
    """The error for a fit that was refused: too few points (N,) with weight, or points on a line."""
    if int((weight > 0).sum()) < 3:
        return EstimationError(f"too few {what} for an affine transform")
    return EstimationError(f"{what} lie on a line or in one spot: no affine transform is determined")


def apply_affine_batch(matrix: Tensor, points: Tensor) -> Tensor:
    """Apply affine maps to points, in the maps' dtype.

    Args:
        matrix: (..., 2, 3).
        points: (..., *any, 2), the leading dimensions those of the maps or 1: (B, 2, 3) takes (B, N, 2), (1, N, 2) and
            (B, h, w, 2), a single (2, 3) takes (N, 2).
    """
    batch = matrix.ndim - 2
    flat = points.to(matrix).reshape(*points.shape[:batch], -1, 2)
    mapped = flat @ matrix[..., :2].mT + matrix[..., None, :, 2]
    return mapped.reshape(*mapped.shape[:batch], *points.shape[batch:])


def compose_batch(outer: Tensor, inner: Tensor) -> Tensor:
    """(..., 2, 3) maps `xy -> outer(inner(xy))`."""
    linear = outer[..., :2] @ inner[..., :2]
    return torch.cat([linear, outer[..., :2] @ inner[..., 2:] + outer[..., 2:]], dim=-1)


def invert_batch(matrix: Tensor) -> Tensor:
    """Inverse of affine maps (..., 2, 3); huge but finite for a singular one, so that it does not stop training."""
    (a, b), (c, d) = matrix[..., 0, :2].unbind(-1), matrix[..., 1, :2].unbind(-1)
    determinant = a * d - b * c
    determinant = torch.where(determinant.abs() < MIN_AREA, MIN_AREA, determinant)
    adjugate = torch.stack([torch.stack([d, -b], dim=-1), torch.stack([-c, a], dim=-1)], dim=-2)
    linear = adjugate / determinant[..., None, None]
    return torch.cat([linear, -linear @ matrix[..., 2:]], dim=-1)


def fade(squared: Tensor, scale_squared: Tensor | float) -> Tensor:
    """Robust factor of Geman and McClure: 1 for a zero residual, 1/4 at the scale."""
    return (scale_squared / (scale_squared + squared)).square()


def fit_affine_irls(
    points: Tensor, displacement: Tensor, weight: Tensor, *, scale_px: float, stiffness: float = 0.0, rounds: int = 5
) -> tuple[AffineFit, Tensor]:
    """Iteratively reweighted fits (Geman-McClure), which reduce the weight of wrong matches; differentiable.

    The scale shrinks from the residuals of the plain fit to `scale_px` (graduated non-convexity). With many wrong
    matches the plain fit is far off; the final scale, used at once, would keep the matches that happen to lie near it.

    Args:
        points, displacement, weight, stiffness: see `fit_affine_batch`; a precision matrix also weights the
            residual, so that a direction in which the match is imprecise hardly counts.
        scale_px: residual at which a match finally keeps a quarter of its weight.
        rounds: number of reweightings.

    Returns:
        The fits and the robust factors (B, N) in 0-1.
    """
    isotropic = weight.ndim == 2
    mean = weight if isotropic else weight.diagonal(dim1=-2, dim2=-1).mean(-1)
    factor = torch.ones_like(mean)
    fit = fit_affine_batch(points, displacement, weight, stiffness=stiffness)
    start: Tensor | None = None
    for i in range(rounds):
        residual = apply_affine_batch(fit.matrix, points) - points - displacement
        squared = residual.square().sum(-1)
        if not isotropic:
            seen = torch.einsum("bni,bnij,bnj->bn", residual, weight.to(residual), residual)
            squared = seen / mean.to(residual).clamp_min(1e-12)
        if start is None:
            average = (mean * squared).sum(-1) / mean.sum(-1).clamp_min(1e-12)
            start = average.detach().clamp_min(scale_px**2)[:, None]
        share = (i + 1) / rounds
        scale = start ** (1 - share) * scale_px ** (2 * share)
        factor = fade(squared, scale).to(weight)
        fit = fit_affine_batch(
            points, displacement, weight * (factor if isotropic else factor[..., None, None]), stiffness=stiffness
        )
    return fit, factor


def turned_shape(shape: Shape, rotation_deg: float) -> Shape:
    """Departure from a similarity of a map that is applied after a rotation of the reference."""
    (aspect, shear), twice = shape, math.radians(2 * rotation_deg)
    cos, sin = math.cos(twice), math.sin(twice)
    return aspect * cos + shear * sin, shear * cos - aspect * sin


def to_transform(matrix: Tensor) -> AffineTransform:
    """A fitted matrix as a transform of plane geometry."""
    return AffineTransform(np.asarray(matrix.detach().cpu().numpy(), dtype=np.float64))
