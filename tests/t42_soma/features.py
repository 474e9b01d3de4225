"""Features whose structure is known: smooth noise, and distances along a direction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from somareg.features.orientation import smooth

DIRECTIONS, SIGMAS = 8, (0.8, 1.6)
SIDE = 40


def texture(channels: int = 16, side: int = SIDE, batch: int = 2, seed: int = 1) -> Tensor:
    """Smooth features of mean 0 and deviation 1, as after a normalisation."""
    generator = torch.Generator().manual_seed(seed)
    features = smooth(torch.randn(batch, channels, side, side, generator=generator), 1.2)
    features = features - features.mean((-2, -1), keepdim=True)
    return features / features.std((-2, -1), keepdim=True)


def along(angle_deg: float, side: int = SIDE) -> Tensor:
    """(side, side) distance from the centre along a direction (from +x towards +y, as +y is down)."""
    place = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
    angle = math.radians(angle_deg)
    return place[None, :] * math.cos(angle) + place[:, None] * math.sin(angle)
