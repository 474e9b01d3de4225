"""The protocol: levels of difficulty, and the sets with the accuracy of their labels.

`sample` defines the samples of a level and their pixels; `whole` those of whole pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from somareg.config import did_you_mean
from somareg.errors import ConfigError

PROTOCOL_VERSION = 1

Split = Literal["test", "val"]


@dataclass(frozen=True, slots=True)
class Level:
    """Ranges from which the truth of a sample is drawn, about the crop's centre.

    Attributes:
        rotation_deg: uniform in +-this.
        scale: log-uniform between the two; above 1 the moving image shows the ground larger.
        shift: uniform per axis in +-this share of the crop's side.
        aspect: log-uniform between the two, the x axis stretched against the y axis.
        shear: uniform in +-this, the slope by which the y axis leans.
        warp_px: RMS of the smooth warp beyond the affine, pixels; 0 without.
    """

    rotation_deg: float
    scale: tuple[float, float]
    shift: float
    aspect: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    warp_px: float = 0.0


WARPED = "N"
WARP_PX: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 4.0)
"""RMS of the warps of level N, pixels: each is a level of its own, N0.5 to N4."""
WARP_LENGTHS_PX: tuple[float, ...] = (60.0, 120.0)
"""Correlation lengths of the warps of level N, pixels: half of the samples each."""

_MODERATE = Level(5.0, (0.95, 1.05), 0.06)

LEVELS: dict[str, Level] = {
    "E": Level(2.0, (0.98, 1.02), 0.03),
    "m": _MODERATE,
    "M": Level(5.0, (0.8, 1.2), 0.06),
    "H": Level(20.0, (0.8, 1.25), 0.10),
    "R": Level(180.0, (0.7, 1.4), 0.10),
    "A": replace(_MODERATE, aspect=(0.8, 1.25), shear=0.08),
    **{f"{WARPED}{rms:g}": replace(_MODERATE, warp_px=rms) for rms in WARP_PX},
}
"""Levels with drawn samples."""

AFFINE_LEVELS: tuple[str, ...] = tuple(name for name, level in LEVELS.items() if not level.warp_px)
WARPED_LEVELS: tuple[str, ...] = tuple(name for name, level in LEVELS.items() if level.warp_px)

WHOLE = "whole"
"""The level of sets whose pairs are judged without cropping."""


@dataclass(frozen=True, slots=True)
class SetInfo:
    """Properties of the pairs of a set with one role.

    Attributes:
        name: folder in the data folder.
        crop: side of the square crops, pixels.
        residual: error of the labels, in words.
        quoted_from: the smallest CMR threshold (pixels) that this error allows to quote; None where the pairs have no
            label, so that only a method's own figures are reported.
        roles: role in `pairs.csv` that serves each split.
        count: samples per split of every level without a warp.
    """

    name: str
    crop: int
    residual: str
    quoted_from: float | None
    roles: dict[str, str]
    count: dict[str, int]

    def count_of(self, level: str, split: Split) -> int:
        """Number of samples of a level: a fifth, at least 30, for each level with a warp; 0 without a label."""
        number = self.count[split]
        if not LEVELS[level].warp_px:
            return number
        return min(number, max(30, number // 5)) if self.quoted_from is not None else 0


_WITNESSES = "<= 0.8 px (two witnesses)"
_FAR_WITNESSES = "<= 1.5 px (two witnesses)"

SETS: dict[str, tuple[SetInfo, ...]] = {
    "sih": (SetInfo("sih", 512, "p90 0.5 px", 0.5, {"test": "test", "val": "train"}, {"test": 60, "val": 60}),),
    "ombria": (SetInfo("ombria", 160, "0.3-0.5 px", 1.0, {"test": "test", "val": "val"}, {"test": 200, "val": 200}),),
    "sen12": (SetInfo("sen12", 160, "p90 0.81 px", 1.0, {"test": "test"}, {"test": 200}),),
    "vhr": (SetInfo("vhr", 128, "1.4-2 px", 3.0, {"val": "val-vhr"}, {"val": 200}),),
    "multisensor": (
        SetInfo("multisensor", 160, _WITNESSES, 1.0, {"val": "val"}, {"val": 132}),
        SetInfo("multisensor", 160, _FAR_WITNESSES, 3.0, {"val": "val-3px"}, {"val": 54}),
        SetInfo("multisensor", 160, "an unknown amount", None, {"val": "unlabelled"}, {"val": 56}),
    ),
    "vhrcity": (
        SetInfo("vhrcity", 160, _WITNESSES, 1.0, {"val": "val"}, {"val": 65}),
        SetInfo("vhrcity", 160, _FAR_WITNESSES, 3.0, {"val": "val-3px"}, {"val": 30}),
    ),
    "vhrpublished": (SetInfo("vhrpublished", 256, "about 3 px", 3.0, {"val": "val-3px"}, {"val": 40}),),
}
"""Sets with drawn samples, one list per role."""

WHOLE_SETS: tuple[str, ...] = ("crossmodal",)
"""Sets whose pairs are judged whole, from their own table (`whole`)."""


def asked_levels(names: Iterable[str]) -> list[str]:
    """Expand names of levels ("N" means all levels with a warp), each once.

    Raises:
        ConfigError: an unknown level; the message suggests the nearest.
    """
    expanded: dict[str, None] = {}
    for name in check_names(names, (*LEVELS, WARPED, WHOLE), "level"):
        expanded.update(dict.fromkeys(WARPED_LEVELS if name == WARPED else (name,)))
    return list(expanded)


def affine_levels(names: Iterable[str]) -> list[str]:
    """Names of levels whose truth is a matrix, for functions that need crops and matrices.

    Raises:
        ConfigError: one is unknown, or has another truth.
    """
    levels = asked_levels(names)
    for name in levels:
        if name not in AFFINE_LEVELS:
            raise ConfigError(
                f"the truth of level '{name}' is no matrix between crops; take {', '.join(AFFINE_LEVELS)}"
            )
    return levels


def check_names(names: Iterable[str], known: Iterable[str], what: str) -> list[str]:
    """`names` as a list.

    Raises:
        ConfigError: one of them is not among `known`; the message suggests the nearest.
    """
    known, names = list(known), list(names)
    for name in names:
        if name not in known:
            raise ConfigError(f"unknown {what} '{name}'.{did_you_mean(name, known)}")
    return names
