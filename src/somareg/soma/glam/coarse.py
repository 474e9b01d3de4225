"""GLAM (a): coarse matches at 1/16 from attention, all-pairs correlation and dual softmax, and their global affine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from somareg.matching.affine import AffineFit, fit_affine_irls
from somareg.matching.warping import cell_grid
from somareg.soma.glam.attention import AttentionBlock, positions

STRIDE = 16


@dataclass(frozen=True)
class CoarseCfg:
    """Settings of the coarse matcher.

    Attributes:
        channels: of the tokens.
        layers: pairs of self- and cross-attention.
        heads: attention heads.
        scale_px: residual at which a coarse match keeps a quarter of its weight in the robust fit.
        stiffness: see `fit_affine_batch`.
    """

    channels: int = 96
    layers: int = 2
    heads: int = 4
    scale_px: float = 12.0
    stiffness: float = 0.02


@dataclass(frozen=True, eq=False)
class CoarseMatches:
    """Matches of the reference's coarse cells; lengths in pixels.

    Attributes:
        points: (N, 2) centres (x, y) of the reference's cells.
        displacement: (B, N, 2) position of each one's match in the moving image minus its own position.
        confidence: (B, N) dual-softmax probability mass around the match, 0-1; 0 outside the mask.
        log_assignment: (B, N, M) log of the dual softmax: log p(moving | reference) + log p(reference | moving).
        shape: (height, width) of the moving image's cells, M = height * width.
        fit: their robust affine.
    """

    points: Tensor
    displacement: Tensor
    confidence: Tensor
    log_assignment: Tensor
    shape: tuple[int, int]
    fit: AffineFit


class CoarseMatcher(nn.Module):
    """Compare every cell of one image with every cell of the other.

    Args:
        inputs: channels of the features at 1/16.
        cfg: settings.
    """

    def __init__(self, inputs: int, cfg: CoarseCfg) -> None:
        super().__init__()
        self.cfg = cfg
        self.project = nn.Conv2d(inputs, cfg.channels, 1)
        self.own = nn.ModuleList(AttentionBlock(cfg.channels, cfg.heads) for _ in range(cfg.layers))
        self.cross = nn.ModuleList(AttentionBlock(cfg.channels, cfg.heads) for _ in range(cfg.layers))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(10.0)))

    def tokens(
        self, reference: Tensor, reference_valid: Tensor, moving: Tensor, moving_valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, C) and (B, M, C) after attention."""
        a, b = (self._embed(x) for x in (reference, moving))
        # Positions steer self-attention and are not added to the tokens: nearly aligned pairs could otherwise be
        # matched by position alone, and the network would learn nothing about their content.
        code_a, code_b = (self._code(x) for x in (reference, moving))
        seen_a, seen_b = (_seen(valid) for valid in (reference_valid, moving_valid))
        for own, cross in zip(self.own, self.cross, strict=True):
            a, b = own(a, a, seen_a, code_a), own(b, b, seen_b, code_b)
            a, b = cross(a, b, seen_b), cross(b, a, seen_a)
        return a, b

    def _embed(self, features: Tensor) -> Tensor:
        tokens = self.project(features)
        # Standardised over the image, so that the comparison depends on structure and not on a common mean.
        tokens = F.layer_norm((tokens - tokens.mean((-2, -1), keepdim=True)).permute(0, 2, 3, 1), tokens.shape[1:2])
        return tokens.flatten(1, 2)

    def _code(self, features: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        return positions(height, width, self.cfg.channels, features.device).to(features)

    def forward(
        self, reference: Tensor, reference_valid: Tensor, moving: Tensor, moving_valid: Tensor
    ) -> CoarseMatches:
        """Match a batch.

        Args:
            reference, moving: (B, C, h, w) features at 1/16; the two may differ in size.
            reference_valid, moving_valid: (B, 1, h, w).
        """
        a, b = self.tokens(reference, reference_valid, moving, moving_valid)
        with torch.autocast(reference.device.type, enabled=False):
            a, b = F.normalize(a.float(), dim=-1), F.normalize(b.float(), dim=-1)
            similarity = self.log_temperature.float().exp() * (a @ b.mT)
            seen_a, seen_b = (valid.flatten(1) > 0 for valid in (reference_valid, moving_valid))
            forward = similarity.masked_fill(~seen_b[:, None], -1e4).log_softmax(2)
            backward = similarity.masked_fill(~seen_a[:, :, None], -1e4).log_softmax(1)
            log_assignment = forward + backward
            shape = (moving.shape[-2], moving.shape[-1])
            points = cell_centres(reference.shape[-2], reference.shape[-1], STRIDE).to(reference.device)
            found, confidence = _read(log_assignment, shape)
            confidence = confidence * (seen_a & seen_b.any(1, keepdim=True))
            displacement = found - points
            fit, _ = fit_affine_irls(
                points.expand_as(displacement),
                displacement,
                confidence,
                scale_px=self.cfg.scale_px,
                stiffness=self.cfg.stiffness,
            )
        return CoarseMatches(points, displacement, confidence, log_assignment, shape, fit)


def _seen(valid: Tensor) -> Tensor:
    """(B, 1, h, w) -> (B, h * w) bool for attention; an image without valid cells counts as seen, to avoid nan."""
    flat = valid.flatten(1) > 0
    return flat | ~flat.any(1, keepdim=True)


def cell_centres(height: int, width: int, stride: int) -> Tensor:
    """Pixel coordinates (height * width, 2), (x, y), of the centres of feature cells."""
    return cell_grid((height, width), 0, stride, torch.device("cpu")).reshape(-1, 2).float()


def _read(log_assignment: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Sub-cell position (B, N, 2) in moving pixels and confidence (B, N) of each reference cell's match.

    The position is the mean over the 3 x 3 cells around the best one; a global mean would be biased by cells far away.
    """
    height, width = shape
    probability = log_assignment.exp()
    best = log_assignment.argmax(-1)
    row, column = best // width, best % width
    steps = torch.arange(-1, 2, device=best.device)
    rows = (row[..., None, None] + steps[:, None]).expand(*row.shape, 3, 3)
    columns = (column[..., None, None] + steps).expand(*row.shape, 3, 3)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = (rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)).flatten(2)
    mass = probability.gather(2, index).reshape(inside.shape) * inside
    total = mass.sum((-2, -1))
    share = mass / total.clamp_min(1e-12)[..., None, None]
    centre = (STRIDE - 1) / 2
    x = (share * columns).sum((-2, -1)) * STRIDE + centre
    y = (share * rows).sum((-2, -1)) * STRIDE + centre
    return torch.stack([x, y], dim=-1), total.clamp(0.0, 1.0)
