"""Settings of the search when little is known: ranges, resolutions, votes, and the support that ends the search."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from somareg.matching.vote import VoteCfg
from somareg.matching.windows import WindowCfg

Turn = tuple[float, float]
"""Rotation in degrees and scale of a guess relative to the expected map."""

ALL_AROUND, ANY_SCALE = 180.0, (0.68, 1.45)


@dataclass(frozen=True)
class SearchCfg:
    """Settings of the search.

    Votes run at two resolutions, a low one (`coarse_px`) and a finer one (`fine_px`).

    Attributes:
        rotation_deg: largest rotation either way; 180 means all rotations.
        rotation_step_deg: distance between neighbouring guesses.
        scale: (smallest, largest) scale of the moving image relative to the reference.
        scale_step: ratio between neighbouring guesses.
        widens: whether all rotations and the scales of `ANY_SCALE` are tried when nothing in these ranges is clear.
        hints_first: whether hints (guesses from keypoints) are tried before rotated guesses.
        seen: least overlap of a rotated guess with the reference, as a share of the overlap without the rotation; those
            below it are skipped, as for a strip that lies across another one.
        radius: translation radius as a share of the reference's longer side.
        keep: largest number of maps of the low resolution that get a finer vote.
        apart_px: maps nearer than this to a better one, pixels of the low resolution, get none, because the better
            one's finer vote covers them.
        share: maps with less than this share of the best one's support get none either.
        settled: support (see `vote.Elected`) at the finer resolution from which nothing else is tried in a wide search.
        doubtful: below this support at the low resolution all rotations are tried; below it at the finer one wide votes
            are taken there as well, around the expected maps and around those that the low resolution found.
        coarse_px, fine_px: longer side of the image at the two resolutions.
        strip_px: longer side above which a strip is reduced further at both, as far as its shorter side allows.
        coarse: votes at the low resolution.
        coarse_bent: the same with aspect and shear; None to look for similarities only.
        close, close_px: votes at the finer resolution around the maps of the low one, and how far off those may be, in
            pixels of the low one (hints: of the finer one).
        fine: wide votes at the finer resolution.
        fine_bent: the same with aspect and shear; None to look for similarities only.
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
        """Support of the expected maps, at the finer resolution, from which nothing else is tried."""
        return self.settled if self.is_wide else self.doubtful

    @property
    def is_wide(self) -> bool:
        """Whether the search ranges exceed one fine vote."""
        (low, high), reach = self.scale, self.fine.scale
        return self.rotation_deg > self.fine.rotation_deg or low < 1 - reach or high > 1 + reach

    def turns(self) -> list[Turn]:
        """Every guess, the expected one (0 degrees, scale 1) first."""
        return self._turns(self.rotation_deg, self.scale)

    def turns_beyond(self) -> list[Turn]:
        """Further guesses of a search that widens, without those of `turns`."""
        tried = self.turns()

        def is_new(turn: Turn) -> bool:
            """Whether no tried guess lies within half a step."""
            return all(
                abs((turn[0] - rotation + 180) % 360 - 180) > self.rotation_step_deg / 2
                or abs(math.log(turn[1] / scale)) > math.log(self.scale_step) / 2
                for rotation, scale in tried
            )

        return [turn for turn in self._turns(ALL_AROUND, ANY_SCALE) if is_new(turn)] if self.widens else []

    def _turns(self, rotation_deg: float, scale: tuple[float, float]) -> list[Turn]:
        spared = self.coarse.rotation_deg  # the range that one vote covers
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
