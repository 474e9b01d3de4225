"""The options of `register` as the keyword arguments that editors and type checkers read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from numpy.typing import NDArray
from pydantic import ByteSize

from somareg.choices import Modality, SarScale
from somareg.config.options import Extent, GcpMethod, Preset, Resampling, Scene, Search, TiePointsUse
from somareg.types import TiePoints

# --- written by `make options` ---


class RegisterOptions(TypedDict, total=False):
    """The fields of `RegisterConfig` as keyword arguments; `docs/api.md` describes them."""

    moving_modality: Modality | None
    reference_modality: Modality | None
    moving_bands: str | Sequence[int] | None
    reference_bands: str | Sequence[int] | None
    moving_scale: SarScale
    reference_scale: SarScale
    moving_nodata: float | None
    reference_nodata: float | None
    moving_mask: str | Path | NDArray[Any] | None
    moving_mask_values: str | Sequence[int] | None
    reference_mask: str | Path | NDArray[Any] | None
    reference_mask_values: str | Sequence[int] | None
    assume_crs: str | None
    gcp_method: GcpMethod
    preset: Preset
    search: Search
    search_radius_px: float | None
    search_radius_m: float | None
    model: str | Path
    dinov2: str | Path | None
    tie_points: str | Path | TiePoints | None
    tie_points_use: TiePointsUse
    local: bool
    accuracy: float
    max_error: float | None
    max_error_m: float | None
    min_probability: float | None
    resampling: Resampling
    extent: Extent
    scene: Scene
    device: str
    seed: int
    max_pixels: int
    max_memory: ByteSize | int | str | None


# --- end of what `make options` writes ---
