"""Points and affines for the tests of the fit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from somareg.geometry import AffineTransform

POINTS = torch.from_numpy(np.random.default_rng(0).uniform(0, 500, (40, 2)))


def line(*, jitter: float = 0.0) -> Tensor:
    t = torch.linspace(0, 300, 30, dtype=torch.float64)
    wobble = torch.from_numpy(np.random.default_rng(1).normal(0, 1, 30))
    return torch.stack([t, 0.5 * t + 10 + jitter * wobble], dim=1)


def affines(count: int, seed: int = 0) -> Tensor:
    """(count, 2, 3) rotations, scales, shears and shifts, none like another; they do not commute."""
    rng = np.random.default_rng(seed)
    matrices = [
        AffineTransform.from_parameters(
            rotation_deg=float(rng.uniform(-30, 30)),
            scale=float(rng.uniform(0.8, 1.25)),
            shear_deg=float(rng.uniform(-15, 15)),
            shift=(float(rng.uniform(-20, 20)), float(rng.uniform(-20, 20))),
        ).matrix
        for _ in range(count)
    ]
    return torch.from_numpy(np.stack(matrices))


def scattered(count: int, points: int = 30, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(0, 400, (count, points, 2)))
