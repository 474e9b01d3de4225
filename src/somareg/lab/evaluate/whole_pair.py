"""Pairs that are judged whole, and the words for what their images are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeGuard, get_args

import numpy as np
from numpy.typing import NDArray

from somareg.lab.evaluate.protocol import WHOLE
from somareg.types import Modality

Kind = Literal["optical", "nir", "infrared", "depth", "intensity", "map", "other"]

WORDS: dict[Kind, tuple[str, ...]] = {
    "optical": ("optical",),
    "nir": ("nir", "other"),
    "infrared": ("infrared", "other"),
    "depth": ("depth", "other"),
    "intensity": ("other",),
    "map": ("map", "other"),
    "other": ("other",),
}
"""What an image is -> what `register` is told as its modality: the first of these words that it knows."""

KINDS: dict[str, tuple[Kind, Kind]] = {
    "cross_season": ("optical", "optical"),
    "day_night": ("optical", "optical"),
    "depth_optical": ("depth", "optical"),
    "infrared_optical": ("infrared", "optical"),
    "lidarintensity_optical": ("intensity", "optical"),
    "map_optical": ("map", "optical"),
    "nir_visible_aerial": ("optical", "nir"),
    "nir_visible_satellite": ("optical", "nir"),
    "optical_optical": ("optical", "optical"),
}
"""Modality of a pair -> what its reference and its moving image are; both "other" where it does not stand here."""

_SWAPPED = ("hopc_map", "hopc_visir")  # pairs, by the beginning of their names, that stand the other way round


@dataclass(frozen=True, slots=True, eq=False)
class WholePair:
    """One row of the table.

    Attributes:
        set, name: where it belongs.
        modality: what the two images are, the row of the result that it enters.
        reference, moving: paths in the set's folder.
        reference_shape, moving_shape: (H, W).
        matrix: (2, 3) truth, reference to moving pixel centres.
        floor_px: error of the truth, RMS of the landmarks that it was fitted to; 0 where it is exact.
        black_share: of the more framed one of the two images.
    """

    set: str
    name: str
    modality: str
    reference: str
    moving: str
    reference_shape: tuple[int, int]
    moving_shape: tuple[int, int]
    matrix: NDArray[np.float64]
    floor_px: float
    black_share: float

    @property
    def group(self) -> str:
        """The place: every pair shows its own."""
        return self.name

    @property
    def kinds(self) -> tuple[Kind, Kind]:
        """What reference and moving image are."""
        reference, moving = KINDS.get(self.modality, ("other", "other"))
        return (moving, reference) if self.name.startswith(_SWAPPED) else (reference, moving)


@dataclass(frozen=True, slots=True, eq=False)
class WholeSample:
    """A pair as a question of the benchmark.

    Attributes:
        pair: which.
        index: place in the list.
    """

    pair: WholePair
    index: int

    @property
    def level(self) -> str:
        """The one level of whole pairs."""
        return WHOLE


def word(kind: Kind) -> Modality:
    """What `register` is told of an image of this kind."""
    return next(each for each in WORDS[kind] if _is_modality(each))


def _is_modality(text: str) -> TypeGuard[Modality]:
    return text in get_args(Modality)
