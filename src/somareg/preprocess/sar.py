"""SAR values on a scale where speckle is additive: the logarithm of intensity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.preprocess.subsample import subsample
from somareg.types import BoolArray, SarScale

_CENTRED, _EVEN = 0.02, 0.1  # how far median and tails of parts of complex values may lie off 0, as shares of the range
_APART, _BY_CHANCE = 4, 0.05  # pixels at which their signs are independent; largest mean product of two signs then


def detect_scale(data: NDArray[Any], mask: BoolArray) -> tuple[SarScale, str]:
    """Guess the scale of SAR values and say why.

    Args:
        data: (C, H, W) real or complex.
        mask: (H, W) valid.

    Returns:
        The scale and a sentence with the reason. Matching need not distinguish power from amplitude: their
        logarithms differ by a factor.
    """
    if np.iscomplexobj(data):
        return "complex", "complex values: their modulus is used"
    values = subsample(data, mask).astype(np.float64)
    negative = float((values < 0).mean())
    if negative > 0.05 and _is_part(data, mask):
        return "amplitude", (
            "positive and negative alike, as the real or imaginary part of complex values, which shows little of the "
            "ground: give intensity or amplitude instead"
        )
    if negative > 0.05:
        return "dB", f"{negative:.0%} of the values are negative"
    if not values.size:
        return "amplitude", "no valid value"
    low, middle, high = np.percentile(values, [5, 50, 95])
    if data.dtype.kind in "ui":
        if high - middle < 1.8 * max(middle - low, 1e-9):
            return "dB", "integer values without the long tail of linear SAR: already on a logarithmic display scale"
        return "amplitude", "non-negative integers with a long tail"
    if middle < 1.0:
        return "power", f"non-negative values with median {middle:.3g}"
    return "amplitude", f"non-negative values with median {middle:.3g}"


def _is_part(data: NDArray[Any], mask: BoolArray) -> bool:
    """Whether values look like the real or imaginary part of complex ones: symmetric about 0, with signs by chance.

    Decibels may lie around 0, too, but then ground above and below it forms areas.
    """
    values = subsample(data, mask & (data != 0).any(axis=0)).astype(np.float64)  # a border of zeros is no value
    if not values.size:
        return False
    low, middle, high = np.percentile(values, [5, 50, 95])
    if abs(middle) > _CENTRED * (high - low) or abs(low + high) > _EVEN * (high - low):
        return False
    sign = np.where(mask, np.sign(data), 0).astype(np.float32)
    products = np.concatenate(
        [(sign[:, _APART:] * sign[:, :-_APART]).ravel(), (sign[..., _APART:] * sign[..., :-_APART]).ravel()]
    )
    products = products[products != 0]
    return bool(products.size) and abs(float(products.mean(dtype=np.float64))) < _BY_CHANCE


def to_log(data: NDArray[Any], mask: BoolArray, scale: SarScale) -> NDArray[np.float32]:
    """SAR values as log intensity (any base; (C, H, W) float32), finite everywhere.

    Args:
        data: (C, H, W) real or complex.
        mask: (H, W) valid.
        scale: of the values; not "auto".
    """
    if scale == "dB":
        return np.nan_to_num(np.asarray(data, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    magnitude = np.nan_to_num(np.abs(data).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    valid = magnitude[:, mask]
    positive = valid[valid > 0]
    # The floor keeps zeros of calm water from becoming the strongest edge of the image.
    floor = float(np.percentile(positive, 2)) if positive.size else 1.0
    log: NDArray[np.float32] = np.log(magnitude + floor)
    return log
