"""Refine the expected map, or the one that a search found, on reduced images, to within a pixel or two.

Most pairs lie where they are expected. A close look at low resolution shows this at a twentieth of the cost of a search
and full resolution. Measured support per window: 1.1 to 3.2 for a right start, at most 1.1 for a wrong one (trained
features, five sets).
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

ROUGHLY_PX = 12.0  # features of reduced images may be resampled over up to this distance
SURE = 2.0  # from this multiple of chance support, the expected place is taken without a search


@dataclass(frozen=True)
class ApproachCfg:
    """How reduced images are refined.

    Attributes:
        factor: reduction of the smallest images; 1 for the full ones.
        steps, limit: for all resolutions, see `refine_affine`; reduced images take all steps but the last.
        chance: support that refined maps of unrelated images rarely exceed.
        clear: support from which a refined map counts as clearly right.
    """

    factor: int
    steps: tuple[StepCfg, ...]
    limit: int
    chance: float
    clear: float

    @property
    def first(self) -> tuple[StepCfg, ...]:
        """The steps on reduced images. Their features may be resampled, because full images refine the result."""
        return tuple(replace(step, reuse_px=ROUGHLY_PX) for step in self.steps[:-1] or self.steps)


@dataclass(frozen=True, eq=False)
class Begun:
    """Where the refinement of the full images begins.

    Attributes:
        affine: reference pixels -> moving pixels.
        shape: its expected departure from a similarity, see `vote.Guess`.
        steps: the remaining ones.
        support: from the close look, or from the vote of the search.
    """

    affine: AffineTransform
    shape: Shape
    steps: tuple[StepCfg, ...]
    support: float


def begin(full: Matcher, guesses: Sequence[Guess], cfg: ApproachCfg, search: Callable[[], Start]) -> Begun:
    """Refine the expected maps at low resolution; if none is surely right, search, and refine what the search found.

    Args:
        full: matcher of the two images at full resolution.
        guesses: the expected maps, reference pixels -> moving pixels; at least one.
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
    """The refined guess that the windows of the smallest images surely support, and its support; None without one."""
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
    """Refine a start of the full images on reduced images, coarse to fine."""
    factor = cfg.factor
    while factor > 1:
        small = full.reduced(factor)
        there = refine_affine(small, rescale(start, 1, factor), cfg.first, cfg.limit, shape)
        start = rescale(there.affine, factor, 1)
        factor = finer(factor, is_clear=there.support >= cfg.clear)
    return start


def finer(factor: int, *, is_clear: bool) -> int:
    """The next smaller reduction: a quarter if the refined map is clear, because it is then right within a cell or two;
    else half.
    """
    return max(1, factor // (4 if is_clear else 2))
