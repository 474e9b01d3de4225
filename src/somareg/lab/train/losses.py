"""Losses of whole estimates: flow, affine, certainty, uniformity, cycle. `window_losses` has those of single matches.

Each is a pure function, computed in float32 at least, smallest at the truth and 0 without valid cells. The published
objective (SOMA, Wang et al., arXiv 2511.13168) is `flow_loss` + `reconstruction_loss` + `matching_loss` with
`certainty_loss` and `uniformity_loss` at small weights; `affine_loss`, `window_loss`, `displacement_nll` and
`cycle_loss` supervise the measurements and fits of our matcher.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.errors import InputError
from somareg.lab.train.window_losses import (
    CellTargets,
    apply_affine,
    displacement_nll,
    full,
    map_points,
    matching_loss,
    nearest_cells,
    sample_cells,
    true_residual,
    weighted_mean,
    window_loss,
    within_search,
)
from somareg.matching.affine import compose_batch

__all__ = [
    "CellTargets",
    "affine_grid_error",
    "affine_loss",
    "apply_affine",
    "certainty_loss",
    "charbonnier",
    "cycle_loss",
    "displacement_nll",
    "flow_loss",
    "full",
    "lattice",
    "map_points",
    "matching_loss",
    "nearest_cells",
    "position_error",
    "reconstruction_loss",
    "sample_cells",
    "saturated",
    "sharpen",
    "true_residual",
    "uniformity_loss",
    "weighted_mean",
    "window_loss",
    "within_search",
]

SATURATION_PX = 10.0


def charbonnier(squared: Tensor, eps: float = 0.01) -> Tensor:
    """Distance from its square, rounded at the tip: `sqrt(r^2 + eps^2) - eps` (Charbonnier et al., ICIP 1994)."""
    return (squared + eps**2).sqrt() - eps


def saturated(error: Tensor, scale_px: float = SATURATION_PX) -> Tensor:
    """`s log(1 + e / s)`: equal to small errors, with a vanishing gradient for hopeless samples.

    Args:
        error: >= 0, pixels.
        scale_px: error at which the gradient has halved.
    """
    return scale_px * torch.log1p(error / scale_px)


def sharpen(error: Tensor, reach_px: float = 1.0, softness_px: float = 0.1) -> Tensor:
    """Emphasis on the last pixel: 0 at the truth, 1 from `reach_px` on, steepest near the truth.

    The term `-1 / (e + 0.1)` below 1 px of MCNet (Zhu et al., CVPR 2024), shifted and scaled to 0-1: a smooth count of
    the samples that miss `reach_px`. For the last part of training, when most errors are within reach.

    Args:
        error: >= 0, pixels.
        reach_px: error below which it acts.
        softness_px: half-way point for a long reach.
    """
    near = error.clamp_max(reach_px)
    return near * (reach_px + softness_px) / (reach_px * (near + softness_px))


def flow_loss(flow: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Charbonnier distance of displacements, SOMA's flow loss, but in one unit and on valid cells only.

    Args:
        flow: (B, 2, h, w) displacement, pixels.
        truth: (B, 2, h, w), the same grid and unit; may be NaN where not valid.
        valid: (B, 1, h, w) weight >= 0.

    Returns:
        Weighted mean, pixels.
    """
    difference = torch.where(valid > 0, full(flow) - full(truth).detach(), 0.0)
    return weighted_mean(charbonnier(difference.square().sum(1, keepdim=True)), valid)


def reconstruction_loss(*terms: Tensor) -> Tensor:
    """Mean of the L1 reconstruction losses that the encoders of a pair return (SOMA's L1 reconstruction loss).

    Args:
        terms: scalars; none gives 0.
    """
    return torch.stack([full(term) for term in terms]).mean() if terms else torch.zeros(())


