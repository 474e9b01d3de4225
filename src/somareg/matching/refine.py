"""Affine refinement: warp by the estimate, correlate windows, fit, compose, repeat.

A residual found after warping by A is applied first: `moving <- A @ D` (design conventions).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from somareg.geometry import AffineTransform
from somareg.matching.affine import ShapePrior, apply_affine_batch, departure, fit_affine, to_transform
from somareg.matching.matcher import Matcher
from somareg.matching.posterior import WindowMatches, read_windows
from somareg.matching.windows import WindowCfg, WindowCorrelation, roomy, thinned


@dataclass(frozen=True)
class StepCfg:
    """One warp-correlate-fit step; lengths in feature cells.

    Attributes:
        window: window settings.
        sigmas: prior widths, one fit each, shrinking.
        stiffness: pull towards a translation, see `fit_affine`.
        stride: level of the features, pixels per cell; None for the finest.
        reuse_px: overrides the matcher's: a last step wants features that were hardly resampled.
        shape: deviation of aspect and shear from those of a similarity that is expected; None for any.
    """

    window: WindowCfg
    sigmas: tuple[float, ...]
    stiffness: float
    stride: int | None = None
    reuse_px: float | None = None
    shape: float | None = None

    def on(self, cells: tuple[int, int], limit: int) -> StepCfg:
        """The same with windows that fit (height, width) cells, about `limit` of them at most."""
        return replace(self, window=thinned(roomy(self.window, cells), cells, limit))


FLOOR_CELLS2 = 0.3  # variance of a window that is certain of its cell, cells^2

SHAPE = 0.005  # orthorectified products of one place shear and stretch by less against each other

NEAR = (
    StepCfg(WindowCfg(28, 4, 8), (2.0, 2.0, 1.5), 1.2, shape=SHAPE),
    StepCfg(WindowCfg(24, 4, 8), (1.5, 1.5, 1.2), 0.4, shape=SHAPE),
    StepCfg(WindowCfg(20, 3, 6), (1.2, 1.0, 0.8), 0.4, shape=SHAPE),
)


def refine_affine(
    matcher: Matcher, start: AffineTransform, steps: tuple[StepCfg, ...], limit: int = 400
) -> tuple[AffineTransform, WindowMatches]:
    """Refine an affine by the given steps.

    Args:
        matcher: the pair at one resolution.
        start: reference pixels -> moving pixels.
        steps: see `StepCfg`.
        limit: windows per step at most (about).

    Returns:
        The affine and the last step's matches; their displacements are relative to the last warp.

    Raises:
        EstimationError: no window has content, or the fit is ill-conditioned.
    """
    current, matches = start, None
    extent = max(matcher.pair.shape) / 2
    for step in steps:
        cell = float(step.stride or matcher.finest)
        step = step.on(matcher.cells(step.stride), limit)
        windows = matcher.correlate(current, step.window, step.stride, step.reuse_px)
        residual, matches = fit_windows(windows, cell, step, extent, departure(current))
        current = current.after(to_transform(residual))
    assert matches is not None  # steps is never empty
    return current, matches


def fit_windows(
    windows: WindowCorrelation,
    cell: float,
    step: StepCfg,
    extent: float,
    known: tuple[float, float] = (0.0, 0.0),
) -> tuple[Tensor, WindowMatches]:
    """The affine that the windows support, by reading them under a prior around it that shrinks from fit to fit (EM).

    Args:
        windows: correlation surfaces.
        cell: reference pixels per feature cell.
        step: widths of the prior and stiffness, and the windows that were correlated.
        extent: see `fit_affine`.
        known: departure from a similarity of the map that the residual comes before.

    Returns:
        Residual affine (2, 3), reference pixels -> reference pixels, and the matches of the last fit.

    Raises:
        EstimationError: no window has content, or the fit is ill-conditioned.
    """
    residual, matches = torch.eye(2, 3, dtype=torch.float64), None
    points = windows.centres.double() * cell + (cell - 1) / 2
    for sigma in step.sigmas:
        predicted = apply_affine_batch(residual, points) - points
        matches = read_windows(windows, cell, predicted, sigma * cell)
        shape = None
        if step.shape is not None:
            shape = _shape_prior(matches, step.window.size, cell, step.shape * extent, known)
        residual = fit_affine(
            matches.points, matches.displacement, matches.weight, stiffness=step.stiffness, extent=extent, shape=shape
        )
    assert matches is not None  # sigmas is never empty
    return residual, matches


def _shape_prior(
    matches: WindowMatches, size: int, cell: float, deviation_px: float, known: tuple[float, float]
) -> ShapePrior:
    """The prior in units of an average window: its variance, counted as often as windows overlap.

    Args:
        matches: of the windows.
        size: of the windows, in cells of `cell` pixels.
        cell: pixels per cell.
        deviation_px: of shear and aspect, at the rim of the image.
        known: see `fit_windows`.
    """
    weight, side = matches.weight.double(), size * cell
    typical = float((weight * (matches.variance + FLOOR_CELLS2 * cell**2)).sum() / weight.sum().clamp_min(1e-12))
    spread = matches.points.amax(0) - matches.points.amin(0) + side
    overlap = max(1.0, len(matches.points) * side**2 / float(spread.prod()))
    return ShapePrior(typical * overlap / deviation_px**2, known)


def rescale(transform: AffineTransform, old: int, new: int) -> AffineTransform:
    """An affine between images reduced by `old` as an affine between images reduced by `new`."""
    up, down = AffineTransform.reduction(old), AffineTransform.reduction(new)
    full = up.after(transform).after(up.inverse)
    return down.inverse.after(full).after(down)
