"""Whole pairs, and the modality words of their images."""

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
"""Kind of image -> modality words for `register`, of which the first known one is used."""

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
"""Modality of a pair -> kinds of reference and moving image; "other" for both when it is missing here."""

_SWAPPED = ("hopc_map", "hopc_visir")  # prefixes of pairs with swapped images


@dataclass(frozen=True, slots=True, eq=False)
class WholePair:
    """One row of the table.

    Attributes:
        set, name: where it belongs.
        modality: of the pair, which is also its row in the results.
        reference, moving: paths in the set's folder.
        reference_shape, moving_shape: (H, W).
        matrix: (2, 3) truth, reference to moving pixel centres.
        floor_px: error of the truth, RMS residual of its landmarks; 0 when exact.
        black_share: larger black share of the two images.
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
        """The place; every pair has its own."""
        return self.name

    @property
    def kinds(self) -> tuple[Kind, Kind]:
        """Kinds of reference and moving image."""
        reference, moving = KINDS.get(self.modality, ("other", "other"))
        return (moving, reference) if self.name.startswith(_SWAPPED) else (reference, moving)


@dataclass(frozen=True, slots=True, eq=False)
class WholeSample:
    """A whole pair as a sample of the benchmark.

    Attributes:
        pair: the pair.
        index: position in the list.
    """

    pair: WholePair
    index: int

    @property
    def level(self) -> str:
        """The one level of whole pairs."""
        return WHOLE


def word(kind: Kind) -> Modality:
    """The modality word for `register` of this kind of image."""
    return next(each for each in WORDS[kind] if _is_modality(each))


def _is_modality(text: str) -> TypeGuard[Modality]:
    return text in get_args(Modality)