def lattice(size: tuple[int, int], points: int, like: Tensor) -> Tensor:
    """(1, points^2, 2) pixel positions of an image (H, W): the centres of equal tiles.

    The mean square of a linear error over them differs from that over all pixels by 1 / points^2 only; a lattice with
    points on the rim would weigh the rim double.
    """
    height, width = size
    steps = (torch.arange(points, dtype=like.dtype, device=like.device) + 0.5) / points
    y, x = torch.meshgrid(steps * height - 0.5, steps * width - 0.5, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(1, -1, 2)


def position_error(positions: Tensor, truth: Tensor, moving_size: tuple[int, int]) -> Tensor:
    """RMS distance (B,) of positions from the truth (both (B, N, 2) moving pixels), over the overlap.

    Points whose true position lies outside the moving image (H, W) do not count, as in the protocol's metric; a pair
    without overlap counts all of them.
    """
    height, width = moving_size
    truth = full(truth).detach()
    inside = ((truth >= 0) & (truth <= truth.new_tensor([width - 1, height - 1]))).all(-1)
    weight = (inside | ~inside.any(1, keepdim=True)).to(truth)
    squared = (full(positions) - truth).square().sum(-1)
    mean = (squared * weight).sum(1) / weight.sum(1)
    return mean.clamp_min(1e-12).sqrt()  # below 1e-6 px no gradient: that of a root is infinite at 0


def affine_grid_error(
    affine: Tensor,
    truth: Tensor,
    size: tuple[int, int],
    points: int = 16,
    moving_size: tuple[int, int] | None = None,
) -> Tensor:
    """RMS distance of two affine maps over the overlap: the metric of the benchmark, differentiable.

    Args:
        affine, truth: (B, 2, 3) reference pixels -> moving pixels.
        size: (H, W) of the reference.
        points: lattice points per axis.
        moving_size: (H, W) of the moving image; the same as the reference's when None.

    Returns:
        (B,) pixels.
    """
    where = lattice(size, points, full(truth))
    return position_error(apply_affine(affine, where), apply_affine(truth, where), moving_size or size)


def affine_loss(
    affines: Sequence[Tensor],
    truth: Tensor,
    size: tuple[int, int],
    *,
    gamma: float = 0.85,
    saturation_px: float = SATURATION_PX,
    sharpening: float = 0.0,
    moving_size: tuple[int, int] | None = None,
) -> Tensor:
    """Grid error of every iteration's affine, the last weighing most: weights `gamma^(n - i)` as in RAFT (ECCV 2020).

    Args:
        affines: (B, 2, 3) each, first to last.
        truth: (B, 2, 3).
        size: (H, W) of the reference.
        gamma: 0-1.
        saturation_px: see `saturated`.
        sharpening: weight of `sharpen`, 0 early in training.
        moving_size: see `affine_grid_error`.

    Returns:
        Weighted mean, pixels.

    Raises:
        InputError: no estimate.
    """
    if not affines:
        raise InputError("affine_loss needs the affine of at least one stage")
    weights = [gamma ** (len(affines) - 1 - i) for i in range(len(affines))]
    total = torch.zeros((), dtype=torch.float64, device=truth.device)
    for weight, affine in zip(weights, affines, strict=True):
        error = affine_grid_error(affine, truth, size, moving_size=moving_size)
        loss = saturated(charbonnier(error.square()), saturation_px)
        if sharpening:
            loss = loss + sharpening * sharpen(error)
        total = total + weight * loss.mean()
    return total / sum(weights)


def certainty_loss(certainty: Tensor, error: Tensor, valid: Tensor | None = None, scale_px: float = 1.0) -> Tensor:
    """Binary cross-entropy of a certainty with `exp(-error / scale)`.

    The target is SOMA's; cross-entropy instead of its squared difference, which is flat where a certainty is wrong and
    sure. The target's entropy is subtracted: 0 at the truth.

    Args:
        certainty: any shape, 0-1.
        error: same shape, pixels >= 0; takes no gradient.
        valid: same shape, weight >= 0.
        scale_px: error at which the certainty should be 0.37.

    Returns:
        Weighted mean relative entropy, nats.
    """
    weight = torch.ones_like(full(error)) if valid is None else valid
    present = weight > 0
    tiny = 1e-4
    target = torch.exp(-torch.where(present, full(error), 0.0).detach() / scale_px) * (1 - 2 * tiny) + tiny
    # Squeezed instead of clamped: half precision rounds to exactly 0 or 1, where a clamp has no gradient.
    value = torch.where(present, full(certainty), 0.5) * (1 - 2 * tiny) + tiny
    loss = target * (target / value).log() + (1 - target) * ((1 - target) / (1 - value)).log()
    return weighted_mean(loss, weight)


def uniformity_loss(errors: Tensor, valid: Tensor | None = None, patches: int = 4) -> Tensor:
    """Spread of the error over the image, SOMA's uniformity: deviation of the mean errors of `patches^2` patches.

    Args:
        errors: (B, 1, h, w) >= 0, pixels.
        valid: (B, 1, h, w) weight >= 0; patches without count nothing.
        patches: per axis; fewer on maps with fewer cells.

    Returns:
        Mean over the batch, pixels; 0 where fewer than two patches are valid.
    """
    errors = full(errors)
    weight = torch.ones_like(errors) if valid is None else valid.to(errors)
    shape = min(patches, errors.shape[-2]), min(patches, errors.shape[-1])
    share = F.adaptive_avg_pool2d(weight, shape).flatten(1)
    sums = F.adaptive_avg_pool2d(torch.where(weight > 0, errors, 0.0) * weight, shape).flatten(1)
    present = (share > 0).to(errors)
    means = sums / torch.where(share > 0, share, 1.0)
    count = present.sum(1).clamp_min(1.0)
    centre = (means * present).sum(1, keepdim=True) / count[:, None]
    variance = ((means - centre).square() * present).sum(1) / count
    return variance.clamp_min(1e-12).sqrt().mean() - 1e-6


def cycle_loss(
    forward: Tensor, backward: Tensor, size: tuple[int, int], saturation_px: float = SATURATION_PX
) -> Tensor:
    """Cycle consistency: `backward ∘ forward` against the identity (OSFlow, GRSL 2024; GradICON, CVPR 2023).

    Args:
        forward: (B, 2, 3) reference pixels -> moving pixels.
        backward: (B, 2, 3) moving pixels -> reference pixels, estimated with the roles swapped.
        size: (H, W) of the reference.
        saturation_px: see `saturated`.

    Returns:
        Mean, pixels.
    """
    where = lattice(size, 16, full(forward))
    returned = apply_affine(compose_batch(backward.double(), forward.double()), where)
    error = position_error(returned, where.expand_as(returned), size)
    return saturated(charbonnier(error.square()), saturation_px).mean()
