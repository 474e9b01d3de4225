"""How well the images support an estimate, measured independently of the fit that produced it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform, compose
from somareg.geometry.proportions import STRIP_PX, keep_side
from somareg.matching.affine import fit_affine, to_transform
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.posterior import WindowMatches, read_windows, standardise
from somareg.matching.refine import fit_windows, refine_affine
from somareg.matching.steps import NEAR, StepCfg
from somareg.matching.warping import pixel_grid
from somareg.matching.windows import WindowCfg, overlap, roomy, thinned
from somareg.types import Transform

WINDOW = WindowCfg(size=28, margin=6, stride=10)
LOW_PX = 150.0
"""Longer side of the images for figures that need no sub-pixel position."""


@dataclass(frozen=True)
class Evidence:
    """Support for an estimate; every window is read without a prior.

    Attributes:
        windows: number of windows.
        zscore: mean height of the correlation at the estimate, in standard deviations of each window's background;
            about 0 where the images do not correspond, 2 and more where they do.
        sharpness: height of the mean surface at the estimate against its highest value elsewhere: 1 is a unique peak,
            <= 0 is no peak.
        hit_ratio: share of windows whose highest value lies within 2 cells of the estimate, 0-1 (chance 0.12).
        correlation: mean correlation coefficient at the estimate.
        correlation_before: the same for the start (georeference or identity), nan when too little overlaps.
        coverage: share of the reference's windows that could be read, 0-1.
        peak_offset_px: distance of the mean surface's peak from the estimate.
        independent: number of windows, overlapping ones counted once; the standard error of `zscore` is about
            1 / sqrt(independent).
    """

    windows: int
    zscore: float
    sharpness: float
    hit_ratio: float
    correlation: float
    correlation_before: float
    coverage: float
    peak_offset_px: float
    independent: float = 0.0

    def is_beyond(self, other: Evidence, clearly: float) -> bool:
        """Whether the images agree better here, by more than `clearly` standard errors of one figure.

        The same images give both, so their difference has a smaller error.
        """
        return (self.zscore - other.zscore) * math.sqrt(self.independent) > clearly


NO_EVIDENCE = Evidence(0, 0.0, 0.0, 0.0, 0.0, math.nan, 0.0, math.nan)


def similarity(matcher: Matcher, transform: Transform) -> float:
    """Mean correlation coefficient under a map (reference pixels -> moving pixels); nan when too little overlaps.

    Large images are compared at low resolution, where the mean over all windows is certain enough.
    """
    small, transform, _ = reduced_to(LOW_PX, matcher, transform)
    window = _window(small)
    surfaces = small.correlate(transform, WindowCfg(window.size, 1, 2 * window.stride)).surfaces
    return float(surfaces[:, 1, 1].mean()) if len(surfaces) else math.nan


def reduction_to(side_px: float, pair: Pair) -> int:
    """The factor that brings the reference's longer side to about `side_px`; less where a side would get too short."""
    factor = math.ceil(max(pair.shape) / side_px - 0.3)
    return keep_side(factor, *pair.shape, *pair.moving.shape[-2:], least=STRIP_PX)


def reduced_to(side_px: float, matcher: Matcher, transform: Transform) -> tuple[Matcher, Transform, int]:
    """The matcher of smaller images, a map between these, and the factor, see `reduction_to`."""
    factor = reduction_to(side_px, matcher.pair)
    if factor > 1:
        up = AffineTransform.reduction(factor)
        transform = compose(up.inverse, transform, up)
    return matcher.reduced(factor), transform, factor


def _window(matcher: Matcher) -> WindowCfg:
    return thinned(roomy(WINDOW, matcher.cells()), matcher.cells(), 130)


