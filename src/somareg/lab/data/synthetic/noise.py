"""Smooth random fields by subdivision, and the small image operations that the generator shares."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.lab.data.synthetic.draws import Draws, spread, where

_BLUR_RADIUS = 3


def fractal(draws: Draws, size: int, wavelength: Tensor, hurst: Tensor | float, finest: float = 8.0) -> Tensor:
    """A random field whose octaves fall off as (wavelength) ** hurst below the longest one.

    White noise on a coarse lattice is doubled again and again by linear subdivision (in the limit a quadratic B-spline,
    so smooth) and each finer lattice adds its own octave: about the price of a single pass at full size.

    Args:
        draws: random draws for N scenes.
        size: side S of the field in cells.
        wavelength: (N,) longest wavelength in cells.
        hurst: 0 gives every octave the same weight, 1 a rather smooth field; a number or (N,).
        finest: shortest wavelength in cells; no octave below it is added.

    Returns:
        (N, S, S) float32, mean 0 and deviation 1 in each scene.
    """
    top = max(1, math.ceil(math.log2(size / 3)))
    coarsest = math.ceil(size / 2**top) + 3
    field = wavelength.new_zeros((draws.count, 1, coarsest, coarsest))
    for level in range(top, -1, -1):
        extent = math.ceil(size / 2**level) + 3
        if level < top:
            field = _cut(F.interpolate(field, scale_factor=2.0, mode="bilinear", align_corners=False), extent)
        octave = 2.0 * 2**level
        if octave >= finest:
            weight = _octave_weight(octave, wavelength, hurst)
            field = torch.addcmul(field, spread(weight)[:, None], draws.normal(1, extent, extent))
    return standardise(_cut(field, size)[:, 0])


def _octave_weight(octave: float, wavelength: Tensor, hurst: Tensor | float) -> Tensor:
    """(N,) amplitude of an octave; those longer than the field's wavelength fade within about an octave."""
    ratio = octave / wavelength
    return torch.where(ratio <= 1.0, ratio**hurst, torch.exp(-2.0 * torch.log2(ratio.clamp_min(1.0)).square()))


def _cut(field: Tensor, extent: int) -> Tensor:
    first = (field.shape[-1] - extent) // 2
    return field[..., first : first + extent, first : first + extent]


def standardise(field: Tensor) -> Tensor:
    """(N, H, W) with mean 0 and deviation 1 in each scene."""
    centred = field - field.mean((-2, -1), keepdim=True)
    return centred * centred.square().mean((-2, -1), keepdim=True).clamp_min(1e-12).rsqrt()


def top_share(field: Tensor, share: Tensor) -> Tensor:
    """(N, H, W) bytes, 1 on roughly the `share` (N,) of a standardised field's cells with the highest values."""
    threshold = math.sqrt(2.0) * torch.erfinv((1.0 - 2.0 * share).clamp(-1.0, 1.0))  # infinite at 0 and 1
    return where(field > spread(threshold))


def move(image: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Bilinear look-up at an offset: `result(x, y) = image(x + dx, y + dy)`, the border repeated.

    Args:
        image: (N, C, H, W).
        dx, dy: (N,) pixels.
    """
    height, width = image.shape[-2:]
    x = 2.0 * (torch.arange(width, device=image.device) + 0.5 + dx[:, None]) / width - 1.0
    y = 2.0 * (torch.arange(height, device=image.device) + 0.5 + dy[:, None]) / height - 1.0
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=-1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def pool(fine: Tensor, size: int) -> Tensor:
    """(N, C, F, F) averaged to (N, C, S, S); F is a multiple of S."""
    return F.avg_pool2d(fine, fine.shape[-1] // size)


def blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of (N, C, H, W) with a scale per scene, (N,) pixels up to about 1.2; the border is reflected."""
    taps = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1, device=image.device)
    kernel = torch.exp(-0.5 * (taps / sigma.clamp_min(0.05)[:, None]).square())
    kernel = (kernel / kernel.sum(1, keepdim=True))[:, :, None, None, None]
    for axis in (-1, -2):
        length = image.shape[axis]
        pad = (_BLUR_RADIUS, _BLUR_RADIUS, 0, 0) if axis == -1 else (0, 0, _BLUR_RADIUS, _BLUR_RADIUS)
        padded = F.pad(image, pad, mode="reflect")
        image = padded.narrow(axis, 0, length) * kernel[:, 0]
        for i in range(1, len(taps)):
            image = torch.addcmul(image, padded.narrow(axis, i, length), kernel[:, i])
    return image


def slopes(height: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences (along x, along y) of (N, H, W), the border repeated."""
    padded = F.pad(height[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    return (
        (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2,
        (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2,
    )
