"""Where to start when little is known: votes around what is expected, then around it turned and scaled, coarse to fine.

One vote covers a few degrees and percent and any shift. Larger ranges are covered by votes at low resolution, whose
small windows bear more, around guesses 16 degrees and 18 % apart; the best of them vote again at a finer one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from somareg.errors import EstimationError
from somareg.features.encoder import MIN_SIDE
from somareg.geometry import AffineTransform
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.refine import rescale
from somareg.matching.threads import Over, one_by_one
from somareg.matching.vote import VoteCfg, vote
from somareg.matching.windows import WindowCfg


@dataclass(frozen=True)
class SearchCfg:
    """What is searched.

    Attributes:
        rotation_deg: rotations from minus to plus this; 180 means all around.
        rotation_step_deg: distance between neighbouring guesses.
        scale: (smallest, largest) scale of the moving image against the reference.
        scale_step: ratio between neighbouring guesses.
        radius: translation radius as a share of the reference's longer side.
        keep: best guesses of the low resolution that are looked at again.
        settled: support (see `vote.Elected`) from which nothing else is tried; unrelated images hardly pass 1.2.
        coarse_px, fine_px: longer side of the image at the two resolutions.
        coarse, fine: votes there.
    """

    rotation_deg: float = 22.0
    rotation_step_deg: float = 16.0
    scale: tuple[float, float] = (0.78, 1.28)
    scale_step: float = 1.185
    radius: float = 0.14
    keep: int = 3
    settled: float = 2.2
    coarse_px: float = 80.0
    fine_px: float = 140.0
    coarse: VoteCfg = field(default_factory=lambda: VoteCfg(WindowCfg(14, 4, 4), 8.0, 0.085, 1.5))
    fine: VoteCfg = field(default_factory=VoteCfg)

    @property
    def is_wide(self) -> bool:
        """Whether one fine vote does not cover what is searched."""
        (low, high), reach = self.scale, self.fine.scale
        return self.rotation_deg > self.fine.rotation_deg or low < 1 - reach or high > 1 + reach

    def hypotheses(self) -> list[tuple[float, float]]:
        """(rotation in degrees, scale) of every guess, the identity among them."""
        spared = self.coarse.rotation_deg  # what a vote covers by itself
        turns = math.ceil(max(0.0, self.rotation_deg - spared) / self.rotation_step_deg)
        rotations = [i * self.rotation_step_deg for i in range(-turns, turns + 1)]
        if self.rotation_deg >= 180:
            count = math.ceil(360 / self.rotation_step_deg)
            rotations = [i * 360 / count for i in range(count)]
        step, spared = math.log(self.scale_step), self.coarse.scale
        below = math.ceil(max(0.0, -math.log(self.scale[0]) - spared) / step)
        above = math.ceil(max(0.0, math.log(self.scale[1]) - spared) / step)
        scales = [math.exp(i * step) for i in range(-below, above + 1)]
        return [(rotation, scale) for rotation in rotations for scale in scales]


@dataclass(frozen=True, eq=False)
class Start:
    """Where the refinement begins.

    Attributes:
        affine: reference pixels -> moving pixels of the full images.
        score: support by the windows, see `vote.Elected`.
    """

    affine: AffineTransform
    score: float


def find_start(full: Matcher, starts: tuple[AffineTransform, ...], cfg: SearchCfg, over: Over = one_by_one) -> Start:
    """The similarity that the windows support most.

    Args:
        full: matcher of the two images as they are.
        starts: what is expected (reference pixels -> moving pixels), at least one.
        cfg: what is searched.
        over: applies the votes to the guesses.

    Raises:
        EstimationError: no window could be matched anywhere.
    """
    factor = reduction(full.pair, cfg.fine_px)
    matcher = full.reduced(factor)
    radius = cfg.radius * max(matcher.pair.shape)
    near = [rescale(start, 1, factor) for start in starts]
    found = vote(matcher, near, radius, cfg.fine, over)
    best = max(found, key=lambda elected: elected.score, default=None)
    if cfg.is_wide and (best is None or best.score < cfg.settled):
        coarse = reduction(full.pair, cfg.coarse_px)
        guesses = _guesses(full.reduced(coarse), starts, coarse, cfg, over)
        # The vote at low resolution is right within a cell or two.
        again = vote(matcher, [rescale(g, coarse, factor) for g in guesses], 8.0 * coarse / factor, cfg.fine, over)
        best = max([*found, *again], key=lambda elected: elected.score, default=None)
    if best is None:
        raise EstimationError("no window could be matched: the images hold too little that is valid and not flat")
    return Start(rescale(best.transform, factor, 1), best.score)


def reduction(pair: Pair, side_px: float) -> int:
    """The factor that brings the reference's longer side to about `side_px`, while enough is left of every side."""
    factor = max(1, math.ceil(max(pair.shape) / side_px - 0.2))
    while factor > 1 and min(*pair.shape, *pair.moving.shape[-2:]) // factor < MIN_SIDE:
        factor -= 1
    return factor


def _guesses(
    matcher: Matcher, starts: tuple[AffineTransform, ...], factor: int, cfg: SearchCfg, over: Over
) -> list[AffineTransform]:
    """The guesses with the best votes at low resolution, in its pixels; `factor` is the reduction there."""
    height, width = matcher.pair.shape
    centre = ((width - 1) / 2, (height - 1) / 2)
    turned = [
        rescale(start, 1, factor).after(AffineTransform.from_parameters(rotation_deg=turn, scale=scale, centre=centre))
        for start in starts
        for turn, scale in cfg.hypotheses()
    ]
    elected = vote(matcher, turned, cfg.radius * max(height, width), cfg.coarse, over)
    return [one.transform for one in sorted(elected, key=lambda one: -one.score)[: cfg.keep]]
