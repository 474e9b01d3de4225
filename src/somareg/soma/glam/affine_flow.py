"""GLAM (c): warp the moving features by the current affine, correlate windows, read displacements, fit, compose.

The trained stage is the same as a step of `refine_affine`: one window correlation, one posterior, one fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from somareg.matching.affine import apply_affine_batch, compose_batch, departures, invert_batch
from somareg.matching.correlation import correlate_grid
from somareg.matching.fit import fit_windows
from somareg.matching.posterior import FLOOR_CELLS2, log_likelihood, read_windows
from somareg.matching.steps import ShapeCfg, StepCfg
from somareg.matching.warping import cell_grid, sample_cells
from somareg.matching.windows import MIN_COVERAGE, WindowCfg, WindowCorrelation, coverage, window_grid


@dataclass(frozen=True)
class StageCfg:
    """One resolution of the affine-flow stages; lengths in feature cells.

    Attributes:
        stride: pixels per cell: 8, 4 or 2.
        window: size, margin and spacing of the windows.
        sigmas: widths of the prior around the affine's prediction, decreasing, one fit each.
        iterations: number of times that the stage warps, correlates and fits.
        stiffness: see `fit_affine_batch`.
        shape: prior on aspect and shear; None for none.
        limit: windows at most (about), in training; `register` sets its own.
    """

    stride: int
    window: WindowCfg
    sigmas: tuple[float, ...] = (3.0, 2.0, 1.5)
    iterations: int = 1
    stiffness: float = 0.4
    shape: ShapeCfg | None = None
    limit: int = 150

    @property
    def step(self) -> StepCfg:
        """The same as a step of `refine_affine`."""
        return StepCfg(self.window, self.sigmas, self.stiffness, self.stride, shape=self.shape)


@dataclass(frozen=True, eq=False)
class StageEstimate:
    """Result of one iteration of a stage; lengths in pixels of the reference.

    Attributes:
        name: such as "1/8".
        stride: pixels per feature cell.
        affine: (B, 2, 3) float64, reference pixels -> moving pixels, after this stage.
        start: (B, 2, 3) the affine under which the moving features were warped.
        points: (B, N, 2) window centres.
        displacement: (B, N, 2) residual measured by each window, relative to `start`.
        precision: (B, N) precision of each, 1/px^2 (mean of both axes), 0 where nothing was valid.
        weight: (B, N) share of each window that was valid, 0-1.
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


def affine_flow(
    cfg: StageCfg,
    temperature: Tensor,
    reference: Tensor,
    reference_valid: Tensor,
    moving: Tensor,
    moving_valid: Tensor,
    affine: Tensor,
    base: Tensor | None = None,
) -> StageEstimate:
    """One iteration of a stage on a batch of pairs.

    Args:
        cfg: the stage.
        temperature: log-likelihood per unit of correlation, a scalar that is trained.
        reference: (B, K, h, w) features at the stage's stride.
        reference_valid: (B, 1, h, w).
        moving, moving_valid: (B, K, h2, w2), (B, 1, h2, w2).
        affine: (B, 2, 3) current estimate, reference pixels -> moving pixels.
        base: (B, 2, 3) reference pixels -> moving pixels, under which the moving features were already warped (their
            own pixels are `base^-1` of moving pixels); None if they were not.
    """
    with torch.autocast(reference.device.type, enabled=False):
        reference, reference_valid, moving, moving_valid = (
            each.float() for each in (reference, reference_valid, moving, moving_valid)
        )
        shape = (reference.shape[-2], reference.shape[-1])
        cell, margin = float(cfg.stride), cfg.window.margin
        sampled_by = affine if base is None else compose_batch(invert_batch(base), affine)
        warped, warped_valid = warp_features(moving, moving_valid, sampled_by, shape, margin, cfg.stride)
        step = cfg.step.on(shape, cfg.limit)
        grid = window_grid(shape, step.window)
        surfaces, seen = correlate_grid(reference, reference_valid, warped, warped_valid, grid)
        known = coverage(reference_valid, grid)
        seen = seen * known * ((seen >= cfg.window.min_seen) & (known > MIN_COVERAGE))
        windows = WindowCorrelation(surfaces, grid.centres(reference), seen, temperature)
        start = affine.double()
        fits = fit_windows(windows, cell, step, max(shape) * cell / 2, departures(start) if cfg.shape else None)
        points = fits.matches.points
        predicted = (apply_affine_batch(fits.residual, points) - points).to(surfaces)
        # Each window's own match near the prediction, without the narrow prior of the fit.
        own = read_windows(windows, cell, predicted, cfg.sigmas[0] * cell)
        return StageEstimate(
            name=f"1/{cfg.stride}",
            stride=cfg.stride,
            affine=compose_batch(start, fits.residual),
            start=start,
            points=points,
            displacement=own.displacement,
            precision=seen / (own.variance + FLOOR_CELLS2 * cell**2),
            weight=seen,
            condition=fits.condition,
            refused=fits.refused,
            logits=log_likelihood(windows),
            margin=margin,
        )


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
        (B, K, h + 2 margin, w + 2 margin) and validity (B, 1, ...), 1 where all cells that were read are valid.
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
