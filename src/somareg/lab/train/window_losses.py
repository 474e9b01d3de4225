"""Losses of single matches (coarse cells, windows), and the true positions for them.

All functions compute at least in float32, also under autocast, and positions in float64, which autocast leaves
alone: half precision would round x = 500 to 2 px. Elements excluded by truth or weight have no loss and no
gradient, whatever their value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.errors import InputError
from somareg.matching.affine import apply_affine_batch, invert_batch

FINEST_PX, COARSEST_PX = 0.05, 32.0  # bounds of a match's deviation; more certainty gains nothing
_UNREADABLE = -1e3  # lower scores mean "no imagery"


def full(values: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return values if values.dtype == torch.float64 else values.float()


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of all values (any shape) with weights >= 0 of the same shape; 0 when there is no weight.

    Values without weight may be anything, NaN included.
    """
    weight = weight.to(values)
    kept = torch.where(weight > 0, values, 0.0)
    return (kept * weight).sum() / weight.sum().clamp_min(torch.finfo(values.dtype).tiny)


# --- positions ------------------------------------------------------------------------------------------------------


def apply_affine(affine: Tensor, points: Tensor) -> Tensor:
    """Points (B, N, 2) or (1, N, 2) through affine maps (B, 2, 3), pixels; (B, N, 2), float64 whatever comes in."""
    return apply_affine_batch(affine.double(), points)


def sample_cells(cells: Tensor, points: Tensor, stride: int) -> Tensor:
    """Bilinear values (B, N, C) of a map (B, C, h, w) at pixel positions (B, N, 2); beyond the border its last value.

    Cell i is centred on pixel `stride * i + (stride - 1) / 2`.
    """
    height, width = cells.shape[-2:]
    cells, points = full(cells), points.double()
    grid = (points + 0.5) * 2 / points.new_tensor([width * stride, height * stride]) - 1
    values = F.grid_sample(cells, grid[:, :, None].to(cells), padding_mode="border", align_corners=False)
    return values[..., 0].transpose(1, 2)


def map_points(points: Tensor, affine: Tensor, flow: Tensor | None = None, stride: int = 1) -> Tensor:
    """Where reference points lie in the moving image: `affine ∘ (x + flow(x))`.

    Args:
        points: (B, N, 2) or (1, N, 2) reference pixels.
        affine: (B, 2, 3) reference pixels -> moving pixels.
        flow: (B, 2, h, w) displacement in pixels on the reference's cells, or None.
        stride: pixels per cell of `flow`.

    Returns:
        (B, N, 2) moving pixels.
    """
    if flow is not None:
        points = points.expand(len(affine), -1, -1)
        points = points.double() + sample_cells(flow, points, stride)
    return apply_affine(affine, points)


def true_residual(points: Tensor, affine: Tensor, positions: Tensor) -> Tensor:
    """The true displacement of windows at `points` after the moving image was warped by `affine`.

    The residual D is applied first, so `affine(points + D) = positions`.

    Args:
        points: (B, N, 2) reference pixels.
        affine: (B, 2, 3) start of the measurement.
        positions: (B, N, 2) true moving pixels of the points (see `map_points`).

    Returns:
        (B, N, 2) pixels, without gradient.
    """
    return (apply_affine(invert_batch(affine.double()), positions) - points).detach()


def within_search(true_cells: Tensor, margin: int) -> Tensor:
    """(B, N) whether a true displacement (B, N, 2) in cells lies in the search square, half a cell inside its rim."""
    return (full(true_cells).abs() <= margin - 0.5).all(-1)


# --- losses ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CellTargets:
    """The four cells around each true position.

    Attributes:
        index: (B, N, 4) row-major cells of the moving image.
        share: (B, N, 4) bilinear shares, sum 1; all 0 where the truth lies outside the moving image.
    """

    index: Tensor
    share: Tensor


def nearest_cells(positions: Tensor, shape: tuple[int, int], stride: int) -> CellTargets:
    """Soft targets for coarse matching, so that a truth between cells is used and not rounded.

    Args:
        positions: (B, N, 2) true moving pixels of the reference cells; not finite means unknown.
        shape: (h, w) cells of the moving image.
        stride: pixels per cell.
    """
    height, width = shape
    cells = (full(positions).detach() - (stride - 1) / 2) / stride
    limit = torch.tensor([width, height], dtype=cells.dtype, device=cells.device)
    inside = ((cells >= -0.5) & (cells <= limit - 0.5)).all(-1, keepdim=True)
    cells = torch.where(inside, cells, 0.0)
    low = cells.floor()
    fraction = cells - low
    index, share = [], []
    for j in (0, 1):
        for i in (0, 1):
            corner = low + low.new_tensor([i, j])
            column, row = torch.minimum(corner.clamp_min(0.0), limit - 1).long().unbind(-1)
            x, y = (fraction if i else 1 - fraction)[..., 0], (fraction if j else 1 - fraction)[..., 1]
            index.append(row * width + column)
            share.append(x * y * inside[..., 0])
    return CellTargets(torch.stack(index, dim=-1), torch.stack(share, dim=-1))


