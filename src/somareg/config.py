"""Settings of `register`, presets and their checks: an unknown name is an error that suggests the nearest one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from somareg.errors import ConfigError
from somareg.types import Modality, SarScale

Preset = Literal["fast", "base", "precise"]
Search = Literal["local", "auto", "full"]
Resampling = Literal["nearest", "bilinear", "cubic"]


class RegisterConfig(BaseModel):
    """Everything that shapes an estimate; frozen, JSON-ready, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    moving_modality: Modality = "sar"
    reference_modality: Modality = "optical"
    model: str = "auto"
    preset: Preset = "base"
    search: Search = "auto"
    search_radius_px: float | None = Field(default=None, gt=0, description="search radius, reference pixels")
    search_radius_m: float | None = Field(default=None, gt=0, description="search radius, metres (georeferenced only)")
    local: bool = Field(default=True, description="estimate a local displacement after the affine")
    resampling: Resampling = "cubic"
    moving_bands: tuple[int, ...] | None = Field(default=None, description="1-based bands used for matching")
    reference_bands: tuple[int, ...] | None = Field(default=None, description="1-based bands used for matching")
    moving_scale: SarScale = "auto"
    reference_scale: SarScale = "auto"
    moving_nodata: float | None = None
    reference_nodata: float | None = None
    assume_crs: str | None = Field(default=None, description="CRS of the image that declares none")
    device: str = "auto"
    seed: int = 0
    max_pixels: int = Field(default=4_000_000_000, gt=0, description="refuse larger images before allocating")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`" Did you mean 'base'?"`, or the list of choices when nothing is near."""
    options = list(choices)
    near = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else f" Choose from {', '.join(options)}."


def make_config(options: Mapping[str, Any]) -> RegisterConfig:
    """Validate options into a `RegisterConfig`.

    Raises:
        ConfigError: unknown option or bad value, naming it and the nearest valid choice.
    """
    for key in options:
        if key not in RegisterConfig.model_fields:
            raise ConfigError(f"unknown option '{key}'.{did_you_mean(key, RegisterConfig.model_fields)}")
    try:
        return RegisterConfig(**options)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        given = first["input"]
        if first["type"] == "literal_error":
            expected = first["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            raise ConfigError(f"unknown {name} '{given}'.{did_you_mean(str(given), expected)}") from error
        raise ConfigError(f"bad value {given!r} for option '{name}': {first['msg']}.") from error
