"""Spatial and channel reconstruction of features, and the decoder for the reconstruction loss.

After SCConv (Li, Wen and He, CVPR 2023), which SOMA uses inside its Feature Gradient Enhancer, with two changes. The
gate of the spatial unit is smooth: a threshold makes features jump from cell to cell, and a sub-pixel matcher mistakes
the jumps for structure. The two paths of the channel unit compete channel by channel, so that its output keeps the
scale of its input for any number of channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from somareg.errors import ConfigError
from somareg.soma.norms import group_norm


class SpatialReconstruction(nn.Module):
    """Separate informative from redundant cells by the weights of a GroupNorm and cross-reconstruct (SRU).

    Args:
        channels: even.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, most=8)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w): what is gated out of one half of the channels is added to the other half."""
        normed = self.norm(features)
        weight = self.norm.weight / self.norm.weight.abs().mean().clamp_min(1e-6)
        gate = torch.sigmoid(normed * weight.view(1, -1, 1, 1))
        informative = gate * features
        rest_first, rest_second = (features - informative).chunk(2, dim=1)
        return informative + torch.cat([rest_second, rest_first], dim=1)


class ChannelReconstruction(nn.Module):
    """Split, squeeze, transform and fuse: rich features from one half of the channels, cheap ones from the other (CRU).

    Args:
        channels: a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.squeeze = nn.Conv2d(channels, 2 * quarter, 1, groups=2, bias=False)
        self.rich = nn.Conv2d(
            quarter, channels, 3, padding=1, padding_mode="replicate", groups=math.gcd(2, quarter), bias=False
        )
        self.point = nn.Conv2d(quarter, channels, 1)
        self.cheap = nn.Conv2d(quarter, channels - quarter, 1)
        self._halves = half

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        upper, lower = self.squeeze(features).chunk(2, dim=1)
        rich = self.rich(upper) + self.point(upper)
        cheap = torch.cat([self.cheap(lower), lower], dim=1)
        share = torch.sigmoid((rich - cheap).mean((-2, -1), keepdim=True))  # a softmax between the two paths
        return torch.lerp(cheap, rich, share)


class ReconstructionUnit(nn.Module):
    """Spatial, then channel reconstruction.

    Args:
        channels: a multiple of 4.

    Raises:
        ConfigError: `channels` is not a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % 4:
            raise ConfigError(f"channels is {channels}; the reconstruction unit needs a multiple of 4")
        self.spatial = SpatialReconstruction(channels)
        self.channel = ChannelReconstruction(channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        reconstructed: Tensor = self.channel(self.spatial(features))
        return reconstructed


class Decoder(nn.Module):
    """Map enhanced features back to the incoming ones, cell by cell; used by the loss only.

    Args:
        channels: of both.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU(), nn.Conv2d(channels, channels, 1))

    def forward(self, enhanced: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        decoded: Tensor = self.layers(enhanced)
        return decoded

    def loss(self, enhanced: Tensor, features: Tensor) -> Tensor:
        """Mean absolute difference between the decoded and the incoming features, a scalar.

        The incoming features are detached: the loss makes the enhancer keep their content, and cannot be lowered by
        making them poorer.
        """
        return F.l1_loss(self(enhanced).float(), features.detach().float())
