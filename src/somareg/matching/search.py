"""Rotation x scale x translation search in front of the refinement: where to start when nothing is known.

Every hypothesis turns and scales the moving image about its centre at coarse resolution; one masked correlation then
gives all its translations at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.geometry import AffineTransform
from somareg.matching.correlation import correlate_all
from somareg.matching.pair import Pair

FeatureFn = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SearchCfg:
    """What is searched.

    Attributes:
        rotation_deg: rotations from minus to plus this; 180 means all around.
        rotation_step_deg: distance between neighbours.
        scale: (smallest, largest) scale of the moving image against the reference.
        scale_step: ratio between neighbours.
        radius: translation radius as a share of the reference's longer side.
        keep: best hypotheses returned.
    """

    rotation_deg: float = 22.0
    rotation_step_deg: float = 4.0
    scale: tuple[float, float] = (0.78, 1.28)
    scale_step: float = 1.07
    radius: float = 0.14
    keep: int = 12

    def hypotheses(self) -> list[tuple[float, float]]:
        """(rotation in degrees, scale) of every hypothesis, the identity among them."""
        turns = math.ceil(self.rotation_deg / self.rotation_step_deg)
        rotations = [i * self.rotation_deg / max(turns, 1) for i in range(-turns, turns + 1)]
        if self.rotation_deg >= 180:
            rotations = rotations[1:]
        low, high = math.log(self.scale[0]), math.log(self.scale[1])
        step = math.log(self.scale_step)
        below, above = math.ceil(-low / step), math.ceil(high / step)
        scales = (
            [low * i / below for i in range(below, 0, -1)] + [0.0] + [high * i / above for i in range(1, above + 1)]
        )
        return [(rotation, math.exp(scale)) for rotation in rotations for scale in scales]


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A start for the refinement: reference pixels -> moving pixels, and its correlation (-1..1)."""

    transform: AffineTransform
    score: float


def search(pair: Pair, start: AffineTransform, features: FeatureFn, stride: int, cfg: SearchCfg) -> list[Hypothesis]:
    """The best hypotheses around a start, best first.

    Args:
        pair: the two images at coarse resolution.
        start: reference pixels -> moving pixels expected from georeference or image centres, at that resolution.
        features: image, mask -> channels and validity at 1 / stride.
        stride: pixels per feature cell.
        cfg: what is searched.
    """
    height, width = pair.reference.shape[-2:]
    centre = ((width - 1) / 2, (height - 1) / 2)
    starts = [
        start.after(AffineTransform.from_parameters(rotation_deg=rotation, scale=scale, centre=centre))
        for rotation, scale in cfg.hypotheses()
    ]
    margin = max(2, math.ceil(cfg.radius * max(height, width) / stride))
    return rescore(pair, starts, features, stride, margin)[: cfg.keep]


def rescore(
    pair: Pair, starts: list[AffineTransform], features: FeatureFn, stride: int, margin: int, batch: int = 8
) -> list[Hypothesis]:
    """Best translation within `margin` cells of each start, and its correlation; best first."""
    fixed, fixed_valid = features(pair.reference, pair.reference_mask)
    if float(fixed_valid.sum()) == 0:
        return []
    found: list[Hypothesis] = []
    for i in range(0, len(starts), batch):
        group = starts[i : i + batch]
        warped, seen = _warp_all(pair.moving, pair.moving_mask, group, pair.shape, margin * stride)
        turned, turned_valid = features(warped, seen)
        height, width = fixed.shape[-2] + 2 * margin, fixed.shape[-1] + 2 * margin
        surfaces = correlate_all(
            fixed, fixed_valid, turned[..., :height, :width], turned_valid[..., :height, :width]
        ).cpu()
        for transform, surface in zip(group, surfaces, strict=True):
            best = int(surface.argmax())
            dy, dx = divmod(best, surface.shape[-1])
            shift = AffineTransform.from_parameters(shift=((dx - margin) * stride, (dy - margin) * stride))
            found.append(Hypothesis(transform.after(shift), float(surface.flatten()[best])))
    return sorted(found, key=lambda h: -h.score)


def _warp_all(
    moving: Tensor, mask: Tensor, transforms: list[AffineTransform], shape: tuple[int, int], pad: int
) -> tuple[Tensor, Tensor]:
    """The moving image under many affines, (n, C, h + 2 pad, w + 2 pad) and its validity."""
    height, width = moving.shape[-2:]
    y = torch.arange(-pad, shape[0] + pad, dtype=torch.float32)
    x = torch.arange(-pad, shape[1] + pad, dtype=torch.float32)
    yy, xx = torch.meshgrid(y, x, indexing="ij")
    points = torch.stack([xx, yy, torch.ones_like(xx)], dim=-1)
    matrices = torch.tensor(np.stack([t.matrix for t in transforms]), dtype=torch.float32)
    mapped = torch.einsum("hwk,njk->nhwj", points, matrices).to(moving.device)
    size = mapped.new_tensor([width, height])
    inside = ((mapped >= 0) & (mapped <= size - 1)).all(-1).to(moving)[:, None]
    normalised = (mapped + 0.5) * 2 / size - 1
    n = len(transforms)
    values = F.grid_sample(moving.expand(n, -1, -1, -1), normalised, padding_mode="border", align_corners=False)
    seen = F.grid_sample(mask.expand(n, -1, -1, -1), normalised, padding_mode="border", align_corners=False)
    return values, inside * (seen > 0.999)
