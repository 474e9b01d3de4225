"""The affine that windows support: read displacements under a prior around the map, fit the map to them, repeat (EM).

One implementation for one pair and for a batch, for inference and, differentiable, for training. Windows are fitted
twice, with a map that is nearly a similarity and with any affine, and the affine is kept where the windows are clearly
likelier under it. Orthorectified products of one place differ by a similarity, and where windows are uncertain this
prior is needed to keep the fit free of shear; products that were orthorectified differently differ by more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from somareg.matching.affine import ShapePrior, apply_affine_batch, fit_affine_batch
from somareg.matching.posterior import FLOOR_CELLS2, WindowMatches, read_windows, support_at
from somareg.matching.steps import StepCfg
from somareg.matching.windows import WindowCorrelation, overlap


@dataclass(frozen=True, eq=False)
class Fits:
    """Corrections that the windows of a batch give to the affines under which they were correlated.

    Attributes:
        residual: (B, 2, 3) float64, reference pixels -> reference pixels, applied before those affines; the identity
            where the fit was refused.
        matches: the windows' last matches, to which the residuals were fitted.
        support: (B,) log-likelihood ratio per window of the residual against uninformative windows, see `support_at`.
        condition: (B,) condition number of the fit.
        refused: (B,) fewer than three windows are informative, or they lie on a line.
    """

    residual: Tensor
    matches: WindowMatches
    support: Tensor
    condition: Tensor
    refused: Tensor


def fit_windows(
    windows: WindowCorrelation, cell: float, step: StepCfg, extent: float, known: tuple[Tensor, Tensor] | None = None
) -> Fits:
    """The affines that windows support: of the expected shape, or of any shape where that is clearly likelier.

    Args:
        windows: correlation surfaces of a batch; those with `valid` 0 have no weight.
        cell: reference pixels per feature cell.
        step: widths of the prior, stiffness, belief about the shape, and the windows that were correlated.
        extent: see `fit_affine_batch`.
        known: departures (B,) from the expected shape of the maps that are applied after the residuals; 0 if not given.
    """
    of_any = _anneal(windows, cell, step, extent, None)
    if step.shape is None:
        return of_any
    count = (windows.valid > 0).sum(-1)
    shared = overlap(windows.centres, step.window.size)
    nothing = torch.zeros(len(windows.valid), dtype=torch.float64, device=windows.valid.device)
    prior = ShapeBelief(step.shape.deviation * extent, shared, known or (nothing, nothing))
    as_expected = _anneal(windows, cell, step, extent, prior)
    is_clear = (of_any.support - as_expected.support) * count / shared > step.shape.gain
    return _chosen(is_clear, of_any, as_expected)


@dataclass(frozen=True, eq=False)
class ShapeBelief:
    """Prior on the shape.

    Attributes:
        deviation_px: standard deviation of shear and aspect, as a displacement at the rim of the image.
        shared: windows per place, see `windows.overlap`.
        known: see `fit_windows`.
    """

    deviation_px: float
    shared: float
    known: tuple[Tensor, Tensor]

    def prior(self, matches: WindowMatches, cell: float) -> ShapePrior:
        """The prior in units of an average window: of its variance, times the number of windows per place."""
        weight = matches.weight.double()
        spread = matches.variance + FLOOR_CELLS2 * cell**2
        typical = (weight * spread).sum(-1) / weight.sum(-1).clamp_min(1e-12)
        return ShapePrior(typical * self.shared / self.deviation_px**2, self.known)


def _anneal(windows: WindowCorrelation, cell: float, step: StepCfg, extent: float, belief: ShapeBelief | None) -> Fits:
    """One fit per prior width, each around the fit before; see `fit_windows`."""
    points = (windows.centres.double() * cell + (cell - 1) / 2)[None]
    predicted = torch.zeros_like(points).expand(len(windows.surfaces), -1, -1)
    matches, refused = None, torch.zeros(len(predicted), dtype=torch.bool, device=points.device)
    seen = (windows.valid > 0).sum(-1).clamp_min(1)
    stiffness = step.stiffness * (points.shape[1] / seen)  # in units of the informative windows
    for sigma in step.sigmas:
        matches = read_windows(windows, cell, predicted, sigma * cell)
        fit = fit_affine_batch(
            points.expand_as(predicted),
            matches.displacement,
            matches.weight,
            stiffness=stiffness,
            extent=extent,
            shape=belief.prior(matches, cell) if belief else None,
        )
        refused = refused | fit.refused
        predicted = apply_affine_batch(fit.matrix, points.expand_as(predicted)) - points
    assert matches is not None  # sigmas is never empty
    support = support_at(windows, predicted / cell).sum(-1) / seen
    return Fits(fit.matrix, matches, support, fit.condition, refused)


def _chosen(first: Tensor, one: Fits, other: Fits) -> Fits:
    """The first fits where `first` (B,), the others elsewhere."""

    def either(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(first.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    matches = WindowMatches(
        *(either(a, b) for a, b in zip(vars(one.matches).values(), vars(other.matches).values(), strict=True))
    )
    return Fits(
        either(one.residual, other.residual),
        matches,
        either(one.support, other.support),
        either(one.condition, other.condition),
        one.refused | other.refused,
    )
