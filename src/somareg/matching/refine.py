"""Affine refinement: warp by the estimate, correlate windows, fit, compose, repeat.

A residual found after warping by A is applied first: `moving <- A @ D` (design conventions). Each step fits the windows
twice, with a map that is nearly a similarity and with any affine, and keeps the affine where the windows are clearly
likelier under it: orthorectified products of one place differ by a similarity, where windows say little only that
knowledge keeps the fit from bending, and products that were not orthorectified alike differ by more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform
from somareg.matching.affine import NO_SHAPE, Shape, ShapePrior, apply_affine_batch, departure, fit_affine, to_transform
from somareg.matching.matcher import Matcher
from somareg.matching.posterior import WindowMatches, read_windows, support_at
from somareg.matching.windows import WindowCfg, WindowCorrelation, overlap, roomy, thinned


@dataclass(frozen=True)
class ShapeCfg:
    """What is believed of aspect and shear before the windows are looked at.

    Attributes:
        deviation: of aspect and shear from the expected ones (those of a similarity unless a start says otherwise).
        gain: rise of the windows' log likelihood from which any aspect and shear is believed instead.
    """

    deviation: float = 0.005  # orthorectified products of one place shear and stretch by less against each other
    gain: float = 3.0


@dataclass(frozen=True)
class StepCfg:
    """One warp-correlate-fit step; lengths in feature cells.

    Attributes:
        window: window settings.
        sigmas: prior widths, one fit each, shrinking.
        stiffness: pull towards a translation, see `fit_affine`.
        stride: level of the features, pixels per cell; None for the finest.
        reuse_px: overrides the matcher's: a last step wants features that were hardly resampled.
        shape: what is believed of aspect and shear; None for nothing.
    """

    window: WindowCfg
    sigmas: tuple[float, ...]
    stiffness: float
    stride: int | None = None
    reuse_px: float | None = None
    shape: ShapeCfg | None = None

    def on(self, cells: tuple[int, int], limit: int) -> StepCfg:
        """The same with windows that fit (height, width) cells, about `limit` of them at most."""
        return replace(self, window=thinned(roomy(self.window, cells), cells, limit))


FLOOR_CELLS2 = 0.3  # variance of a window that is certain of its cell, cells^2

NEAR = (
    StepCfg(WindowCfg(28, 4, 8), (2.0, 2.0, 1.5), 1.2, shape=ShapeCfg(gain=0.4)),
    StepCfg(WindowCfg(24, 4, 8), (1.5, 1.5, 1.2), 0.4, shape=ShapeCfg(gain=1.3)),
    StepCfg(WindowCfg(20, 3, 6), (1.2, 1.0, 0.8), 0.4, shape=ShapeCfg(gain=2.0)),
)


@dataclass(frozen=True, eq=False)
class Fit:
    """What windows say about the affine under which they were correlated.

    Attributes:
        residual: (2, 3) float64, reference pixels -> reference pixels, applied before that affine.
        matches: of the last reading, which the residual was fitted to.
        support: log likelihood per window under the residual against windows that say nothing, see `support_at`.
    """

    residual: Tensor
    matches: WindowMatches
    support: float


@dataclass(frozen=True, eq=False)
class Refined:
    """A refined affine.

    Attributes:
        affine: reference pixels -> moving pixels.
        matches: of the last step; their displacements are relative to the last warp.
        support: of its windows, see `Fit`.
    """

    affine: AffineTransform
    matches: WindowMatches
    support: float


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
        expected: departure of the whole map from a similarity that is expected, see `departure`.

    Raises:
        EstimationError: no window has content, or the fit is ill-conditioned.
    """
    current, fit = start, None
    extent = max(matcher.pair.shape) / 2
    for step in steps:
        cell = float(step.stride or matcher.finest)
        step = step.on(matcher.cells(step.stride), limit)
        windows = matcher.correlate(current, step.window, step.stride, step.reuse_px)
        bent = departure(current)
        fit = fit_windows(windows, cell, step, extent, (bent[0] - expected[0], bent[1] - expected[1]))
        current = current.after(to_transform(fit.residual))
    assert fit is not None  # steps is never empty
    return Refined(current, fit.matches, fit.support)


def fit_windows(
    windows: WindowCorrelation,
    cell: float,
    step: StepCfg,
    extent: float,
    known: Shape = NO_SHAPE,
) -> Fit:
    """The affine that the windows support: of the expected shape, or of any where that is clearly likelier.

    Args:
        windows: correlation surfaces.
        cell: reference pixels per feature cell.
        step: widths of the prior, stiffness, belief about the shape, and the windows that were correlated.
        extent: see `fit_affine`.
        known: departure from the expected shape of the map that the residual comes before.

    Raises:
        EstimationError: no window has content, or the fit is ill-conditioned.
    """
    if not len(windows.centres):
        raise EstimationError("no window of the reference meets valid pixels of the moving image")
    of_any = _anneal(windows, cell, step, extent, None)
    if step.shape is None:
        return of_any
    witnesses = len(windows.centres) / overlap(windows.centres, step.window.size)
    prior = (step.shape.deviation * extent, len(windows.centres) / witnesses, known)
    as_expected = _anneal(windows, cell, step, extent, prior)
    gain = (of_any.support - as_expected.support) * witnesses
    return of_any if gain > step.shape.gain else as_expected


def _anneal(
    windows: WindowCorrelation,
    cell: float,
    step: StepCfg,
    extent: float,
    shape: tuple[float, float, Shape] | None,
) -> Fit:
    """One fit per width of the prior around the one before (EM); see `fit_windows`.

    Args:
        windows, cell, step, extent: see `fit_windows`.
        shape: deviation of aspect and shear at the image's rim (pixels), how often windows overlap, and `known`.
    """
    residual, matches = torch.eye(2, 3, dtype=torch.float64), None
    points = windows.centres.double() * cell + (cell - 1) / 2
    for sigma in step.sigmas:
        matches = read_windows(windows, cell, apply_affine_batch(residual, points) - points, sigma * cell)
        prior = None
        if shape is not None:
            deviation_px, shared, known = shape
            prior = _shape_prior(matches, cell, shared, deviation_px, known)
        residual = fit_affine(
            matches.points, matches.displacement, matches.weight, stiffness=step.stiffness, extent=extent, shape=prior
        )
    assert matches is not None  # sigmas is never empty
    support = support_at(windows, (apply_affine_batch(residual, points) - points) / cell)
    return Fit(residual, matches, float(support.mean()))


def _shape_prior(matches: WindowMatches, cell: float, shared: float, deviation_px: float, known: Shape) -> ShapePrior:
    """The prior in units of an average window: its variance, counted as often as windows overlap.

    Args:
        matches: of the windows.
        cell: pixels per cell.
        shared: windows per place, see `windows.overlap`.
        deviation_px: of shear and aspect, at the rim of the image.
        known: see `fit_windows`.
    """
    weight = matches.weight.double()
    typical = float((weight * (matches.variance + FLOOR_CELLS2 * cell**2)).sum() / weight.sum().clamp_min(1e-12))
    return ShapePrior(typical * shared / deviation_px**2, known)


def rescale(transform: AffineTransform, old: int, new: int) -> AffineTransform:
    """An affine between images reduced by `old` as an affine between images reduced by `new`."""
    up, down = AffineTransform.reduction(old), AffineTransform.reduction(new)
    full = up.after(transform).after(up.inverse)
    return down.inverse.after(full).after(down)
