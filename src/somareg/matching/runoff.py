"""Choose among several elected maps: each is refined; the likelihood of its windows and a prior of its shape decide.

Supports of different kinds of votes (at other resolutions, with aspect and shear, from keypoints) are not comparable:
the more a vote tries, the more support it finds by chance. After the same refinement on the same windows they are, but
for one thing: a map of any shape fits unrelated windows better than a similarity does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform
from somareg.matching.affine import NO_SHAPE, Shape, departure
from somareg.matching.matcher import Matcher
from somareg.matching.refine import refine_affine, rescale
from somareg.matching.steps import StepCfg
from somareg.matching.vote import Elected


@dataclass(frozen=True, eq=False)
class Start:
    """Where the refinement begins.

    Attributes:
        affine: reference pixels -> moving pixels of the full images.
        shape: expected departure from a similarity, see `vote.Guess`.
        score: support by the vote, see `vote.Elected`.
        likelihood: see `RunOff.likelihood`; 0 when there was no run-off.
    """

    affine: AffineTransform
    shape: Shape = NO_SHAPE
    score: float = 0.0
    likelihood: float = 0.0


CHANCE_TRAINED, CHANCE_UNTRAINED = 0.8, 0.4
"""Support that refined maps of unrelated images rarely exceed, with trained features and with orientation channels."""

BEND = 0.1
"""Prior standard deviation of aspect and shear from the expected ones, see `affine.departure`."""


class RunOff:
    """Refines candidates, each once.

    Args:
        full: matcher of the two images at full resolution.
        factor: reduction at which they are refined.
        steps, limit: see `refine_affine`.
    """

    def __init__(self, full: Matcher, factor: int, steps: tuple[StepCfg, ...], limit: int) -> None:
        self.full, self.factor, self.steps, self.limit = full, factor, steps, limit
        trained = full.describe.temperature(full.finest) is not None
        self.chance = CHANCE_TRAINED if trained else CHANCE_UNTRAINED
        self._likelihoods: dict[Elected, float] = {}

    @property
    def clear(self) -> float:
        """Likelihood from which nothing else needs to be tried."""
        return 1.25 * self.chance

    def is_clear(self, start: Start) -> bool:
        """Whether nothing else needs to be tried."""
        return start.likelihood >= self.clear

    def __call__(self, favourites: Sequence[Elected], challengers: Sequence[Elected]) -> Start:
        """The best candidate, in pixels of the full images.

        Args:
            favourites: those with the larger support of comparable votes, best first. The first one wins unless another
                candidate is likely and clearly ahead.
            challengers: all others. The two must not both be empty.
        """
        first, *others = (*favourites, *challengers)
        if not others:
            return Start(first.transform, first.shape, first.score)
        first = max(favourites[:1] or challengers, key=self.likelihood)
        bar = max(self.chance, self.likelihood(first) + 0.12 * self.chance) if favourites else 0.0
        ahead = [one for one in (*favourites[1:], *challengers) if self.likelihood(one) >= bar]
        best = max(ahead, key=self.likelihood, default=first)
        return Start(best.transform, best.shape, best.score, self.likelihood(best))

    def likelihood(self, one: Elected) -> float:
        """Support of a candidate once it is refined (see `refine.Refined`), less the cost of a shape that is not the
        expected one; 0 when nothing is left, or when it cannot be refined.
        """
        if one not in self._likelihoods:
            try:
                start = rescale(one.transform, 1, self.factor)
                found = refine_affine(self.full.reduced(self.factor), start, self.steps, self.limit, one.shape)
                bent = departure(found.affine)
                bend = math.hypot(bent[0] - one.shape[0], bent[1] - one.shape[1])
                cost = (bend / BEND) ** 2 / 2 / found.independent
                self._likelihoods[one] = max(0.0, found.support - cost)
            except EstimationError:
                self._likelihoods[one] = 0.0
        return self._likelihoods[one]
