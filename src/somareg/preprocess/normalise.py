"""Bands of comparable contrast, whatever the sensor's units: what the matcher sees."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.errors import ConfigError
from somareg.preprocess.sar import detect_scale, to_log
from somareg.preprocess.subsample import subsample
from somareg.types import BoolArray, Modality, SarScale

MAX_BANDS = 4


def choose_bands(count: int, wanted: tuple[int, ...] | None, descriptions: tuple[str, ...]) -> tuple[int, ...]:
    """1-based bands for matching: those wanted, else all up to `MAX_BANDS`, else the visible and near infrared ones."""
    if wanted:
        return wanted
    if count <= MAX_BANDS:
        return tuple(range(1, count + 1))
    named = [
        i for i, text in enumerate(descriptions, start=1) if text.upper().replace("0", "") in {"B2", "B3", "B4", "B8"}
    ]
    return tuple(named) if len(named) == MAX_BANDS else tuple(range(1, MAX_BANDS + 1))


def check_bands(bands: tuple[int, ...], count: int, name: str) -> None:
    """Raise `ConfigError` for a 1-based band that an image of `count` bands does not have."""
    for band in bands:
        if not 1 <= band <= count:
            raise ConfigError(f"{name} has no band {band}; choose from 1 to {count}")


def normalise(
    data: NDArray[Any], mask: BoolArray, modality: Modality, scale: SarScale = "auto", reason: str = "as given"
) -> tuple[NDArray[np.float32], str]:
    """Robustly stretched bands with mean 0 and deviation 1 over the valid pixels, 0 elsewhere.

    Args:
        data: (C, H, W) real or complex.
        mask: (H, W) valid.
        modality: SAR goes through the logarithm, everything else through a square root of its stretched range.
        scale: of SAR values.
        reason: why it is taken to be that, for the note.

    Returns:
        (C, H, W) float32 and a note on the scale used ("" unless SAR).
    """
    note = ""
    if modality == "sar":
        if scale == "auto":
            scale, reason = detect_scale(data, mask)
        note = f"SAR values taken as {scale} ({reason})"
        image = to_log(data, mask, scale)
    else:
        image = np.nan_to_num(np.abs(data) if np.iscomplexobj(data) else data, nan=0.0, posinf=0.0, neginf=0.0)
        image = image.astype(np.float32)
    out = np.zeros(image.shape, np.float32)
    if not mask.any():
        return out, note
    limits = np.percentile(subsample(image, mask), [1, 99], axis=1).T
    for band, target, (low, high) in zip(image, out, limits, strict=True):
        if high <= low:
            low, high = float(band[mask].min()), float(band[mask].max())
        if high <= low:
            continue
        stretched = np.clip((band - low) / (high - low), 0.0, 1.0)
        if modality != "sar":
            stretched = np.sqrt(stretched + 0.05)
        valid = stretched[mask]
        target[mask] = (valid - valid.mean()) / max(float(valid.std()), 1e-6)
    return out, note
