"""GLAM (c): warp the moving features by the current affine, correlate windows, read displacements, fit, compose.

The batched, differentiable form of `refine`: the same window correlation, posterior and fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from somareg.matching.affine import apply_affine_batch, compose_batch, fit_affine_batch, invert_batch
from somareg.matching.correlation import correlate_grid
from somareg.matching.posterior import candidate_displacements, posterior
from somareg.matching.warping import cell_grid, sample_cells
from somareg.matching.windows import MIN_COVERAGE, WindowCfg, coverage, roomy, thinned, window_grid


@dataclass(frozen=True)
class StageCfg:
    """One resolution of the affine-flow stages; lengths in feature cells.

    Attributes:
        stride: pixels per cell: 8, 4 or 2.
        window: size, margin and spacing of the windows.
        sigmas: widths of the prior around what the affine predicts; one fit each, shrinking.
        iterations: times the stage warps, correlates and fits.
        stiffness: see `fit_affine_batch`.
        limit: windows at most (about).
    """

    stride: int
    window: WindowCfg
    sigmas: tuple[float, ...] = (3.0, 2.0, 1.5)
    iterations: int = 1
    stiffness: float = 0.4
    limit: int = 150


@dataclass(frozen=True, eq=False)
class StageEstimate:
    """What one iteration of a stage found; lengths in pixels of the reference.

    Attributes:
        name: such as "1/8".
        stride: pixels per feature cell.
        affine: (B, 2, 3) float64, reference pixels -> moving pixels, after this stage.
        start: (B, 2, 3) the affine that the moving features were warped by.
        points: (B, N, 2) window centres.
        displacement: (B, N, 2) residual measured by each window, relative to `start`.
        precision: (B, N) precision of each, 1/px^2 (mean of both axes), 0 where nothing was seen.
        weight: (B, N) share of each window that was seen, 0-1.
        condition: (B,) condition number of the fit.
        refused: (B,) bool, the fit was refused and `affine` is `start`.
        logits: (B, N, n * n) log-likelihood of every displacement in the margin.
        margin: of the windows, cells; n = 2 margin + 1.
    """

    name: str
    stride: int
    affine: Tensor
    start: Tensor
    points: Tensor
    displacement: Tensor
    precision: Tensor
    weight: Tensor
    condition: Tensor
    refused: Tensor
    logits: Tensor
    margin: int


class AffineFlowStage(nn.Module):
    """Learns how much a correlation coefficient says (temperature) and how precise a sharp peak is (floor).

    Args:
        cfg: settings.
        temperature: initial log-likelihood per unit of correlation.
    """

    def __init__(self, cfg: StageCfg, temperature: float = 25.0) -> None:
        super().__init__()
        self.cfg = cfg
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.log_floor = nn.Parameter(torch.tensor(math.log(0.15)))

    def forward(
        self,
        reference: Tensor,
        reference_valid: Tensor,
        moving: Tensor,
        moving_valid: Tensor,
        affine: Tensor,
        base: Tensor | None = None,
    ) -> StageEstimate:
        """One iteration.

        Args:
            reference: (B, K, h, w) features at the stage's stride.
            reference_valid: (B, 1, h, w).
            moving, moving_valid: (B, K, h2, w2), (B, 1, h2, w2).
            affine: (B, 2, 3) reference pixels -> moving pixels so far.
            base: (B, 2, 3) reference pixels -> moving pixels of the map that the moving features have been warped by
                already (their own pixels are `base^-1` of moving pixels); None when they have not.
        """
        with torch.autocast(reference.device.type, enabled=False):
            return self._estimate(
                reference.float(), reference_valid.float(), moving.float(), moving_valid.float(), affine, base
            )

    def _estimate(
        self,
        reference: Tensor,
        reference_valid: Tensor,
        moving: Tensor,
        moving_valid: Tensor,
        affine: Tensor,
        base: Tensor | None,
    ) -> StageEstimate:
        cfg, shape = self.cfg, (reference.shape[-2], reference.shape[-1])
        cell, margin = float(cfg.stride), cfg.window.margin
        sampled_by = affine if base is None else compose_batch(invert_batch(base), affine)
        warped, warped_valid = warp_features(moving, moving_valid, sampled_by, shape, margin, cfg.stride)
        grid = window_grid(shape, thinned(roomy(cfg.window, shape), shape, cfg.limit))
        surfaces, seen = correlate_grid(reference, reference_valid, warped, warped_valid, grid)
        known = coverage(reference_valid, grid)
        seen = seen * known * ((seen >= cfg.window.min_seen) & (known > MIN_COVERAGE))
        points = (grid.centres(reference) * cell + (cell - 1) / 2).expand(len(reference), -1, 2)
        logits = self.log_temperature.exp() * surfaces.flatten(2)
        residual, displacement, precision, fit = self._fit(logits, seen, points, max(shape) * cell / 2)
        start = affine.double()
        return StageEstimate(
            name=f"1/{cfg.stride}",
            stride=cfg.stride,
            affine=compose_batch(start, residual),
            start=start,
            points=points,
            displacement=displacement,
            precision=precision,
            weight=seen,
            condition=fit[0],
            refused=fit[1],
            logits=logits,
            margin=margin,
        )

    def _fit(
        self, logits: Tensor, seen: Tensor, points: Tensor, extent: float
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Read the windows under a shrinking prior around the affine that they themselves support.

        Returns:
            residual affine (B, 2, 3), displacement (B, N, 2), precision (B, N), (condition, refused).
        """
        cell = float(self.cfg.stride)
        candidates = candidate_displacements(self.cfg.window.margin, cell, logits)
        floor = self.log_floor.exp() * cell**2 * torch.eye(2, dtype=logits.dtype, device=logits.device)
        predicted = torch.zeros_like(points)
        for sigma in self.cfg.sigmas:
            found = posterior(logits, candidates, predicted, sigma * cell)
            matrix = invert_2x2(found.covariance + floor) * seen[..., None, None]
            fit = fit_affine_batch(points, found.mean, matrix, stiffness=self.cfg.stiffness, extent=extent)
            predicted = (apply_affine_batch(fit.matrix, points) - points).to(logits)
        # What a window says by itself nearby, without the narrow prior that served the fit.
        own = posterior(logits, candidates, predicted, self.cfg.sigmas[0] * cell)
        spread = own.covariance.diagonal(dim1=-2, dim2=-1).mean(-1) + floor[0, 0]
        return fit.matrix, own.mean, seen / spread, (fit.condition, fit.refused)


