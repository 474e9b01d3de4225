"""Local flow: the displacement that the affine leaves, a smooth field fitted to the windows (see `belief`).

The field follows good windows nearby and returns to zero far from any; its variance is small near windows and large far
from them. A truly affine pair gets no local displacement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.matching.belief import Belief, BeliefCfg, weigh
from somareg.matching.gaussian_process import lattice
from somareg.matching.matcher import Matcher
from somareg.matching.posterior import NO_MATCHES, WindowMatches, read_windows
from somareg.matching.windows import WindowCfg, thinned
from somareg.types import FloatArray


@dataclass(frozen=True)
class SmallCfg:
    """What differs on small images, which hold few windows that do not overlap.

    There, windows of 28 cells missed two of three smooth fields of 2 px RMS. Smaller ones detect most of them, but also
    fields that are not there, so more evidence is asked for, and a judge that is independent of the windows.

    Attributes:
        places: images where fewer windows than this lie side by side are small, 200 x 200 px with windows of 56 px.
        size: side of the windows, cells.
        none, begins, clearly: see `BeliefCfg` and `FlowCfg`.
    """

    places: float = 13.0
    size: int = 20
    none: float = 0.997
    begins: float = 0.8
    clearly: float = 0.8

    def of(self, window: WindowCfg) -> WindowCfg:
        """The windows of a small image, with the same overlap."""
        size = min(window.size, self.size)
        return replace(window, size=size, stride=max(1, round(window.stride * size / window.size)))


@dataclass(frozen=True)
class FlowCfg:
    """Settings of the local flow.

    Attributes:
        steps: window settings (feature cells) and prior width (cells) of each warp-correlate-fit step.
        belief: which fields are considered.
        least: posterior probability of a field below which there is none.
        node_px: distance of the field's nodes, pixels, a fifth of the shortest correlation length; at most 96 nodes a
            side.
        limit: windows per step at most (about).
        first_limit: the same for the first step, which decides whether there is a field at all.
        max_px: largest plausible local displacement, pixels.
        follow: whether to estimate a displacement; if not, only the coverage is computed.
        begins, clearly: by how many standard errors the judge must prefer a field to none, after its first step and in
            the end (see `evidence.Evidence.is_beyond`).
        small: see `SmallCfg`.
    """

    steps: tuple[tuple[WindowCfg, float], ...] = ((WindowCfg(28, 8, 8), 2.0), (WindowCfg(28, 8, 8), 2.0))
    belief: BeliefCfg = field(default_factory=BeliefCfg)
    least: float = 0.2
    node_px: float = 16.0
    limit: int = 400
    first_limit: int = 200
    max_px: float = 24.0
    follow: bool = True
    begins: float = 0.45
    clearly: float = 0.6
    small: SmallCfg = field(default_factory=SmallCfg)

    def on(self, cells: tuple[int, int]) -> FlowCfg:
        """The settings for images of (height, width) cells, for a judge that reads other features than the windows."""
        small = self.small
        if cells[0] * cells[1] >= small.places * self.steps[0][0].size ** 2:
            return self
        steps = tuple((small.of(window), sigma) for window, sigma in self.steps)
        belief = replace(self.belief, none=max(self.belief.none, small.none))
        return replace(self, steps=steps, belief=belief, begins=small.begins, clearly=small.clearly)


@dataclass(frozen=True, eq=False)
class Flow:
    """A local displacement field and its uncertainty.

    Attributes:
        field: `xy -> xy + d(xy)` on the reference, pixels.
        coverage: (h, w) at the field's nodes, 0-1: share of the uncertainty of a 1 px field that windows nearby
            removed.
        sigma_px: (h, w) at the nodes: posterior standard deviation per axis; 0 where there is no field.
        matches: the last windows; displacement is total (relative to the affine).
        factor: (N,) robust factor of each match, 0-1.
        unexplained: variance of the matches about the field relative to the one that their precision lets expect; about
            1 without further displacement, several where a field is not followed.
        unexplained_still: the same about no displacement.
    """

    field: FieldTransform
    coverage: FloatArray
    sigma_px: FloatArray
    matches: WindowMatches
    factor: Tensor
    unexplained: float = 1.0
    unexplained_still: float = 1.0

    def without_field(self) -> Flow:
        """The same with no displacement."""
        nothing = np.zeros_like(self.sigma_px)
        still = replace(self.field, array=np.zeros_like(self.field.array))
        return replace(self, field=still, sigma_px=nothing, unexplained=self.unexplained_still)


@dataclass(frozen=True, eq=False)
class _Reading:
    """Displacements that windows measure beyond the affine.

    Attributes:
        matches: displacements are total (relative to the affine).
        side: of the windows, pixels.
        belief: posterior of the field, for a batch of one.
    """

    matches: WindowMatches
    side: float
    belief: Belief


def estimate_flow(
    matcher: Matcher,
    affine: AffineTransform,
    cfg: FlowCfg,
    is_seen: Callable[[FieldTransform], bool] = lambda field: True,
) -> Flow:
    """Estimate the displacement that remains after the affine.

    Args:
        matcher: the pair at the resolution of the reference.
        affine: reference pixels -> moving pixels.
        cfg: settings.
        is_seen: whether an independent matcher supports a field, too; a field without support is dropped.

    Returns:
        The local flow D such that `moving <- affine @ D`.
    """
    longest = max(matcher.pair.shape)
    # On a large image, nodes closer than the windows would cost memory without adding information.
    still, where = lattice(matcher.pair.shape, min(max(cfg.node_px, longest / 96), longest / 4))

    def on_lattice(values: Tensor) -> NDArray[np.float64]:
        """(M, n) values at the nodes as (n, h, w)."""
        return np.asarray(values.T.reshape(-1, *still.array.shape[1:]), np.float64)

    field = still
    last: _Reading | None = None
    # Fewer windows would detect most fields, but not relief of a pixel: 80 windows detected two of seven such fields.
    for step, settings in enumerate(cfg.steps):
        last = _read(matcher, affine, field, settings, cfg.limit if step else cfg.first_limit, cfg)
        if last is None or not cfg.follow or float(last.belief.of_a_field) < cfg.least:
            field = still
            break
        field = replace(still, array=on_lattice(last.belief.mean(where[None])[0].clamp(-cfg.max_px, cfg.max_px)))
        if not is_seen(field):
            field = still
            break
    if last is None:  # the affine leads off the moving image
        nothing = np.zeros(still.array.shape[1:])
        return Flow(still, nothing, nothing, NO_MATCHES, torch.zeros(0))
    coverage = on_lattice(last.belief.coverage(where[None]).mT)[0]
    sigma = on_lattice(last.belief.variance(where[None]).sqrt().mT)[0] if field.array.any() else np.zeros_like(coverage)
    still_left = float(last.belief.scatter())
    left = float(last.belief.scatter(last.belief.mean(last.belief.points))) if field.array.any() else still_left
    return Flow(field, coverage, sigma, last.matches, last.belief.factor[0], left, still_left)


def _read(
    matcher: Matcher,
    affine: AffineTransform,
    field: FieldTransform,
    settings: tuple[WindowCfg, float],
    limit: int,
    cfg: FlowCfg,
) -> _Reading | None:
    """Correlate windows under the affine and a field; None where none of them meets the moving image.

    Args:
        matcher, affine, cfg: see `estimate_flow`.
        field: the displacement so far.
        settings: windows and width of the prior, cells.
        limit: windows at most (about).
    """
    cells, cell = matcher.cells(), float(matcher.finest)
    window = thinned(settings[0], cells, limit)
    # Before there is a field, features that were warped by the affine are reused.
    windows = matcher.correlate(compose(affine, field) if field.array.any() else affine, window)
    if not len(windows.centres):
        return None
    matches = read_windows(windows, cell, torch.zeros(len(windows.centres), 2), settings[1] * cell)
    side = min(window.size, *cells) * cell
    points = matches.points.double()
    total = matches.likely.double() + torch.from_numpy(field.displacement(points.numpy()))
    belief = weigh(points[None], total[None], matches.precision.double()[None], side, cfg.belief)
    return _Reading(replace(matches, displacement=total.float()), side, belief)
