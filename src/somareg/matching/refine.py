"""Affine refinement: warp by the estimate, correlate windows, fit, compose, repeat.

A residual D found after warping by A is applied first: `moving <- A @ D` (design conventions).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform
from somareg.matching import fit
from somareg.matching.affine import NO_SHAPE, Shape, departure, refusal, to_transform
from somareg.matching.matcher import Matcher
from somareg.matching.posterior import WindowMatches
from somareg.matching.steps import StepCfg
from somareg.matching.windows import WindowCorrelation, overlap


@dataclass(frozen=True, eq=False)
class Fit:
    """Correction that windows give to the affine under which they were correlated, see `fit.Fits`.

    Attributes:
        residual: (2, 3) float64, reference pixels -> reference pixels, applied before that affine.
        matches: the windows' last matches, to which the residual was fitted.
        support: log-likelihood ratio per window of the residual against uninformative windows.
        independent: number of windows, overlapping ones counted once.
    """

    residual: Tensor
    matches: WindowMatches
    support: float
    independent: float


@dataclass(frozen=True, eq=False)
class Refined:
    """A refined affine.

    Attributes:
        affine: reference pixels -> moving pixels.
        matches: of the last step; their displacements are relative to the last warp.
        support, independent: of its windows, see `Fit`.
    """

    affine: AffineTransform
    matches: WindowMatches
    support: float
    independent: float


def refine_affine(
    matcher: Matcher,
    start: AffineTransform,
    steps: tuple[StepCfg, ...],
    limit: int = 400,
    expected: Shape = NO_SHAPE,
) -> Refined:
    """Refine an affine by the given steps.

    Args:
        matcher: the pair at one resolution.
        start: reference pixels -> moving pixels.
        steps: see `StepCfg`.
        limit: windows per step at most (about).
        expected: expected departure of the whole map from a similarity, see `departure`.

    Raises:
        EstimationError: no window has content, or the fit is ill-conditioned.
    """
    current, one = start, None
    extent = max(matcher.pair.shape) / 2
    for step in steps:
        cell = float(step.stride or matcher.finest)
        step = step.on(matcher.cells(step.stride), limit)
        windows = matcher.correlate(current, step.window, step.stride, step.reuse_px)
        bent = departure(current)
        one = fit_windows(windows, cell, step, extent, (bent[0] - expected[0], bent[1] - expected[1]))
        current = current.after(to_transform(one.residual))
    assert one is not None  # steps is never empty
    return Refined(current, one.matches, one.support, one.independent)


def fit_windows(
    windows: WindowCorrelation,
    cell: float,
    step: StepCfg,
    extent: float,
    known: Shape = NO_SHAPE,
) -> Fit:
    """`fit.fit_windows` for one pair.

    Args:
        windows: correlation surfaces of one pair.
        cell, step, extent: see there.
        known: departure from the expected shape of the map that is applied after the residual.

    Raises:
        EstimationError: no window has content, or the fit is ill-conditioned.
    """
    if not len(windows.centres):
        raise EstimationError("no window of the reference meets valid pixels of the moving image")
    batch = replace(windows, surfaces=windows.surfaces[None], valid=windows.valid[None])
    aspect, shear = (torch.tensor([each], dtype=torch.float64) for each in known)
    fits = fit.fit_windows(batch, cell, step, extent, (aspect, shear))
    if bool(fits.refused[0]):
        raise refusal(windows.valid)
    matches = WindowMatches(*(each[0] for each in vars(fits.matches).values()))
    independent = len(windows.centres) / overlap(windows.centres, step.window.size)
    return Fit(fits.residual[0], matches, float(fits.support), independent)


def rescale(transform: AffineTransform, old: int, new: int) -> AffineTransform:
    """Convert an affine between images reduced by `old` to images reduced by `new`."""
    up, down = AffineTransform.reduction(old), AffineTransform.reduction(new)
    full = up.after(transform).after(up.inverse)
    return down.inverse.after(full).after(down)