def gather(matcher: Matcher, estimate: Transform, before: float) -> tuple[Evidence, WindowMatches | None]:
    """Evidence for an estimate.

    Args:
        matcher: of the pair.
        estimate: reference pixels -> moving pixels.
        before: `similarity` under the prior map.

    Returns:
        The evidence, and each window's own match (displacement relative to the estimate), None without windows.
    """
    window = _window(matcher)
    windows = matcher.correlate(estimate, window)
    if len(windows.surfaces) == 0:
        return NO_EVIDENCE, None
    m = windows.margin
    z = standardise(windows.surfaces)
    mean = z.mean(0)
    axis = torch.arange(-m, m + 1)
    distance = (axis[:, None].square() + axis[None].square()).sqrt()
    peak = int(mean.argmax())
    highest = z.flatten(1).argmax(1)
    hits = distance.flatten()[highest] <= 2.0
    centre = float(mean[m - 1 : m + 2, m - 1 : m + 2].max())
    elsewhere = float(mean[distance > 3.5].max())
    possible = max(1, matcher.window_count(window))
    cell = float(matcher.finest)
    offsets = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).reshape(-1, 2)
    own = read_windows(windows, cell, offsets[highest] * cell, 1.2 * cell)
    evidence = Evidence(
        windows=len(z),
        zscore=float(z[:, m, m].mean()),
        sharpness=1.0 - elsewhere / max(centre, 1e-6) if centre > 0 else 0.0,
        hit_ratio=float(hits.float().mean()),
        correlation=similarity(matcher, estimate),
        correlation_before=before,
        coverage=len(z) / possible,
        peak_offset_px=float(distance.flatten()[peak]) * cell,
        independent=len(z) / overlap(windows.centres, window.size),
    )
    return evidence, own


def disagreement(first: Transform, second: Transform, shape: tuple[int, int]) -> float:
    """RMS distance between two maps of an image of (height, width), pixels, over a 9 x 9 grid."""
    height, width = shape
    grid = pixel_grid(9, 9, 0, torch.device("cpu")).reshape(-1, 2).numpy() / 8.0 * [width - 1, height - 1]
    return float(((first(grid) - second(grid)) ** 2).sum(1).mean() ** 0.5)


def split_half(matches: WindowMatches, shape: tuple[int, int], stiffness: float) -> float:
    """Disagreement of the affines of two interleaved halves of the windows, RMS pixels; inf if a half has no fit."""
    side = max(shape) / 4
    colour = ((matches.points / side).floor().sum(1) % 2).bool()
    fits: list[AffineTransform] = []
    for half in (colour, ~colour):
        try:
            fits.append(to_transform(_fit(matches, half, stiffness, max(shape) / 2)))
        except EstimationError:
            return math.inf
    return disagreement(fits[0], fits[1], shape)


def _fit(matches: WindowMatches, half: Tensor, stiffness: float, extent: float) -> Tensor:
    return fit_affine(
        matches.points[half], matches.displacement[half], matches.weight[half], stiffness=stiffness, extent=extent
    )


def forward_backward(swapped: Matcher, affine: AffineTransform, shape: tuple[int, int]) -> float:
    """Refine the inverse with the roles of the images exchanged, and measure how far it is from the inverse.

    Args:
        swapped: matcher of the swapped pair.
        affine: reference pixels -> moving pixels.
        shape: of the reference.

    Returns:
        RMS disagreement in reference pixels, inf when there is no fit.
    """
    try:
        backward = refine_affine(swapped, affine.inverse, NEAR[-1:], 120).affine
    except EstimationError:
        return math.inf
    return disagreement(affine, backward.inverse, shape)


def back_again(matcher: Matcher, affine: AffineTransform, step: StepCfg, limit: int) -> float:
    """`forward_backward` without computing features anew: windows of the warped moving image, found in the reference.

    Args:
        matcher: of the pair.
        affine: reference pixels -> moving pixels.
        step: refinement step.
        limit: windows at most (about).

    Returns:
        RMS displacement of the moving image's windows to their matches, reference pixels; inf when there is no fit.
    """
    step = step.on(matcher.cells(step.stride), limit)
    windows = matcher.correlate_back(affine, step.window, step.stride)
    cell, extent = float(step.stride or matcher.finest), max(matcher.pair.shape) / 2
    try:
        residual = fit_windows(windows, cell, step, extent).residual
    except EstimationError:
        return math.inf
    return disagreement(to_transform(residual), AffineTransform.identity(), matcher.pair.shape)