def matching_loss(log_assignment: Tensor, targets: CellTargets, weight: Tensor | None = None) -> Tensor:
    """Feature matching loss at 1/16: negative log-likelihood of the true cells under the dual softmax.

    The dual softmax and its likelihood loss are LoFTR's (Sun et al., CVPR 2021); the soft target is bilinear.

    Args:
        log_assignment: (B, N, M) `log_softmax` over the moving cells plus `log_softmax` over the reference cells;
            below -1000 (or minus infinity) there is no imagery.
        targets: of the N reference cells.
        weight: (B, N) >= 0, for instance the share of imagery in the reference cell.

    Returns:
        Mean over the cells whose truth lies in the moving image, nats; 0 when every truth is a cell centre and certain.
    """
    score = log_assignment.gather(2, targets.index)
    readable = score > _UNREADABLE
    share = targets.share * readable
    mass = share.sum(-1, keepdim=True)
    used = (mass > 0.5) & readable
    share = torch.where(used, share / mass.clamp_min(0.5), 0.0)
    loss = -(share * full(torch.where(used, score, 0.0))).sum(-1)
    active = used.any(-1).to(loss)
    return weighted_mean(loss, active if weight is None else active * weight)


def window_loss(logits: Tensor, true_cells: Tensor, weight: Tensor, sigma_cells: float = 0.55) -> Tensor:
    """Cross-entropy of a window's correlation heat map with a Gaussian at the true displacement.

    Softmax on FFT correlation heat maps is the loss of the compact SAR-optical matchers (Fang et al., FFT U-Net,
    GRSL 2022; Zhang et al., OSMNet); the Gaussian, about as wide as the peak, carries the sub-cell part of the truth.
    The target's own entropy is subtracted, which changes no gradient: the loss is 0 when the heat map is the target.

    Args:
        logits: (B, N, n, n) or (B, N, n * n), entry [m + j, m + i] for the displacement (i, j) cells, n = 2m + 1;
            below -1000 (or minus infinity) a displacement cannot be read.
        true_cells: (B, N, 2) true displacement (dx, dy) in cells. Windows whose truth lies outside the searched
            square, or within half a cell of its rim, are ignored.
        weight: (B, N) >= 0.
        sigma_cells: deviation of the Gaussian, cells.

    Returns:
        Weighted mean relative entropy, nats.

    Raises:
        InputError: heat maps that are not square with an odd side.
    """
    flat = full(logits).flatten(2)
    side = math.isqrt(flat.shape[-1])
    if side**2 != flat.shape[-1] or side % 2 == 0:
        raise InputError(f"window_loss needs square heat maps of odd side, not {tuple(logits.shape[2:])}")
    margin = side // 2
    inside = within_search(true_cells, margin)
    truth = torch.where(inside[..., None], full(true_cells), 0.0).detach().to(flat)
    axis = torch.arange(-margin, margin + 1, dtype=flat.dtype, device=flat.device)
    bell = -(axis - truth[..., None]).square() / (2 * sigma_cells**2)
    target = torch.softmax((bell[..., 1, :, None] + bell[..., 0, None, :]).flatten(2), dim=-1)
    readable = flat > _UNREADABLE
    target = target * readable
    mass = target.sum(-1, keepdim=True)
    used = (mass > 0.5) & inside[..., None] & (weight > 0)[..., None]
    target = target / mass.clamp_min(0.5)
    log_heat = torch.log_softmax(torch.where(used, flat, 0.0), dim=-1)
    log_heat = torch.where(readable & used, log_heat, 0.0)
    loss = (torch.xlogy(target, target) - target * log_heat).sum(-1)
    return weighted_mean(loss, weight * used[..., 0])


def bounded_log_precision(precision: Tensor, finest_px: float = FINEST_PX, coarsest_px: float = COARSEST_PX) -> Tensor:
    """Log of a precision (1/px^2), softly clipped to the bounds so that the gradient never vanishes completely."""
    low, high = -2 * math.log(coarsest_px), -2 * math.log(finest_px)
    value = full(precision).clamp_min(1e-12).log()
    return low + F.softplus(value - low, beta=4.0) - F.softplus(value - high, beta=4.0)


def displacement_nll(
    displacement: Tensor,
    precision: Tensor,
    truth: Tensor,
    weight: Tensor,
    *,
    kind: Literal["laplace", "gaussian"] = "laplace",
) -> Tensor:
    """Heteroscedastic negative log-likelihood of measured displacements and their precisions.

    Kendall and Gal (NeurIPS 2017); rectified as in probabilistic flow (RBE-Flow, arXiv 2606.30492): the precision is
    bounded and the best possible value is subtracted, so the loss is >= 0 and one certain match cannot outweigh others.
    Both densities are round and have variance 1 / precision per axis: Gaussian `exp(-r^2 p / 2) p / 2 pi`, Laplace
    `exp(-r / b) / 2 pi b^2` with `b^2 = 1 / 3p`, which wrong windows pull less.

    Args:
        displacement: (B, N, 2) measured, pixels.
        precision: (B, N) 1/px^2, > 0.
        truth: (B, N, 2) pixels.
        weight: (B, N) >= 0; give 0 to windows whose truth lies outside their search (`within_search`).
        kind: the density.

    Returns:
        Weighted mean, nats; 0 only for exact matches of the highest precision.
    """
    active = (weight > 0)[..., None]
    error = torch.where(active, full(displacement) - full(truth).detach(), 0.0)
    log_precision = bounded_log_precision(torch.where(active[..., 0], precision, 1.0))
    highest = -2 * math.log(FINEST_PX)
    squared = error.square().sum(-1)
    if kind == "gaussian":
        distance = squared * log_precision.exp() / 2
    else:
        tiny = 1e-3  # px; rounds the tip, whose gradient is undefined
        distance = ((squared + tiny**2).sqrt() - tiny) * (3**0.5) * (log_precision / 2).exp()
    return weighted_mean(distance + highest - log_precision, weight)
