"""Settings of `register`, presets and their checks: an unknown name is an error that suggests the nearest one."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from somareg.errors import ConfigError
from somareg.types import Modality, SarScale

Preset = Literal["fast", "base", "precise"]
Search = Literal["local", "auto", "full"]
Resampling = Literal["nearest", "bilinear", "cubic"]
GcpMethod = Literal["auto", "polynomial", "tps"]
TiePointsUse = Literal["seed", "replace"]
Extent = Literal["reference", "common"]
Scene = Literal["auto", "always", "never"]

SCENE_PX = 4096
"""Longer side of the common ground above which a pair is matched tile by tile, reference pixels."""


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
    gcp_method: GcpMethod = Field(default="auto", description="curve through the points of a raster placed by GCPs")
    extent: Extent = Field(default="reference", description="outputs on the whole reference, or where both images are")
    scene: Scene = Field(default="auto", description="match tile by tile, in bounded memory")
    tie_points: str | None = Field(default=None, description="file of tie points that were matched elsewhere")
    tie_points_use: TiePointsUse = Field(default="seed", description="a start of the search, or all there is")


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


T = TypeVar("T")


def from_mapping(cls: type[T], mapping: Mapping[str, Any], where: str = "") -> T:
    """A nested frozen dataclass from plain dicts and lists, such as a YAML or JSON file holds.

    Args:
        cls: a dataclass whose fields are numbers, strings, bools, literals, tuples, optional values or dataclasses.
        mapping: field name -> value; fields that are missing keep their defaults.
        where: prefix for messages, such as "network.encoder".

    Raises:
        ConfigError: unknown key (with the nearest known one) or a value of the wrong kind, naming the key.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{where or cls.__name__} must be a mapping of names to values, not {mapping!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in mapping.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in fields:
            raise ConfigError(f"unknown option '{name}'.{did_you_mean(str(key), fields)}")
        values[key] = _convert(hints[key], value, name)
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ConfigError(f"option '{f'{where}.{name}' if where else name}' is missing")
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type that `hint` asks for."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast(type[Any], hint), value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _first_that_fits([a for a in arguments if a is not type(None)], value, where)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"unknown {where} '{value}'.{did_you_mean(str(value), map(str, arguments))}")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        kinds = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        if len(kinds) != len(value):
            raise ConfigError(f"option '{where}' takes {len(kinds)} values, not {len(value)}")
        return tuple(
            _convert(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
        )
    if origin is dict and isinstance(value, Mapping):
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"bad value {value!r} for option '{where}': {getattr(hint, '__name__', hint)} is needed")


def _first_that_fits(kinds: list[Any], value: Any, where: str) -> Any:
    failure: ConfigError | None = None
    for kind in kinds:
        try:
            return _convert(kind, value, where)
        except ConfigError as error:
            failure = failure or error
    raise failure or ConfigError(f"bad value {value!r} for option '{where}'")


def to_mapping(cfg: Any) -> Any:
    """The inverse of `from_mapping`: dataclasses as dicts, tuples as lists; JSON-ready."""
    if dataclasses.is_dataclass(cfg) and not isinstance(cfg, type):
        return {field.name: to_mapping(getattr(cfg, field.name)) for field in dataclasses.fields(cfg)}
    if isinstance(cfg, list | tuple):
        return [to_mapping(item) for item in cfg]
    if isinstance(cfg, Mapping):
        return {str(key): to_mapping(item) for key, item in cfg.items()}
    return cfg
