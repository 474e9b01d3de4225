"""Maps that keep shapes, and maps that do not."""

from __future__ import annotations

import numpy as np

from somareg.geometry import AffineTransform

MIRROR = AffineTransform(np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 200.0]]))


def turned(degrees: float, scale: float = 1.0) -> AffineTransform:
    return AffineTransform.from_parameters(rotation_deg=degrees, scale=scale, shift=(30.0, -12.0))


def stretched(x: float = 1.03, y: float = 0.98, shear_deg: float = 1.5) -> AffineTransform:
    return AffineTransform.from_parameters(scale=(x, y), shear_deg=shear_deg)
