"""Where to start when little is known: votes around what is expected, then around it turned and scaled, coarse to fine.

One vote covers a few degrees and percent and any shift. Larger ranges are covered by votes at low resolution, whose
small windows bear more, around guesses 16 degrees and 18 % apart; around the best of them a finer one is voted on. What
is expected comes first: if it has support, the other guesses are not looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from somareg.errors import EstimationError
from somareg.features.encoder import MIN_SIDE
from somareg.geometry import AffineTransform
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.refine import rescale
from somareg.matching.vote import Elected, VoteCfg, vote
from somareg.matching.windows import WindowCfg
from somareg.runtime.threads import Over, one_by_one


@dataclass(frozen=True)
class SearchCfg:
    """What is searched.

    Attributes:
        rotation_deg: rotations from minus to plus this; 180 means all around.
        rotation_step_deg: distance between neighbouring guesses.
        scale: (smallest, largest) scale of the moving image against the reference.
        scale_step: ratio between neighbouring guesses.
        seen: turned guesses that show less than this share of what they show of the reference when not turned are not
            looked at: a strip hardly meets another one across it.
        radius: translation radius as a share of the reference's longer side.
        keep: guesses of the low resolution that are looked at again, at most.
        apart_px: those nearer to a better one, pixels of the low resolution, are not: its finer vote covers them.
        share: nor are those with less than this share of the best one's support.
        settled: support (see `vote.Elected`) by the finer resolution from which nothing else is tried.
        doubtful: support by the low resolution without which what is expected waits for the other guesses, and by the
            finer one up to which wide votes there are asked as well, around what is expected and what was found.
        coarse_px, fine_px: longer side of the image at the two resolutions.
        strip_px: longer side up to which a strip is reduced at both, as far as its shorter one bears.
        coarse: votes at the low one.
        close, close_px: votes at the finer one around what they found, which is right within so many pixels there.
        fine: wide ones.
    """

    rotation_deg: float = 22.0
    rotation_step_deg: float = 16.0
    scale: tuple[float, float] = (0.78, 1.28)
    scale_step: float = 1.185
    seen: float = 0.25
    radius: float = 0.14
    keep: int = 3
    apart_px: float = 6.0
    share: float = 0.7
    settled: float = 2.0
    doubtful: float = 1.3
    coarse_px: float = 80.0
    fine_px: float = 140.0
    strip_px: float = 512.0
    coarse: VoteCfg = field(default_factory=lambda: VoteCfg(WindowCfg(14, 4, 4), 8.0, 0.085, 1.5))
    close: VoteCfg = field(default_factory=lambda: VoteCfg(rotation_deg=2.5, scale=0.025))
    close_px: float = 5.0
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
    factor = reduction(full.pair, cfg.fine_px, cfg.strip_px)
    matcher = full.reduced(factor)
    guesses = [rescale(start, 1, factor) for start in starts]
    found: list[Elected] = []
    if cfg.is_wide:
        found, likely = _search(full, matcher, factor, starts, cfg, over)
        guesses += likely
    if not found or best_score(found) < cfg.doubtful:
        found += vote(matcher, guesses, cfg.radius * max(matcher.pair.shape), cfg.fine, over)
    if not found:
        raise EstimationError("no window could be matched: the images hold too little that is valid and not flat")
    best = max(found, key=lambda elected: elected.score)
    return Start(rescale(best.transform, factor, 1), best.score)


def _search(
    full: Matcher, matcher: Matcher, factor: int, starts: tuple[AffineTransform, ...], cfg: SearchCfg, over: Over
) -> tuple[list[Elected], list[AffineTransform]]:
    """Votes at low resolution, then at the finer one around the best of them: what is expected first, then all.

    Args:
        full: matcher of the two images as they are.
        matcher: that at the finer resolution.
        factor: the reduction there.
        starts, cfg, over: see `find_start`.

    Returns:
        What was elected at the finer resolution, and what the low one led to, both in the finer one's pixels.
    """
    coarse = reduction(full.pair, cfg.coarse_px, cfg.strip_px)
    small = full.reduced(coarse)
    shape = small.pair.shape
    low: list[Elected] = []
    high: list[Elected] = []
    likely: list[AffineTransform] = []
    first, *others = sorted(cfg.hypotheses(), key=lambda one: one != (0.0, 1.0))
    for turns, enough in (([first], cfg.doubtful), (others, 0.0)):
        guesses = [
            guess for start in starts for guess in around(rescale(start, 1, coarse), turns, small.pair, cfg.seen)
        ]
        low += vote(small, guesses, cfg.radius * max(shape), cfg.coarse, over)
        if best_score(low) < enough:
            continue
        new = [guess for guess in distinct(low, shape, cfg) if guess not in likely]
        likely += new
        closer = [rescale(guess, coarse, factor) for guess in new]
        high += vote(matcher, closer, cfg.close_px * coarse / factor, cfg.close, over)
        if best_score(high) >= cfg.settled:
            break
    return high, [rescale(guess, coarse, factor) for guess in likely]


def around(
    expected: AffineTransform, turns: list[tuple[float, float]], pair: Pair, share: float
) -> list[AffineTransform]:
    """What is expected, scaled and turned about the reference's centre, but for turns that show hardly any of it.

    Args:
        expected: reference pixels -> moving pixels.
        turns: (rotation in degrees, scale) of each.
        pair: the images.
        share: of what is seen of the reference with the same scale, not turned; those that show less are left out.
    """
    centre = ((pair.shape[1] - 1) / 2, (pair.shape[0] - 1) / 2)

    def guess(turn: float, scale: float) -> AffineTransform:
        return expected.after(AffineTransform.from_parameters(rotation_deg=turn, scale=scale, centre=centre))

    return [guess(*one) for one in turns if seen(guess(*one), pair) >= share * seen(guess(0.0, one[1]), pair)]


def seen(transform: AffineTransform, pair: Pair) -> float:
    """Share of the reference that lies in the moving image's frame under a transform, 0-1."""
    height, width = pair.shape
    x, y = np.meshgrid(np.linspace(0, width - 1, 33), np.linspace(0, height - 1, 33))
    there = transform(np.stack([x.ravel(), y.ravel()], axis=-1))
    last = np.array(pair.moving.shape[:-3:-1]) - 1
    return float(((there >= 0) & (there <= last)).all(axis=-1).mean())


