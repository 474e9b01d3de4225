"""Means over blocks and boxes of cells by shifted additions: on a CPU ten times as fast as pooling by windows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def block_mean(features: Tensor, side: int) -> Tensor:
    """Means over blocks of side x side cells: (B, C, h, w) -> (B, C, h // side, w // side)."""
    # In a graph of operations (gradients, export) each slice would be a node, so one pooling is cheaper.
    if (torch.is_grad_enabled() and features.requires_grad) or torch.compiler.is_compiling():
        return F.avg_pool2d(features, side)
    height, width = (length // side * side for length in features.shape[-2:])
    rows = _sum([features[..., i:height:side, :width] for i in range(side)])
    return _sum([rows[..., i::side] for i in range(side)]).div_(side * side)


class BlockMean(nn.Module):
    """`block_mean` as a layer.

    Args:
        side: of the blocks.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h // side, w // side)."""
        return block_mean(features, self.side)


def box_mean(features: Tensor, side: int) -> Tensor:
    """Mean over the side x side cells (odd) around each cell, 0 beyond the border: (B, C, h, w) -> the same."""
    return _box_sum(_box_sum(features, side, -2), side, -1) / side**2


def _box_sum(features: Tensor, side: int, axis: int) -> Tensor:
    """Sum of `side` neighbours along -1 or -2: first of runs of a divisor's length, then of these runs."""
    half, length = side // 2, features.shape[axis]
    padded = F.pad(features, (half, half) if axis == -1 else (0, 0, half, half))
    run = _divisor(side)
    runs = _sum([padded.narrow(axis, i, length + side - run) for i in range(run)])
    return _sum([runs.narrow(axis, i, length) for i in range(0, side, run)])


def _divisor(number: int) -> int:
    """The divisor nearest to the root: it makes the fewest additions."""
    return max((d for d in range(1, int(number**0.5) + 1) if number % d == 0), default=1)


def _sum(parts: list[Tensor]) -> Tensor:
    """Sum of views; a new tensor."""
    total = parts[0] + parts[1] if len(parts) > 1 else parts[0].clone()
    for part in parts[2:]:
        total = total + part if total.requires_grad else total.add_(part)
    return total
