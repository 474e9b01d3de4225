"""The parts of a diagnosis, each usable alone: stage errors, attention, affines, inconsistency, similarity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.lab.evaluate.diagnosis import AffineHealth, Attention, Spread
from somareg.lab.train.losses import apply_affine, lattice, map_points, position_error, sample_cells
from somareg.soma.glam.matcher import GlamOutput

Size = tuple[int, int]

POINTS = 16  # lattice points per axis


class CosinePairs(NamedTuple):
    """Cosine similarities (K,) of corresponding features and (K,) of others."""

    corresponding: Tensor
    control: Tensor


def flow_stride(size: Size, flow: Tensor) -> int:
    """Pixels between the nodes of a flow (B, 2, h, w) on an image (H, W) that may not be a multiple of them."""
    width = flow.shape[-1]
    powers = [2**k for k in range(8) if size[1] // 2**k == width]
    return powers[0] if powers else max(1, round(size[1] / width))


def stage_errors(
    output: GlamOutput, truth: Tensor, size: Size, *, flow: Tensor | None = None, moving_size: Size | None = None
) -> dict[str, Tensor]:
    """RMS error over the overlap after every stage, in order.

    Args:
        output: of the network.
        truth: (B, 2, 3) reference pixels -> moving pixels.
        size: (H, W) of the reference.
        flow: (B, 2, H, W) true displacement beyond the affine, or None.
        moving_size: (H, W) of the moving image; the reference's when None.

    Returns:
        Stage -> (B,) pixels, infinite where the estimate is not finite. Iterations are numbered from the second on.
    """
    where = lattice(size, POINTS, truth.double()).expand(len(truth), -1, -1)
    goal = map_points(where, truth, flow)
    found = {"start": where}
    for name, affine, *_ in fits(output):
        found[name] = apply_affine(affine, where)
    if output.flow is not None:
        found["local flow"] = map_points(where, output.affine, output.flow, flow_stride(size, output.flow))
    errors = {name: position_error(positions, goal, moving_size or size) for name, positions in found.items()}
    return {name: error.nan_to_num(nan=math.inf, posinf=math.inf) for name, error in errors.items()}


def fits(output: GlamOutput) -> list[tuple[str, Tensor, Tensor, Tensor]]:
    """(name, affine, condition, refused) of the coarse fit and of every stage and iteration."""
    result = []
    if output.coarse is not None:
        fit = output.coarse.fit
        result.append(("coarse", fit.matrix, fit.condition, fit.refused))
    visits: dict[str, int] = {}
    for stage in output.stages:
        visits[stage.name] = visits.get(stage.name, 0) + 1
        name = stage.name if visits[stage.name] == 1 else f"{stage.name} #{visits[stage.name]}"
        result.append((name, stage.affine, stage.condition, stage.refused))
    return result


def attention_summary(name: str, weights: Tensor) -> Attention:
    """Distribution of attention weights in 0-1 and the alarm.

    "collapsed": the mean is below 0.05, or 95 % lie below 0.1, so the branch adds next to nothing and gets next to no
    gradient. "open": 95 % lie above 0.95, so nothing is selected.
    """
    spread = Spread.of(weights)
    alarm = None
    if spread.count and (spread.mean < 0.05 or spread.q95 < 0.1):
        alarm = "collapsed"
    elif spread.count and spread.q05 > 0.95 and not name.endswith("entropy"):
        alarm = "open"
    return Attention(name, spread, alarm)


def attention_entropy(weights: Tensor) -> Tensor:
    """Entropy of attention weights (..., M) that sum to 1, relative to spreading over all M: 0 one token, 1 all."""
    entropy = -torch.xlogy(weights, weights).sum(-1)
    return entropy / math.log(max(2, weights.shape[-1]))


def affine_health(name: str, affine: Tensor, condition: Tensor, refused: Tensor) -> AffineHealth:
    """Conditioning and divergence of affines (B, 2, 3) with (B,) condition numbers and refusals."""
    linear = affine.detach().double()[:, :, :2]
    determinant = linear[:, 0, 0] * linear[:, 1, 1] - linear[:, 0, 1] * linear[:, 1, 0]
    deviation = (linear - torch.eye(2, dtype=linear.dtype, device=linear.device)).square().sum((1, 2)).sqrt()
    sane = affine.isfinite().all(2).all(1) & (determinant > 0.25) & (determinant < 4.0)
    shares = [float(flag.double().mean()) if len(flag) else math.nan for flag in (refused, ~sane)]
    return AffineHealth(name, Spread.of(condition), Spread.of(determinant), Spread.of(deviation), *shares)


def inconsistency(
    forward: Tensor,
    backward: Tensor,
    size: Size,
    *,
    moving_size: Size | None = None,
    forward_flow: Tensor | None = None,
    backward_flow: Tensor | None = None,
) -> Tensor:
    """RMS distance of `backward(forward(x))` from x over the reference points that land in the moving image.

    Args:
        forward: (B, 2, 3) reference pixels -> moving pixels.
        backward: (B, 2, 3) moving pixels -> reference pixels, estimated with the roles swapped.
        size: (H, W) of the reference.
        moving_size: of the moving image; the reference's when None.
        forward_flow, backward_flow: (B, 2, h, w) local flows, each applied before its affine.

    Returns:
        (B,) reference pixels; infinite when no point lands in the moving image or an estimate is not finite.
    """
    moving_size = moving_size or size
    where = lattice(size, POINTS, forward.double()).expand(len(forward), -1, -1)
    there = map_points(where, forward, forward_flow, 1 if forward_flow is None else flow_stride(size, forward_flow))
    stride = 1 if backward_flow is None else flow_stride(moving_size, backward_flow)
    squared = (map_points(there, backward, backward_flow, stride) - where).square().sum(-1)
    weight = _inside(there, moving_size)
    mean = torch.where(weight, squared, 0.0).sum(1) / weight.sum(1)
    return mean.sqrt().nan_to_num(nan=math.inf, posinf=math.inf)


def _inside(points: Tensor, size: Size) -> Tensor:
    """(B, N) whether points (B, N, 2) lie between the outer pixel centres of an image (H, W)."""
    return ((points >= 0) & (points <= points.new_tensor([size[1] - 1, size[0] - 1]))).all(-1)


def cosine_similarity(
    reference: Mapping[int, Tensor],
    moving: Mapping[int, Tensor],
    truth: Tensor,
    stride: int,
    *,
    flow: Tensor | None = None,
    reference_mask: Tensor | None = None,
    moving_mask: Tensor | None = None,
    per_axis: int = 32,
) -> CosinePairs:
    """Cosine similarity of reference features and the moving features at their true positions.

    The control pairs each reference feature with the moving feature of another one of the same image,
    half of all points away.

    Args:
        reference, moving: pyramids, stride -> (B, C, h, w).
        truth: (B, 2, 3) reference pixels -> moving pixels.
        stride: level.
        flow: (B, 2, H, W) true displacement beyond the affine.
        reference_mask, moving_mask: (B, 1, H, W); points without imagery do not count.
        per_axis: about how many reference cells are taken per axis.
    """
    cells, others = reference[stride], moving[stride]
    far = (others.shape[-2] * stride, others.shape[-1] * stride)
    steps = [torch.arange(n, device=cells.device)[:: max(1, n // per_axis)].double() for n in cells.shape[-2:]]
    y, x = torch.meshgrid(*steps, indexing="ij")
    points = (torch.stack([x, y], dim=-1).reshape(1, -1, 2) * stride + (stride - 1) / 2).expand(len(cells), -1, 2)
    there = map_points(points, truth, flow)
    usable = _inside(there, far)
    for mask, positions in ((reference_mask, points), (moving_mask, there)):
        if mask is not None:
            usable &= sample_cells(mask, positions, 1)[..., 0] > 0.999
    a, b = sample_cells(cells, points, stride), sample_cells(others, there, stride)
    same, different = [], []
    for first, second, keep in zip(a, b, usable, strict=True):
        if int(keep.sum()) < 2:
            continue
        first, second = first[keep], second[keep]
        same.append(F.cosine_similarity(first, second, dim=-1))
        different.append(F.cosine_similarity(first, second.roll(len(second) // 2, 0), dim=-1))
    none = a.new_zeros(0)
    return CosinePairs(torch.cat([none, *same]), torch.cat([none, *different]))