def best_score(elected: list[Elected]) -> float:
    """The largest support, 0 where there is none."""
    return max((one.score for one in elected), default=0.0)


def reduction(pair: Pair, side_px: float, strip_px: float = math.inf) -> int:
    """The factor that brings the reference's longer side to about `side_px`, while enough is left of every side.

    Args:
        pair: the images.
        side_px: longer side that is asked for.
        strip_px: longer side from which half of what a network needs is enough of the shorter one.
    """
    length, narrowest = max(pair.shape), min(*pair.shape, *pair.moving.shape[-2:])
    factor = max(1, math.ceil(length / side_px - 0.2))
    while factor > 1 and narrowest // factor < MIN_SIDE:
        if narrowest // factor >= MIN_SIDE // 2 and length / (factor - 1) > strip_px:
            break
        factor -= 1
    return factor


def distinct(elected: list[Elected], shape: tuple[int, int], cfg: SearchCfg) -> list[AffineTransform]:
    """The best that lead to different places: neighbouring guesses often find the same.

    Args:
        elected: what was found around each guess, in any order.
        shape: (height, width) of the reference they are about, its pixels.
        cfg: how many, how far apart, how good.
    """
    corners = np.array([(x, y) for x in (0.0, shape[1] - 1.0) for y in (0.0, shape[0] - 1.0)])
    kept: list[AffineTransform] = []
    ranked = sorted(elected, key=lambda one: -one.score)
    for one in ranked:
        if len(kept) == cfg.keep or one.score < cfg.share * ranked[0].score:
            break
        there = one.transform(corners)
        if all(np.abs(there - better(corners)).max() >= cfg.apart_px for better in kept):
            kept.append(one.transform)
    return kept
