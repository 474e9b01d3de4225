"""Orientation channels: what SAR and optical images of the same ground have in common, without training.

Contrast between SAR and optical often inverts, but edges stay where they are. Each channel is the absolute response
of a Gaussian derivative along one direction (polarity-free), pooled over a small neighbourhood (tolerant of speckle
and of one-pixel disagreement) and normalised by the local energy (tolerant of contrast). The family is CFOG
(Ye et al., 2019) with Gaussian derivatives in place of finite differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.features.masks import is_whole
from somareg.features.pooling import block_mean

STRIP = 16  # rows of cells


@dataclass(frozen=True)
class OrientationCfg:
    """Settings of the orientation channels; lengths in pixels of the input image.

    Attributes:
        directions: number of channels per scale, equally spaced over 180 degrees.
        scales: pairs (scale of the Gaussian derivative, scale of the pooling of its responses).
        stride: output pixels are `stride` input pixels apart; output pixel i is centred on input
            `stride * i + (stride - 1) / 2`.
        floor: energy, relative to the image's mean, below which texture counts as noise.
    """

    directions: int = 6
    scales: tuple[tuple[float, float], ...] = ((0.8, 0.8), (1.6, 1.0))
    stride: int = 2
    floor: float = 1.0

    @property
    def count(self) -> int:
        """Number of channels."""
        return self.directions * len(self.scales)


@lru_cache(maxsize=64)
def gaussian_taps(sigma: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Sampled Gaussian and its derivative, 2r+1 taps each; the derivative has unit response to a unit ramp."""
    radius = max(1, int(3.0 * sigma + 0.5))
    taps = range(-radius, radius + 1)
    bell = [math.exp(-0.5 * (x / sigma) ** 2) for x in taps]
    total = sum(bell)
    ramp = sum(x * x * b for x, b in zip(taps, bell, strict=True))
    return tuple(b / total for b in bell), tuple(x * b / ramp for x, b in zip(taps, bell, strict=True))


def _filter(image: Tensor, taps: tuple[float, ...], axis: int) -> Tensor:
    """Correlate along one axis (-1 or -2), replicating the border.

    It uses shifted additions, which for so few taps are several times faster on a CPU than a convolution with one
    channel. In a graph each addition would be two nodes, so there it uses the convolution.
    """
    radius, length = len(taps) // 2, image.shape[axis]
    padding = (radius, radius, 0, 0) if axis == -1 else (0, 0, radius, radius)
    padded = F.pad(image, padding, mode="replicate")
    if torch.compiler.is_compiling():
        kernel = torch.tensor(taps, dtype=image.dtype, device=image.device)
        kernel = kernel.view((1, 1, 1, -1) if axis == -1 else (1, 1, -1, 1))
        return F.conv2d(padded.flatten(0, 1)[:, None], kernel).view(image.shape)
    result = padded.narrow(axis, 0, length) * taps[0]
    for i, tap in enumerate(taps[1:], start=1):
        result.add_(padded.narrow(axis, i, length), alpha=tap)
    return result


def _separable(image: Tensor, along_x: tuple[float, ...], along_y: tuple[float, ...]) -> Tensor:
    """Correlate (B, C, H, W) with a kernel along x and one along y."""
    return _filter(_filter(image, along_x, -1), along_y, -2)


def smooth(image: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing of (B, C, H, W)."""
    kernel, _ = gaussian_taps(sigma)
    return _separable(image, kernel, kernel)


def gradients(image: Tensor, mask: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Gaussian-derivative gradients without responses at the edge of the mask.

    Invalid pixels are filled by the smoothed valid ones around them (normalised convolution) and the responses are
    set to zero where the kernel covers mostly invalid pixels.

    Args:
        image: (B, C, H, W) float32.
        mask: (B, 1, H, W) float32, 1 valid, 0 not.
        sigma: scale in pixels.

    Returns:
        (gx, gy), each (B, C, H, W), zero where they are unknown.
    """
    kernel, slope = gaussian_taps(sigma)
    if is_whole(mask):
        return _separable(image, slope, kernel), _separable(image, kernel, slope)
    mean = (image * mask).sum((-2, -1), keepdim=True) / mask.sum((-2, -1), keepdim=True).clamp_min(1.0)
    weight = smooth(mask, 2 * sigma)
    fill = smooth((image - mean) * mask, 2 * sigma) / weight.clamp_min(1e-3)
    filled = torch.where(mask > 0, image - mean, fill)
    known = smooth(mask, sigma) > 0.95
    return _separable(filled, slope, kernel) * known, _separable(filled, kernel, slope) * known


def _responses(gx: Tensor, gy: Tensor, cos: Tensor, sin: Tensor, stride: int) -> Tensor:
    """Absolute derivatives along the directions, added over the bands, each cell the mean of its pixels.

    (B, C, H, W), cosines and sines (1, directions, 1, 1) -> (B, directions, H // stride, W // stride).
    """
    if torch.compiler.is_compiling():  # a loop would fix the number of bands
        steered = F.conv2d(torch.stack([gx, gy], dim=2).flatten(0, 1), torch.cat([cos, sin]).transpose(0, 1))
        cells = block_mean(steered.abs(), stride)
        return cells.view(*gx.shape[:2], *cells.shape[1:]).sum(1)
    height, width = (side // stride for side in gx.shape[-2:])
    cells = gx.new_empty(gx.shape[0], cos.shape[1], height, width)
    # One strip at a time, so that the sums stay in the processor's cache.
    for first in range(0, height, STRIP):
        rows = slice(first * stride, min(first + STRIP, height) * stride)
        response = gx.new_zeros(())
        for band in range(gx.shape[1]):
            x, y = gx[:, band : band + 1, rows], gy[:, band : band + 1, rows]
            response = response + (x * cos).addcmul_(y, sin).abs_()
        cells[:, :, first : first + STRIP] = block_mean(response, stride)
    return cells


def orientation_channels(image: Tensor, mask: Tensor, cfg: OrientationCfg) -> tuple[Tensor, Tensor]:
    """Polarity-free orientation channels at `1 / stride` resolution.

    The responses of all bands are added: an edge between two fields counts if any colour shows it.

    Args:
        image: (B, C, H, W) float32, bands of comparable contrast (see `preprocess`).
        mask: (B, 1, H, W) float32, 1 valid, 0 not.
        cfg: settings.

    Returns:
        channels (B, len(scales) * directions, H // stride, W // stride), per scale each pixel's vector has mean 0 and
        length in 0-1; validity (B, 1, H // stride, W // stride), 0 or 1.
    """
    theta = torch.arange(cfg.directions, device=image.device) * (torch.pi / cfg.directions)
    cos, sin = torch.cos(theta).view(1, -1, 1, 1), torch.sin(theta).view(1, -1, 1, 1)
    valid = (block_mean(mask, cfg.stride) > 0.5).to(image.dtype)
    count = valid.sum((-2, -1), keepdim=True).clamp_min(1.0)
    channels = []
    for sigma_gradient, sigma_pool in cfg.scales:
        gx, gy = gradients(image, mask, sigma_gradient)
        pooled = smooth(_responses(gx, gy, cos, sin, cfg.stride), sigma_pool / cfg.stride)
        energy = pooled.square().sum(1, keepdim=True).sqrt()
        typical = (energy * valid).sum((-2, -1), keepdim=True) / count
        unit = pooled / (energy + cfg.floor * typical + 1e-12)
        channels.append((unit - unit.mean(1, keepdim=True)) * valid)
    return torch.cat(channels, dim=1), valid
