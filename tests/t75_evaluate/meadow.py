"""Validation samples of one made-up set, whose truth is a shift along x."""

from __future__ import annotations

import torch

from somareg.lab.data.stacks import SampleStack

SIDE = 96


def stack(level: str, shifts: list[float]) -> SampleStack:
    """Smooth noise; the truth is a shift along x."""
    generator = torch.Generator().manual_seed(len(level) + len(shifts))
    noise = torch.rand((len(shifts), 1, SIDE // 4, SIDE // 4), generator=generator)
    grey = torch.nn.functional.interpolate(noise, scale_factor=4, mode="bicubic").clamp(0, 1).mul(255).byte()
    matrix = torch.eye(2, 3, dtype=torch.float64).repeat(len(shifts), 1, 1)
    matrix[:, 0, 2] = torch.tensor(shifts, dtype=torch.float64)
    reference = grey.expand(-1, 3, -1, -1).contiguous()
    index, group = tuple(range(len(shifts))), ("g",) * len(shifts)
    return SampleStack("meadow", "val", level, grey[:, 0].contiguous(), reference, matrix, index, group, 1.0)
