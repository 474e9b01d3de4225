"""From what is expected, or from what a search found, to within a pixel or two: refinement of reduced images.

Most pairs lie where they are expected. A close look at low resolution tells so for a twentieth of what a search and
full resolution cost: measured, windows support a right start with 1.1 to 3.2 per window and a wrong one with 1.1 at
most (trained features, five sets).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform
from somareg.matching.affine import Shape
from somareg.matching.matcher import Matcher
from somareg.matching.refine import Refined, refine_affine, rescale
from somareg.matching.runoff import Start
from somareg.matching.steps import StepCfg
from somareg.matching.vote import Guess

ROUGHLY_PX = 12.0  # how far features of reduced images may be resampled
SURE = 2.0  # times what windows support by chance: the expected place is taken without a search


@dataclass(frozen=True)
class ApproachCfg:
    """How reduced images are refined.

    Attributes:
        factor: of the smallest images; 1 for the full ones.
        steps, limit: of all resolutions, see `refine_affine`; all but the last step are for reduced images.
        chance: support that refined maps of unrelated images hardly exceed.
        clear: support from which a reading is clear.
    """

    factor: int
    steps: tuple[StepCfg, ...]
    limit: int
    chance: float
    clear: float

    @property
    def first(self) -> tuple[StepCfg, ...]:
        """The steps on reduced images, on features that may be resampled: they only lead to the full ones."""
        return tuple(replace(step, reuse_px=ROUGHLY_PX) for step in self.steps[:-1] or self.steps)


@dataclass(frozen=True, eq=False)
class Begun:
    """Where the refinement of the full images begins.

    Attributes:
        affine: reference pixels -> moving pixels.
        shape: departure from a similarity that is expected of it, see `vote.Guess`.
        steps: that are left.
        support: by the close look, or by the vote of the search.
    """

    affine: AffineTransform
    shape: Shape
    steps: tuple[StepCfg, ...]
    support: float


def begin(full: Matcher, guesses: Sequence[Guess], cfg: ApproachCfg, search: Callable[[], Start]) -> Begun:
    """Look closely at what is expected; where that is not sure, search and approach what was found.

    Args:
        full: matcher of the two images as they are.
        guesses: what is expected, reference pixels -> moving pixels; at least one.
        cfg: settings.
        search: finds a start in a wider range.

    Raises:
        EstimationError: the search found nothing, no window has content, or a fit is ill-conditioned.
    """
    left = cfg.steps[1:] or cfg.steps
    if sure := _look_closely(full, guesses, cfg):
        guess, support = sure
        return Begun(guess.transform, guess.shape, left if cfg.factor > 1 else cfg.steps[-1:], support)
    start = search()
    affine = _approach(full, start.affine, start.shape, cfg)
    return Begun(affine, start.shape, left if cfg.factor > 1 else cfg.steps, start.score)


def _look_closely(full: Matcher, guesses: Sequence[Guess], cfg: ApproachCfg) -> tuple[Guess, float] | None:
    """The guess that the windows of the smallest images surely support, refined, and its support; None for none."""
    looks = [(guess, look) for guess in guesses if (look := _refined(full, guess.transform, guess.shape, cfg))]
    guess, best = max(looks, key=lambda look: look[1].support, default=(None, None))
    if guess is None or best is None or best.support < SURE * cfg.chance:
        return None
    return replace(guess, transform=rescale(best.affine, cfg.factor, 1)), best.support


def _refined(full: Matcher, transform: AffineTransform, shape: Shape, cfg: ApproachCfg) -> Refined | None:
    small = full.reduced(cfg.factor)
    try:
        return refine_affine(small, rescale(transform, 1, cfg.factor), cfg.first, cfg.limit, shape)
    except EstimationError:
        return None


def _approach(full: Matcher, start: AffineTransform, shape: Shape, cfg: ApproachCfg) -> AffineTransform:
    """The affine that reduced images lead to from a start of the full images."""
    factor = cfg.factor
    while factor > 1:
        small = full.reduced(factor)
        there = refine_affine(small, rescale(start, 1, factor), cfg.first, cfg.limit, shape)
        start = rescale(there.affine, factor, 1)
        factor = finer(factor, is_clear=there.support >= cfg.clear)
    return start


def finer(factor: int, *, is_clear: bool) -> int:
    """The reduction that follows one: a clear reading is right within a cell or two, so the next images are four times
    as large; else twice.
    """
    return max(1, factor // (4 if is_clear else 2))
