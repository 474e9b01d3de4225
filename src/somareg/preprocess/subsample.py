"""A representative sample of an image's values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.types import BoolArray

ENOUGH = 50_000  # pixels


def subsample(data: NDArray[Any], mask: BoolArray) -> NDArray[Any]:
    """Values (C, N) of a (C, H, W) image at its valid pixels: all of them, or about `ENOUGH` evenly spread ones.

    True and false become 1 and 0: NumPy has no percentiles of truth values.
    """
    step = max(1, int(np.count_nonzero(mask)) // ENOUGH)
    # A step that shares no divisor with the width passes through all columns, because sensors have stripes.
    while math.gcd(step, mask.shape[1]) > 1:
        step += 1
    chosen = mask.ravel()[::step]
    if not chosen.any():  # holes of the same rhythm, as in a chequerboard
        step, chosen = 1, mask.ravel()
    values = data.reshape(len(data), -1)[:, ::step][:, chosen]
    return values.view(np.uint8) if values.dtype == bool else values
