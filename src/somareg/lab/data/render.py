"""Crops of tiles on their device: copied pixel by pixel, or interpolated once by the kernel of `geometry.resample`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.features.masks import is_whole

KERNEL_MARGIN_PX = 3.0  # two of the cubic kernel and one of the anti-aliasing


def interpolate(tile: Tensor, valid: Tensor, x: Tensor, y: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Sample tiles at points by cubic convolution.

    Args:
        tile: (B, C, T, T) uint8.
        valid: (B, 1, T, T) bool.
        x, y: (B, S, S) pixels of the tile, one for each pixel of the result.
        truth: (B, 2, 3) map by which the result shows the ground larger or smaller; where smaller, detail that it
            cannot represent is smoothed away before.

    Returns:
        values (B, C, S, S), clipped to 0-255, and validity (B, 1, S, S) float32, 1 where all that was read is valid.
    """
    size = tile.shape[-1]
    values = _cubic(_smooth_where_shrunk(tile.float(), truth), x, y).clamp_(0, 255)
    inside = ((x >= 1) & (x <= size - 2) & (y >= 1) & (y <= size - 2))[:, None].float()
    if is_whole(valid):
        return values, inside
    reach = int(KERNEL_MARGIN_PX)
    hole = (~valid).float()
    for side in ((2 * reach + 1, 1), (1, 2 * reach + 1)):
        hole = F.max_pool2d(hole, side, stride=1, padding=(side[0] // 2, side[1] // 2))
    return values, inside * (1 - _look_up(hole, x, y, "nearest"))


def _look_up(image: Tensor, x: Tensor, y: Tensor, mode: str) -> Tensor:
    """Values (B, C, S, S) of (B, C, T, T) at pixels."""
    grid = (torch.stack([x, y], dim=-1) + 0.5) * (2 / image.shape[-1]) - 1
    return F.grid_sample(image, grid, mode=mode, padding_mode="border", align_corners=False)


def _cubic(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Cubic convolution with a = -0.5 (Keys, 1981), the kernel of `geometry.resample`.

    torch's own bicubic mode has a = -0.75: it bends a ramp by up to 0.05 px, which a sub-pixel truth cannot afford. Its
    two inner taps have one sign and are one bilinear look-up, so that nine look-ups do for sixteen taps.
    """
    value = torch.zeros_like(image[..., :1, :1])
    columns, rows = _taps(x), _taps(y)
    for at_y, weight_y in rows:
        for at_x, weight_x in columns:
            value = value + (weight_x * weight_y)[:, None] * _look_up(image, at_x, at_y, "bilinear")
    return value


def _taps(x: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """Places and weights along one axis: the outer left tap, both inner taps as one, the outer right tap."""
    whole = x.floor()
    t = x - whole
    s = 1 - t
    right = 1 + s * s * (1.5 * s - 2.5)
    inner = 1 + 0.5 * t * s  # the weights add up to one
    return (whole - 1, -0.5 * t * s * s), (whole + right / inner, inner), (whole + 2, -0.5 * s * t * t)


def _smooth_where_shrunk(image: Tensor, truth: Tensor) -> Tensor:
    """Three taps per axis: with them a pixel that covers s > 1 tile pixels sees a spread of s / 2."""
    determinant = (truth[:, 0, 0] * truth[:, 1, 1] - truth[:, 0, 1] * truth[:, 1, 0]).abs()
    side = (0.125 * (1 / determinant - 1)).clamp(0, 1 / 3).float()[:, None, None, None]
    for axis in (-1, -2):
        padding = (1, 1, 0, 0) if axis == -1 else (0, 0, 1, 1)
        padded, length = F.pad(image, padding, mode="replicate"), image.shape[axis]
        around = padded.narrow(axis, 0, length) + padded.narrow(axis, 2, length)
        image = image + side * (around - 2 * image)
    return image


def copy_pixels(tile: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Values (B, C, S, S) of tiles (B, C, T, T) at whole pixels x and y (B, S, S), untouched."""
    position = (y * tile.shape[-1] + x).round().long().flatten(1)[:, None].expand(-1, tile.shape[1], -1)
    return tile.flatten(2).gather(2, position).view(*tile.shape[:2], *x.shape[1:])
