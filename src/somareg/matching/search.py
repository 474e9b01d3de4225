"""What is searched when little is known: ranges, resolutions and votes, and from which support the search ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from somareg.matching.vote import VoteCfg
from somareg.matching.windows import WindowCfg

Turn = tuple[float, float]
"""Rotation in degrees and scale of a guess against what is expected."""

ALL_AROUND, ANY_SCALE = 180.0, (0.68, 1.45)


@dataclass(frozen=True)
class SearchCfg:
    """What is searched.

    Attributes:
        rotation_deg: rotations from minus to plus this; 180 means all around.
        rotation_step_deg: distance between neighbouring guesses.
        scale: (smallest, largest) scale of the moving image against the reference.
        scale_step: ratio between neighbouring guesses.
        widens: whether any rotation and scales of `ANY_SCALE` are tried when nothing in these ranges is clear.
        hints_first: whether guesses from elsewhere are tried before turned ones.
        seen: turned guesses that show less than this share of what they show of the reference when not turned are not
            looked at: a strip hardly meets another one across it.
        radius: translation radius as a share of the reference's longer side.
        keep: guesses of the low resolution that are looked at again, at most.
        apart_px: those nearer to a better one, pixels of the low resolution, are not: its finer vote covers them.
        share: nor are those with less than this share of the best one's support.
        settled: support (see `vote.Elected`) by the finer resolution from which nothing else is tried in a wide search.
        doubtful: below this support at the low resolution all rotations are tried; below it at the finer one wide votes
            there are taken as well, around what is expected and around what the low one led to.
        coarse_px, fine_px: longer side of the image at the two resolutions.
        strip_px: longer side up to which a strip is reduced at both, as far as its shorter one bears.
        coarse: votes at the low one.
        coarse_bent: the same with aspect and shear; None to look for similarities only.
        close, close_px: votes at the finer one around what they found, which is right within so many pixels there.
        fine: wide ones.
        fine_bent: wide ones with aspect and shear; None to look for similarities only.
    """

    rotation_deg: float = 22.0
    rotation_step_deg: float = 16.0
    scale: tuple[float, float] = (0.78, 1.28)
    scale_step: float = 1.185
    widens: bool = False
    hints_first: bool = False
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
    coarse: VoteCfg = field(default_factory=lambda: VoteCfg(WindowCfg(14, 4, 4), 8.0, 0.085, step_px=1.5))
    coarse_bent: VoteCfg | None = field(
        default_factory=lambda: VoteCfg(WindowCfg(14, 4, 4), 8.0, 0.085, 0.3, 0.1, step_px=1.5)
    )
    close: VoteCfg = field(default_factory=lambda: VoteCfg(rotation_deg=2.5, scale=0.025))
    close_px: float = 5.0
    fine: VoteCfg = field(default_factory=VoteCfg)
    fine_bent: VoteCfg | None = field(
        default_factory=lambda: VoteCfg(rotation_deg=6.0, scale=0.06, aspect=0.3, shear=0.1)
    )

    @property
    def enough(self) -> float:
        """Support of what is expected, by the finer resolution, from which nothing else is tried."""
        return self.settled if self.is_wide else self.doubtful

    @property
    def is_wide(self) -> bool:
        """Whether one fine vote does not cover what is searched."""
        (low, high), reach = self.scale, self.fine.scale
        return self.rotation_deg > self.fine.rotation_deg or low < 1 - reach or high > 1 + reach

    def turns(self) -> list[Turn]:
        """Every guess, the one that is expected (0 degrees, scale 1) first."""
        return self._turns(self.rotation_deg, self.scale)

    def turns_beyond(self) -> list[Turn]:
        """The guesses of a search that widens which `turns` leaves out."""
        tried = self.turns()

        def is_new(turn: Turn) -> bool:
            """No guess tried lies within half a step."""
            return all(
                abs((turn[0] - rotation + 180) % 360 - 180) > self.rotation_step_deg / 2
                or abs(math.log(turn[1] / scale)) > math.log(self.scale_step) / 2
                for rotation, scale in tried
            )

        return [turn for turn in self._turns(ALL_AROUND, ANY_SCALE) if is_new(turn)] if self.widens else []

    def _turns(self, rotation_deg: float, scale: tuple[float, float]) -> list[Turn]:
        spared = self.coarse.rotation_deg  # what a vote covers by itself
        count = math.ceil(max(0.0, rotation_deg - spared) / self.rotation_step_deg)
        rotations = [i * self.rotation_step_deg for i in range(-count, count + 1)]
        if rotation_deg >= ALL_AROUND:
            count = math.ceil(360 / self.rotation_step_deg)
            rotations = [i * 360 / count for i in range(count)]
        step, spared = math.log(self.scale_step), self.coarse.scale
        below = math.ceil(max(0.0, -math.log(scale[0]) - spared) / step)
        above = math.ceil(max(0.0, math.log(scale[1]) - spared) / step)
        scales = [math.exp(i * step) for i in range(-below, above + 1)]
        every = [(rotation, size) for rotation in rotations for size in scales]
        return sorted(every, key=lambda turn: turn != (0.0, 1.0))
