"""Sampling of images and features on the reference grid, with one half-pixel rule (`align_corners=False`)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.features.masks import is_whole
from somareg.geometry import AffineTransform
from somareg.matching.affine import apply_affine_batch
from somareg.types import Transform


def pixel_grid(height: int, width: int, pad: int, device: torch.device) -> Tensor:
    """Pixel-centre coordinates (height + 2 pad, width + 2 pad, 2) as (x, y), float64, starting at (-pad, -pad)."""
    y = torch.arange(-pad, height + pad, device=device, dtype=torch.float64)
    x = torch.arange(-pad, width + pad, device=device, dtype=torch.float64)
    yy, xx = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([xx, yy], dim=-1)


def map_grid(grid: Tensor, transform: Transform) -> Tensor:
    """`transform` applied to a grid (h, w, 2) of points."""
    if isinstance(transform, AffineTransform):
        matrix = torch.tensor(transform.matrix, dtype=grid.dtype, device=grid.device)
        return apply_affine_batch(matrix, grid)
    points = transform(grid.reshape(-1, 2).cpu().numpy())
    return torch.from_numpy(np.ascontiguousarray(points)).to(grid).reshape(grid.shape)


def sample(image: Tensor, mask: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Bilinear values of an image at pixel coordinates.

    Args:
        image: (B, C, H, W) float32.
        mask: (B, 1, H, W) float32, 1 valid.
        points: (B or 1, h, w, 2) pixel-centre coordinates (x, y) in the image.

    Returns:
        values (B, C, h, w) and validity (B, 1, h, w), 1 where all pixels that were read are valid, else 0.
    """
    height, width = image.shape[-2:]
    size = torch.tensor([width, height], dtype=points.dtype, device=points.device)
    normalised = ((points + 0.5) * 2 / size - 1).to(image.dtype)
    values = F.grid_sample(image, normalised, mode="bilinear", padding_mode="border", align_corners=False)
    inside = ((points >= 0) & (points <= size - 1)).all(-1).to(image.dtype)[:, None]
    if is_whole(mask):
        return values, inside
    seen = F.grid_sample(mask, normalised, mode="bilinear", padding_mode="border", align_corners=False)
    return values, inside * (seen > 0.999)


def cell_grid(shape: tuple[int, int], margin: int, stride: int, device: torch.device) -> Tensor:
    """Pixel coordinates (h + 2 margin, w + 2 margin, 2), (x, y), float64, of the centres of feature cells."""
    return pixel_grid(*shape, margin, device) * stride + (stride - 1) / 2


def sample_cells(features: Tensor, valid: Tensor, points: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Bilinear values of feature maps at pixel coordinates.

    Args:
        features, valid: (B, K, h2, w2), (B, 1, h2, w2) at `stride` pixels per cell.
        points: (B, h, w, 2) pixel coordinates (x, y) in the image of the features.
        stride: pixels per cell.

    Returns:
        values (B, K, h, w), 0 where unknown, and validity (B, 1, h, w), 1 where all cells that were read are valid.
    """
    extent = points.new_tensor([features.shape[-1] * stride, features.shape[-2] * stride])
    grid = ((points + 0.5) * 2 / extent - 1).to(features)
    values = F.grid_sample(features, grid, padding_mode="border", align_corners=False)
    # Validity repeats at the border as the values do, so that it refers to the cells that were read.
    seen = F.grid_sample(valid, grid, padding_mode="border", align_corners=False)
    inside = ((points > -0.5) & (points < extent - 0.5)).all(-1)[:, None]
    known = (inside & (seen > 0.999)).to(features)
    return values * known, known


def warp_to_reference(
    image: Tensor, mask: Tensor, transform: Transform, shape: tuple[int, int], pad: int
) -> tuple[Tensor, Tensor]:
    """The moving image resampled on the reference grid, which is enlarged by `pad` pixels on each side.

    Args:
        image: (1, C, H, W) float32 moving image.
        mask: (1, 1, H, W) float32.
        transform: reference pixels -> moving pixels.
        shape: (height, width) of the reference.
        pad: pixels.

    Returns:
        values (1, C, h + 2 pad, w + 2 pad) and validity (1, 1, h + 2 pad, w + 2 pad).
    """
    points = map_grid(pixel_grid(*shape, pad, image.device), transform)
    return sample(image, mask, points[None])


def reduce(image: Tensor, mask: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Mask-aware mean over `factor` x `factor` pixels; pixel i of the result is centred on
    `factor * i + (factor - 1) / 2`.
    """
    if factor == 1:
        return image, mask
    weight = F.avg_pool2d(mask, factor)
    mean = F.avg_pool2d(image * mask, factor) / weight.clamp_min(1e-6)
    return mean, (weight > 0.5).to(image.dtype)
