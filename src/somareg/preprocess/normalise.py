"""Normalised bands of comparable contrast, in any unit: the input of the matcher."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.preprocess.local import against_surroundings
from somareg.preprocess.relief import BANDS, relief
from somareg.preprocess.sar import detect_scale, to_log
from somareg.preprocess.subsample import subsample
from somareg.types import HEIGHTS, BoolArray, Modality, SarScale

_TREATMENT: dict[Modality, str] = {
    **dict.fromkeys(HEIGHTS, "heights taken as height, slope and slope towards east and north"),
    "infrared": "infrared taken as contrast against its surroundings",
    "map": "map taken as contrast against its surroundings",
}


def treatment(modality: Modality) -> str:
    """A note on how images of a modality are treated; "" for SAR and for those that are only stretched."""
    return _TREATMENT.get(modality, "")


def normalise(
    data: NDArray[Any], mask: BoolArray, modality: Modality, scale: SarScale = "auto", reason: str = "as given"
) -> tuple[NDArray[np.float32], str]:
    """Stretch bands robustly to mean 0 and deviation 1 over the valid pixels, 0 elsewhere.

    Args:
        data: (C, H, W) real or complex.
        mask: (H, W) valid.
        modality: SAR goes through the logarithm; heights ("depth", "dem") become four bands each, see `relief`;
            "infrared" and "map" become contrast against their surroundings; everything else goes through a square root
            of its stretched range.
        scale: of SAR values.
        reason: for this scale, for the note.

    Returns:
        (C, H, W) float32, (4 C, H, W) for heights, and a note on the treatment ("" without one).
    """
    note = treatment(modality)
    if not mask.any():
        return np.zeros((len(data) * (BANDS if modality in HEIGHTS else 1), *mask.shape), np.float32), note
    if modality == "sar":
        if scale == "auto":
            scale, reason = detect_scale(data, mask)
        note = f"SAR values taken as {scale} ({reason})"
        image = to_log(data, mask, scale)
    else:
        image = np.nan_to_num(np.abs(data) if np.iscomplexobj(data) else data, nan=0.0, posinf=0.0, neginf=0.0)
        image = image.astype(np.float32)
    if modality in HEIGHTS:
        image = np.concatenate([relief(heights, mask) for heights in image])
    out = np.zeros(image.shape, np.float32)
    limits = np.percentile(subsample(image, mask), [1, 99], axis=1).T
    for band, target, (low, high) in zip(image, out, limits, strict=True):
        if high <= low:
            low, high = float(band[mask].min()), float(band[mask].max())
        if high <= low:
            continue
        stretched = np.clip((band - low) / (high - low), 0.0, 1.0)
        if modality in ("infrared", "map"):
            stretched = against_surroundings(stretched, mask)
        elif modality != "sar" and modality not in HEIGHTS:
            stretched = np.sqrt(stretched + 0.05)
        valid = stretched[mask]
        target[mask] = (valid - valid.mean()) / max(float(valid.std()), 1e-6)
    return out, note
