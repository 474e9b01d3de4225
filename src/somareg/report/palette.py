"""Colour maps of the report and of the viewer: one growing lightness each, readable without red or green."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

_KNOWN = {"viridis": cv2.COLORMAP_VIRIDIS, "plasma": cv2.COLORMAP_PLASMA, "cividis": cv2.COLORMAP_CIVIDIS}


@lru_cache(maxsize=4)
def colours(name: str) -> NDArray[np.uint8]:
    """(256, 3) colours of "viridis", "plasma" or "cividis"."""
    return np.ascontiguousarray(cv2.applyColorMap(np.arange(256, dtype=np.uint8), _KNOWN[name])[0, :, ::-1])


def coloured(values: NDArray[np.floating], top: float, name: str) -> NDArray[np.uint8]:
    """Colours (..., 4) with alpha of values (...) from 0 to `top`; transparent where not finite."""
    finite = np.isfinite(values)
    index = (np.clip(np.where(finite, values, 0) / top, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.concatenate([colours(name)[index], np.where(finite, 255, 0).astype(np.uint8)[..., None]], axis=-1)


def ramp(name: str, count: int = 12) -> list[str]:
    """Colours from the first to the last, evenly spread, as in "#1f6fb2"."""
    stops = colours(name)[np.linspace(0, 255, count).round().astype(int)]
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in stops.tolist()]
