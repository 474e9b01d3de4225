"""Affine refinement: warp by the estimate, correlate windows, fit, compose, repeat.

A residual found after warping by A is applied first: `moving <- A @ D` (design conventions).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from somareg.geometry import AffineTransform
from somareg.matching.affine import apply_affine, fit_affine, to_transform
from somareg.matching.pair import Pair
from somareg.matching.posterior import WindowMatches, read_windows
from somareg.matching.search import FeatureFn
from somareg.matching.warping import warp_to_reference
from somareg.matching.windows import WindowCfg, WindowCorrelation, correlate_windows, place_windows
from somareg.types import Transform


@dataclass(frozen=True)
class StepCfg:
    """One warp-correlate-fit step; lengths in feature cells.

    Attributes:
        window: window settings.
        sigmas: prior widths, one fit each, shrinking.
        stiffness: pull towards a translation, see `fit_affine`.
    """

    window: WindowCfg
    sigmas: tuple[float, ...]
    stiffness: float


FAR = (StepCfg(WindowCfg(32, 8, 12), (6.0, 4.0, 3.0), 12.0), StepCfg(WindowCfg(32, 6, 8), (4.0, 3.0, 2.0), 4.0))
NEAR = (
    StepCfg(WindowCfg(28, 4, 8), (2.0, 2.0, 1.5), 1.2),
    StepCfg(WindowCfg(24, 4, 8), (1.5, 1.5, 1.2), 0.4),
    StepCfg(WindowCfg(20, 3, 6), (1.2, 1.0, 0.8), 0.4),
)


class Matcher:
    """Window correlation of a pair at one resolution; reference features are computed once.

    Args:
        pair: the two images.
        features: image, mask -> channels and validity.
        stride: pixels per feature cell.
    """

    def __init__(self, pair: Pair, features: FeatureFn, stride: int) -> None:
        self.pair, self.features, self.stride = pair, features, stride
        self.fixed, self.fixed_valid = features(pair.reference, pair.reference_mask)

    def correlate(self, transform: Transform, window: WindowCfg) -> WindowCorrelation:
        """Correlation of all windows after warping the moving image by `transform`."""
        pad = window.margin * self.stride
        warped, seen = warp_to_reference(self.pair.moving, self.pair.moving_mask, transform, self.pair.shape, pad)
        moved, moved_valid = self.features(warped, seen)
        cells = (self.fixed.shape[-2] + 2 * window.margin, self.fixed.shape[-1] + 2 * window.margin)
        moved, moved_valid = moved[..., : cells[0], : cells[1]], moved_valid[..., : cells[0], : cells[1]]
        return correlate_windows(self.fixed, self.fixed_valid, moved, moved_valid, window).cpu()

    def windows(self, window: WindowCfg) -> list[tuple[int, int]]:
        """Corners of the windows that the reference alone allows."""
        return place_windows(self.fixed_valid, window)[0]


def thinned(window: WindowCfg, cells: tuple[int, int], limit: int) -> WindowCfg:
    """The same windows further apart, so that there are about `limit` at most."""
    area = cells[0] * cells[1]
    stride = max(window.stride, int((area / limit) ** 0.5))
    return replace(window, stride=stride)


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
    cell = float(matcher.stride)
    extent = max(matcher.pair.shape) / 2
    for step in steps:
        window = thinned(step.window, (matcher.fixed.shape[-2], matcher.fixed.shape[-1]), limit)
        windows = matcher.correlate(current, window)
        residual = torch.eye(2, 3, dtype=torch.float64)
        points = windows.centres.double() * cell + (cell - 1) / 2
        for sigma in step.sigmas:
            predicted = apply_affine(residual, points) - points
            matches = read_windows(windows, cell, predicted, sigma * cell)
            residual = fit_affine(
                matches.points, matches.displacement, matches.weight, stiffness=step.stiffness, extent=extent
            )
        current = current.after(to_transform(residual))
    assert matches is not None  # steps is never empty
    return current, matches


def rescale(transform: AffineTransform, old: int, new: int) -> AffineTransform:
    """An affine between images reduced by `old` as an affine between images reduced by `new`."""
    up, down = AffineTransform.reduction(old), AffineTransform.reduction(new)
    full = up.after(transform).after(up.inverse)
    return down.inverse.after(full).after(down)
