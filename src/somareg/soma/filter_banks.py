"""Banks of oriented derivative filters on feature maps: fixed, learnable, or plain convolutions to compare with.

The derivative of a Gaussian along any direction is `cos(theta) Gx + sin(theta) Gy` (Freeman and Adelson, 1991), so the
fixed bank filters each channel twice per scale, whatever the number of directions. Responses are absolute values:
contrast between SAR and optical often inverts, and a direction is the same as its opposite, so the directions share
180 degrees. A bank gives, per scale, (B, channels * directions, h, w), the directions of one channel side by side;
direction k looks along `180 k / directions` degrees, turning from +x to +y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from somareg.features.orientation import gaussian_taps

FilterKind = Literal["fixed", "learnable", "conv"]


def steering(directions: int) -> Tensor:
    """(directions, 2) float32: the weights of the gradient's x and y component for each direction."""
    angle = torch.arange(directions, dtype=torch.float64) * (math.pi / directions)
    return torch.stack([angle.cos(), angle.sin()], dim=1).float()


def oriented_kernels(directions: int, sigma: float) -> Tensor:
    """Derivatives of a Gaussian along directions equally spaced over 180 degrees.

    Args:
        directions: their number.
        sigma: scale in cells.

    Returns:
        (directions, K, K) float32, to be correlated with a map; each has mean 0 and response 1 to a unit ramp that
        rises along its own direction.
    """
    bell, slope = (torch.tensor(taps, dtype=torch.float64) for taps in gaussian_taps(sigma))
    along_x, along_y = torch.outer(bell, slope), torch.outer(slope, bell)
    return torch.einsum("nk,kij->nij", steering(directions).double(), torch.stack([along_x, along_y])).float()


def _correlate(features: Tensor, kernels: Tensor) -> Tensor:
    """Depthwise correlation, the border replicated: (B, C, h, w), kernels (n * C, 1, Ky, Kx) -> (B, n * C, h, w)."""
    down, across = kernels.shape[-2] // 2, kernels.shape[-1] // 2
    padded = F.pad(features, (across, across, down, down), mode="replicate")
    return F.conv2d(padded, kernels, groups=features.shape[1])


class FixedFilters(nn.Module):
    """Analytic oriented derivatives, separable and steered; no parameters.

    Args:
        channels: of the features.
        directions: per scale, over 180 degrees.
        sigmas: scales in cells.
    """

    _steering: Tensor

    def __init__(self, channels: int, directions: int, sigmas: Sequence[float]) -> None:
        super().__init__()
        self.channels, self.sigmas = channels, tuple(sigmas)
        self.register_buffer("_steering", steering(directions), persistent=False)
        for number, sigma in enumerate(self.sigmas):
            bell, slope = (torch.tensor(taps) for taps in gaussian_taps(sigma))
            pair = torch.stack([slope, bell]).repeat(channels, 1)
            self.register_buffer(f"_across_{number}", pair[:, None, None, :], persistent=False)
            swapped = torch.stack([bell, slope]).repeat(channels, 1)
            self.register_buffer(f"_down_{number}", swapped[:, None, :, None], persistent=False)

    def gradient(self, features: Tensor, scale: int) -> Tensor:
        """Gaussian-derivative gradient at one scale: (B, C, h, w) -> (B, C, 2, h, w), x then y, per cell."""
        across: Tensor = getattr(self, f"_across_{scale}")
        down: Tensor = getattr(self, f"_down_{scale}")
        both = _correlate(_correlate(features, across), down)
        return both.view(features.shape[0], self.channels, 2, *features.shape[-2:])

    def forward(self, features: Tensor) -> list[Tensor]:
        """(B, C, h, w) -> one (B, C * directions, h, w) per scale, all >= 0, zero where the features are constant."""
        batch, _, height, width = features.shape
        responses = []
        for scale in range(len(self.sigmas)):
            steered = torch.matmul(self._steering, self.gradient(features, scale).flatten(3))
            responses.append(steered.abs_().view(batch, -1, height, width))
        return responses


class LearnableFilters(nn.Module):
    """Depthwise kernels that start as the analytic ones and are trained; their mean is always subtracted.

    Subtracting the mean keeps every kernel a derivative: constant features give no response, whatever is learned.
    Arguments and output are those of `FixedFilters`.
    """

    def __init__(self, channels: int, directions: int, sigmas: Sequence[float]) -> None:
        super().__init__()
        start = (oriented_kernels(directions, sigma).repeat(channels, 1, 1)[:, None] for sigma in sigmas)
        self.kernels = nn.ParameterList(nn.Parameter(kernels) for kernels in start)

    def forward(self, features: Tensor) -> list[Tensor]:
        """(B, C, h, w) -> one (B, C * directions, h, w) per scale, all >= 0."""
        return [
            _correlate(features, kernels - kernels.mean((-2, -1), keepdim=True)).abs_()
            for kernels in self.kernels.parameters()
        ]


class PlainConvolutions(nn.Module):
    """Ablation without a gradient prior: depthwise convolutions of the same sizes, random at the start, ReLU.

    Arguments and output shapes are those of `FixedFilters`.
    """

    def __init__(self, channels: int, directions: int, sigmas: Sequence[float]) -> None:
        super().__init__()
        sizes = [len(gaussian_taps(sigma)[0]) for sigma in sigmas]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(
                channels, channels * directions, size, padding=size // 2, padding_mode="replicate", groups=channels
            )
            for size in sizes
        )

    def forward(self, features: Tensor) -> list[Tensor]:
        """(B, C, h, w) -> one (B, C * directions, h, w) per scale, all >= 0."""
        return [F.relu(convolution(features), inplace=True) for convolution in self.convolutions]


class GaussianPool(nn.Module):
    """Gaussian smoothing of each channel, the border replicated; no parameters.

    Args:
        channels: of the features.
        sigma: scale in cells.
    """

    _bell: Tensor

    def __init__(self, channels: int, sigma: float) -> None:
        super().__init__()
        bell = torch.tensor(gaussian_taps(sigma)[0])
        self.register_buffer("_bell", bell.repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return _correlate(_correlate(features, self._bell), self._bell.mT)


def make_filters(kind: FilterKind, channels: int, directions: int, sigmas: Sequence[float]) -> nn.Module:
    """The bank of the given kind."""
    kinds: dict[FilterKind, type[FixedFilters | LearnableFilters | PlainConvolutions]] = {
        "fixed": FixedFilters,
        "learnable": LearnableFilters,
        "conv": PlainConvolutions,
    }
    return kinds[kind](channels, directions, sigmas)
