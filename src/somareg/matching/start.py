"""Find a start when little is known: votes around the expected maps, then in wider ranges, until one is clear.

One vote covers a few degrees of rotation, a few percent of scale and any shift. The first one is around the expected
maps. Below a clear support the search goes on: with aspect and shear as well, from keypoints, around rotated and scaled
guesses, and over all rotations. Rotations and scales are voted on at low resolution, whose small windows tolerate more
of both, around guesses 16 degrees and 18 % apart; a finer vote follows around the best of them. Where several maps were
elected, a run-off decides (see `runoff`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform
from somareg.geometry.proportions import LEAST_SIDE_PX, STRIP_PX
from somareg.matching.affine import turned_shape
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.refine import rescale
from somareg.matching.runoff import RunOff, Start
from somareg.matching.search import SearchCfg, Turn
from somareg.matching.vote import Elected, Guess, VoteCfg, vote
from somareg.runtime.threads import Over, one_by_one

Hints = Callable[[], tuple[Guess, ...]]


def no_hints() -> tuple[Guess, ...]:
    """No hints."""
    return ()


def find_start(
    full: Matcher,
    starts: tuple[Guess, ...],
    cfg: SearchCfg,
    run_off: RunOff,
    over: Over = one_by_one,
    hints: Hints = no_hints,
) -> Start:
    """The map that the windows support most.

    Args:
        full: matcher of the two images at full resolution.
        starts: the expected maps, at least one.
        cfg: settings of the search.
        run_off: decides where several are elected.
        over: applies the votes to the guesses.
        hints: gives guesses from another source, right within a few pixels; called only while nothing is clear.

    Raises:
        EstimationError: no window could be matched anywhere.
    """
    search = _Search(full, starts, cfg, over, hints)
    best: Start | None = None
    for _ in search.rounds():
        favourites = search.favourites()
        if best is None and best_score(favourites) >= cfg.enough:
            return Start(favourites[0].transform, favourites[0].shape, favourites[0].score)
        if not favourites and not search.challengers:
            continue
        best = run_off(favourites, search.challengers)
        if run_off.is_clear(best):
            break
    if best is None:
        raise EstimationError("no window could be matched: the images hold too little that is valid and not flat")
    return best


@dataclass
class _Search:
    """A search under way, round by round.

    Attributes:
        full, starts, cfg, over, hints: see `find_start`.
        near, wide: maps elected among similarities at the finer resolution, by close votes and by wide ones.
        challengers: maps elected by other votes; like `near` and `wide`, in pixels of the full images.
        low: maps elected at the low resolution, in its pixels.
    """

    full: Matcher
    starts: tuple[Guess, ...]
    cfg: SearchCfg
    over: Over
    hints: Hints
    near: list[Elected] = field(default_factory=list)
    wide: list[Elected] = field(default_factory=list)
    challengers: list[Elected] = field(default_factory=list)
    low: list[Elected] = field(default_factory=list)

    def __post_init__(self) -> None:
        pair, cfg = self.full.pair, self.cfg
        self.fine_factor = reduction(pair, cfg.fine_px, cfg.strip_px)
        self.low_factor = reduction(pair, cfg.coarse_px, cfg.strip_px)
        self.fine = self.full.reduced(self.fine_factor)
        self.small = self.full.reduced(self.low_factor) if cfg.is_wide else self.fine
        self.followed: list[Elected] = []

    def rounds(self) -> Iterator[None]:
        """Run the rounds one by one; each adds to `near`, `wide` and `challengers`."""
        cfg = self.cfg
        first, *others = cfg.turns()
        if not cfg.is_wide:
            self.wide += self._vote(self.starts, cfg.fine)
            yield
        elif best_score(self._turn([first])) >= cfg.doubtful:
            self._follow()
            yield
        steps: list[Callable[[], None]] = [self._bend, self._take_hints] if cfg.hints_first else [self._bend]
        if cfg.is_wide:
            steps += [lambda: self._look_around(others), self._bend_low]
        if not cfg.hints_first:
            steps.append(self._take_hints)
        if cfg.is_wide and cfg.widens:
            steps.append(lambda: self._look_around(cfg.turns_beyond()))
        for step in steps:
            step()
            yield

    def favourites(self) -> list[Elected]:
        """The best of the close votes and the best of the wide votes, better first.

        Both are refined, because a wide vote finds more support by chance.
        """
        best = [max(group, key=lambda one: one.score) for group in (self.near, self.wide) if group]
        return sorted(best, key=lambda one: -one.score)

    def _bend(self) -> None:
        """Votes with aspect and shear around the expected maps."""
        if self.cfg.fine_bent:
            self.challengers += self._vote(self.starts, self.cfg.fine_bent)

    def _take_hints(self) -> None:
        """Close votes around the hints."""
        if guesses := self.hints():
            self.challengers += self._vote(guesses, self.cfg.close, self.cfg.close_px)

    def _look_around(self, turns: list[Turn]) -> None:
        """Votes at low resolution around rotated and scaled expected maps; wide votes where none has support."""
        before = len(self.followed)
        self._turn(turns)
        self._follow()
        if best_score(self.favourites()) < self.cfg.doubtful:
            likely = [reduced_guess(one, self.low_factor, 1) for one in self.followed[before:]]
            self.wide += self._vote((*self.starts, *likely), self.cfg.fine)

    def _bend_low(self) -> None:
        """Votes with aspect and shear at low resolution, whose windows tolerate more of both."""
        if self.cfg.coarse_bent:
            self.challengers += self._closer(self._low_vote(self._expected(), self.cfg.coarse_bent))

    def _turn(self, turns: list[Turn]) -> list[Elected]:
        """Votes at low resolution around the expected maps, rotated and scaled."""
        guesses = [one for start in self._expected() for one in around(start, turns, self.small.pair, self.cfg.seen)]
        elected = self._low_vote(guesses, self.cfg.coarse)
        self.low += elected
        return elected

    def _follow(self) -> None:
        """Finer votes around the best maps of the low resolution that had none yet."""
        best = distinct(self.low, self.small.pair.shape, self.cfg)
        new = [one for one in best if one not in self.followed]
        self.followed += new
        self.near += self._closer(new)

    def _expected(self) -> list[Guess]:
        return [reduced_guess(start, 1, self.low_factor) for start in self.starts]

    def _low_vote(self, guesses: list[Guess], votes: VoteCfg) -> list[Elected]:
        return vote(self.small, guesses, self.cfg.radius * max(self.small.pair.shape), votes, self.over)

    def _closer(self, elected: list[Elected]) -> list[Elected]:
        """Close votes at the finer resolution around maps of the low one."""
        guesses = [reduced_guess(one, self.low_factor, 1) for one in elected]
        return self._vote(guesses, self.cfg.close, self.cfg.close_px * self.low_factor / self.fine_factor)

    def _vote(self, guesses: Sequence[Guess], votes: VoteCfg, radius_px: float | None = None) -> list[Elected]:
        """Votes at the finer resolution around guesses of the full images; `radius_px` is in its pixels."""
        radius = self.cfg.radius * max(self.fine.pair.shape) if radius_px is None else radius_px
        factor = self.fine_factor
        elected = vote(self.fine, [reduced_guess(one, 1, factor) for one in guesses], radius, votes, self.over)
        return [replace(one, transform=rescale(one.transform, factor, 1)) for one in elected]


def reduced_guess(guess: Guess, old: int, new: int) -> Guess:
    """Convert a guess between images reduced by `old` to images reduced by `new`."""
    return Guess(rescale(guess.transform, old, new), guess.shape)


def around(expected: Guess, turns: list[Turn], pair: Pair, share: float) -> list[Guess]:
    """The expected map, scaled and rotated about the reference's centre; guesses with hardly any overlap are left out.

    Args:
        expected: reference pixels -> moving pixels.
        turns: (rotation in degrees, scale) of each.
        pair: the images.
        share: least overlap, as a share of the overlap at the same scale without rotation.
    """
    centre = ((pair.shape[1] - 1) / 2, (pair.shape[0] - 1) / 2)

    def turned(turn: float, scale: float) -> AffineTransform:
        own = AffineTransform.from_parameters(rotation_deg=turn, scale=scale, centre=centre)
        return expected.transform.after(own)

    return [
        Guess(turned(*turn), turned_shape(expected.shape, turn[0]))
        for turn in turns
        if seen(turned(*turn), pair) >= share * seen(turned(0.0, turn[1]), pair)
    ]


def seen(transform: AffineTransform, pair: Pair) -> float:
    """Share of the reference that lies in the moving image's frame under a transform, 0-1."""
    height, width = pair.shape
    x, y = np.meshgrid(np.linspace(0, width - 1, 33), np.linspace(0, height - 1, 33))
    there = transform(np.stack([x.ravel(), y.ravel()], axis=-1))
    last = np.array(pair.moving.shape[:-3:-1]) - 1
    return float(((there >= 0) & (there <= last)).all(axis=-1).mean())


