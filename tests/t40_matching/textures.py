"""Textured ground that is a function of position: both images of a pair are evaluated, none is resampled."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from somareg.matching.affine import apply_affine_batch, invert_batch

Size = tuple[int, int]


def ground(points: Tensor, seed: int = 0, waves: int = 96) -> Tensor:
    """Texture (...) at ground points (..., 2): plane waves of 6 to 60 px, bent into fields with edges."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(3, waves, generator=generator, dtype=torch.float64)
    number = 2 * math.pi / (6.0 * 10.0 ** draw[0])
    angle, phase = draw[1] * math.pi, draw[2] * 2 * math.pi
    vectors = torch.stack([number * angle.cos(), number * angle.sin()])
    height = torch.sin(points.double() @ vectors + phase) @ number.rsqrt()
    return torch.tanh(2.0 * height / height.std())


def pixels(size: Size) -> Tensor:
    """Pixel centres (H, W, 2), (x, y)."""
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
    return torch.stack([x, y], dim=-1)


def standard(image: Tensor) -> Tensor:
    """Mean 0, deviation 1."""
    return (image - image.mean((-2, -1), keepdim=True)) / image.std((-2, -1), keepdim=True)


def affine(size: Size, *, degrees: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """(1, 2, 3) float64: rotation (+x towards +y) and scale about the centre of (H, W), then a shift."""
    angle = math.radians(degrees)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    linear = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    centre = torch.tensor([(size[1] - 1) / 2, (size[0] - 1) / 2], dtype=torch.float64)
    offset = centre + torch.tensor(shift, dtype=torch.float64) - linear @ centre
    return torch.cat([linear, offset[:, None]], dim=1)[None]


def view(truth: Tensor, size: Size, seed: int = 0) -> Tensor:
    """The moving image (1, 1, H, W): its pixel q shows the ground at truth^-1(q)."""
    return standard(ground(apply_affine_batch(invert_batch(truth), pixels(size)[None])[0], seed)).float()[None, None]


def reference_view(size: Size, seed: int = 0) -> Tensor:
    """The reference image (1, 1, H, W): its pixel p shows the ground at p."""
    return standard(ground(pixels(size), seed)).float()[None, None]


def off(found: Tensor, truth: Tensor, size: Size) -> float:
    """RMS distance of two affines (B, 2, 3) over the pixels of (H, W)."""
    where = pixels(size).expand(len(found), *size, 2)
    difference = apply_affine_batch(found.double(), where) - apply_affine_batch(truth.double(), where)
    return float(difference.square().sum(-1).mean().sqrt())