def invert_2x2(matrix: Tensor) -> Tensor:
    """Inverse of positive definite (..., 2, 2) matrices."""
    a, b, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]
    determinant = (a * d - b * b).clamp_min(1e-12)
    rows = torch.stack([torch.stack([d, -b], -1), torch.stack([-b, a], -1)], -2)
    return rows / determinant[..., None, None]


def warp_features(
    features: Tensor, valid: Tensor, affine: Tensor, shape: tuple[int, int], margin: int, stride: int
) -> tuple[Tensor, Tensor]:
    """Moving features on the reference's cells, enlarged by a margin.

    Args:
        features, valid: (B, K, h2, w2), (B, 1, h2, w2) at `stride` pixels per cell.
        affine: (B, 2, 3) reference pixels -> moving pixels.
        shape: (h, w) of the reference, cells.
        margin: cells on each side.
        stride: pixels per cell.

    Returns:
        (B, K, h + 2 margin, w + 2 margin) and validity (B, 1, ...), 1 where all that was read is valid.
    """
    centres = cell_grid(shape, margin, stride, features.device)
    mapped = apply_affine_batch(affine.double(), centres.expand(len(features), *centres.shape))
    return sample_cells(features, valid, mapped, stride)


def default_stages() -> tuple[StageCfg, ...]:
    """1/8, 1/4 and 1/2 with windows of 64 px and more on the way down to 48 px."""
    return (
        StageCfg(8, WindowCfg(size=8, margin=4, stride=3), (4.0, 3.0, 2.0), stiffness=4.0),
        StageCfg(4, WindowCfg(size=14, margin=4, stride=4), (3.0, 2.0, 1.5), stiffness=1.2),
        StageCfg(2, WindowCfg(size=28, margin=4, stride=8), (2.0, 1.5, 1.2), stiffness=0.4),
    )
