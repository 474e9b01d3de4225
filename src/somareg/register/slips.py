"""Likely mistakes of the user: one file given twice, SAR and optical swapped. They forbid "go"."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.config import RegisterConfig
from somareg.errors import SomaregError
from somareg.io.inputs import OpenImage
from somareg.io.paths import split
from somareg.io.source import Block
from somareg.register.ground import Ground
from somareg.register.images import Images
from somareg.types import BoolArray, Header, Raster

SAMPLE_PX = 320  # side of the examined part
_WINDOW = 7
_QUIET_SHARE = 10  # percentile of the local variation that stands for homogeneous ground
# Variation of speckle relative to its mean; quiet optical ground is below 0.09 on nine of ten sets of real pairs.
SPECKLE, CALM = 0.12, 0.08
_MUCH_LESS, _NO_MORE = 0.5, 1.25
_ENOUGH = 2000  # valid pixels


@dataclass(frozen=True)
class Look:
    """Properties of an image, independent of its claimed modality.

    Attributes:
        bands: number of different bands.
        variation: of its quietest ground, relative to the mean.
        is_radar: whether it has complex or negative values, as no optical image has.
    """

    bands: int
    variation: float
    is_radar: bool


def doubts_about(images: Images, ground: Ground, cfg: RegisterConfig) -> tuple[str, ...]:
    """Sentences about likely mistakes; () without any.

    Args:
        images: both, open.
        ground: whose middle is examined.
        cfg: modalities and bands.
    """
    doubts = []
    if _is_same(images.moving.facts, images.reference.facts) and cfg.moving_bands == cfg.reference_bands:
        doubts.append("Moving image and reference are the same file: the result says nothing about two images.")
        return tuple(doubts)
    modalities = {"moving": cfg.moving_modality, "reference": cfg.reference_modality}
    if set(modalities.values()) != {"sar", "optical"}:
        return ()
    looks = {"moving": _look(images.moving, ground.moving), "reference": _look(images.reference, ground.reference)}
    sar, optical = sorted(modalities, key=lambda role: modalities[role] != "sar")
    first, second = looks[sar], looks[optical]
    if first is None or second is None:
        return ()
    if _are_swapped(first, second):
        doubts.append(
            f"The {_named(sar)} looks optical and the {_named(optical)} like SAR; if that is so, say "
            f"--{sar}-modality optical --{optical}-modality sar."
        )
    elif first.bands >= 3 and first.variation < CALM and f"{sar}_modality" not in cfg.model_fields_set:
        doubts.append(
            f"The {_named(sar)} was taken as SAR, but it has {first.bands} bands and no speckle; say --{sar}-modality."
        )
    return tuple(doubts)


def _are_swapped(sar: Look, optical: Look) -> bool:
    """Whether the image called SAR looks optical and the one called optical looks like SAR."""
    if optical.is_radar != sar.is_radar:
        return optical.is_radar
    speckled = optical.variation >= SPECKLE and sar.variation <= _MUCH_LESS * optical.variation
    coloured = sar.bands >= 3 and optical.bands <= 2 and sar.variation <= _NO_MORE * optical.variation
    return speckled or coloured


def _look(image: OpenImage, part: Block) -> Look | None:
    """Examine the middle of a part; None when hardly anything is valid."""
    width, height = min(part.width, SAMPLE_PX), min(part.height, SAMPLE_PX)
    middle = Block(part.x + (part.width - width) // 2, part.y + (part.height - height) // 2, width, height)
    try:
        raster = image.read(middle)
    except SomaregError:  # the step that needs these pixels will raise
        return None
    values = np.abs(raster.data).astype(np.float32)
    is_complex = raster.data.dtype.kind == "c"
    negative = 0.0 if is_complex else float((raster.data[:, raster.mask] < 0).mean())
    variations = [v for band in values if (v := _quiet_variation(band, raster.mask)) is not None]
    if not variations:
        return None
    return Look(_differing(values), float(np.median(variations)), is_complex or negative > 0.2)


def _quiet_variation(band: NDArray[np.float32], mask: BoolArray) -> float | None:
    """Lowest deviation over mean of small windows: noise alone, on ground without structure."""
    usable = mask & (band > 0) & (band < band.max())
    inside = cv2.erode(usable.astype(np.uint8), np.ones((_WINDOW, _WINDOW), np.uint8)) > 0
    if int(inside.sum()) < _ENOUGH:
        return None
    level = float(band[usable].mean())
    scaled = np.where(usable, band / level, 0).astype(np.float32)
    mean, square = (np.asarray(cv2.blur(v, (_WINDOW, _WINDOW)))[inside] for v in (scaled, scaled * scaled))
    return float(np.percentile(np.sqrt(np.maximum(square - mean**2, 0)) / mean, _QUIET_SHARE))


def _differing(bands: NDArray[np.float32]) -> int:
    """Number of bands that are no copies of an earlier one: grey images are often stored as three equal bands."""
    return sum(not any(np.array_equal(band, other) for other in bands[:i]) for i, band in enumerate(bands))


def _is_same(moving: Raster | Header, reference: Raster | Header) -> bool:
    """Whether both are the same part of the same file or of its copy; an array given twice counts as intended."""
    if not moving.sha256 or moving.sha256 != reference.sha256:
        return False
    return len({split(facts.path)[1] if facts.path else "" for facts in (moving, reference)}) == 1


def _named(role: str) -> str:
    return "moving image" if role == "moving" else role