def best_score(elected: list[Elected]) -> float:
    """The largest support; 0 without candidates."""
    return max((one.score for one in elected), default=0.0)


def reduction(pair: Pair, side_px: float, strip_px: float = math.inf) -> int:
    """The factor that reduces the reference's longer side to about `side_px`, or less where a side would get too short.

    Args:
        pair: the images.
        side_px: wanted longer side.
        strip_px: where the longer side would exceed this, `STRIP_PX` is enough for the shorter one.
    """
    length, narrowest = max(pair.shape), min(*pair.shape, *pair.moving.shape[-2:])
    factor = max(1, math.ceil(length / side_px - 0.2))
    while factor > 1 and narrowest // factor < LEAST_SIDE_PX:
        if narrowest // factor >= STRIP_PX and length / (factor - 1) > strip_px:
            break
        factor -= 1
    return factor


def distinct(elected: list[Elected], shape: tuple[int, int], cfg: SearchCfg) -> list[Elected]:
    """The best distinct maps: neighbouring guesses often find the same one.

    Args:
        elected: the map found around each guess, in any order.
        shape: (height, width) of the reference in the pixels of the maps.
        cfg: settings, with `keep`, `apart_px` and `share`.
    """
    corners = np.array([(x, y) for x in (0.0, shape[1] - 1.0) for y in (0.0, shape[0] - 1.0)])
    kept: list[Elected] = []
    ranked = sorted(elected, key=lambda one: -one.score)
    for one in ranked:
        if len(kept) == cfg.keep or one.score < cfg.share * ranked[0].score:
            break
        there = one.transform(corners)
        if all(np.abs(there - better.transform(corners)).max() >= cfg.apart_px for better in kept):
            kept.append(one)
    return kept
