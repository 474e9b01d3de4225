"""Undeclared nodata values far outside the others, such as -9999, -32768 or 65535, in shapes of any kind.

Regions of one value are judged by their outline (see `fills`), which masks of clouds or ragged holes escape. But no
sensor measures one exact value again and again that lies many times the range of all others away, with hardly any value
between. Saturated targets have many. 8 bits have no room for such a value: 255 saturates.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.preprocess.subsample import subsample
from somareg.types import Modality, Raster

LEAST_SHARE = 0.002  # of the valid pixels
LEAST_REST = 200  # other values of the sample
FEW_VALUES = 16  # an image of so few other values shows classes, whose numbers mean nothing
AWAY = 20.0  # least distance from the others, in multiples of their range from the 10th to the 90th percentile
NEAR = 0.9  # share of that distance in which fewer other values lie than hold the value itself
BEYOND = 2.0  # the same for neighbours of such a pixel
MOST = 3  # such values per band
RIM_PX = 2  # reach of a resampling kernel


def without_sentinels(image: Raster, role: str, modality: Modality) -> tuple[Raster, tuple[str, ...]]:
    """Mask pixels of undeclared nodata values in the bands that are matched, with a note per value.

    Args:
        image: the matched bands.
        role: "moving" or "reference", for the option that declares the value.
        modality: of the image; the classes of a "map" are kept.
    """
    kind, size = image.data.dtype.kind, image.data.dtype.itemsize
    if modality == "map" or kind not in "iuf" or size == 1 or not image.mask.any():
        return image, ()
    mask, shares = image.mask.copy(), dict[float, float]()
    for band, sample in zip(image.data, subsample(image.data, image.mask), strict=True):
        found, least, most = _sentinels(sample)
        for value in found:
            here = np.asarray(band == value)
            shares[value] = max(shares.get(value, 0.0), float((here & image.mask).sum() / image.mask.sum()))
            beside = cv2.dilate(here.astype(np.uint8), np.ones((2 * RIM_PX + 1,) * 2, np.uint8)) > 0
            mixed = beside & ((band < least) | (band > most))  # by resampling
            mask &= ~(here | mixed)
    notes = tuple(
        f"{role}: {share:.1%} of the pixels hold exactly {value:g}, far outside all other values; left out. To declare "
        f"it: --{role}-nodata {value:g}"
        for value, share in shares.items()
    )
    return (replace(image, mask=mask, band_masks=None), notes) if notes else (image, ())


def _sentinels(sample: NDArray[Any]) -> tuple[list[float], float, float]:
    """Values of a sample (N,) that occur again and again far outside all others, and bounds of the others."""
    rest, found = sample[np.isfinite(sample)], list[float]()
    least, most = -math.inf, math.inf
    while rest.size and len(found) < MOST:
        for value in (rest.min(), rest.max()):
            others = rest[rest != value]
            count = rest.size - others.size
            if others.size < LEAST_REST or count < LEAST_SHARE * sample.size:
                continue
            low, high = np.percentile(others.astype(np.float64), [10, 90])
            gap = max(low - float(value), float(value) - high)
            between = np.count_nonzero(np.abs(others - float(value)) < NEAR * gap)
            if gap > AWAY * (high - low) > 0 and between < count and len(np.unique(others)) > FEW_VALUES:
                found.append(float(value))
                rest, least, most = others, low - BEYOND * (high - low), high + BEYOND * (high - low)
                break
        else:
            break
    return found, least, most
