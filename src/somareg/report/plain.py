"""JSON-ready values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def plain(value: Any) -> Any:
    """A JSON-ready copy: NumPy to Python, tuples to lists, paths to text, NaN and infinities to None."""
    if isinstance(value, Mapping):
        return {text(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return text(value)


def text(value: object) -> str:
    """Text that UTF-8 can encode; bytes of a file name that are no characters become escapes."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


Number = Annotated[float | None, BeforeValidator(plain)]
"""A finite float, or None when not measured."""


class Part(BaseModel):
    """A part of `report.json`."""

    # Extra keys are dropped, not refused: a later 1.x report stays readable.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Length(Part):
    """One length in both units."""

    px: Number = Field(description="reference pixels")
    m: Number = Field(description="metres on the ground; null without a georeference")
