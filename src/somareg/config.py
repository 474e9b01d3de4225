"""Settings of `register`, presets and their checks: an unknown name is an error that suggests the nearest one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import lru_cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json, to_jsonable_python

from somareg.errors import ConfigError
from somareg.types import Modality, SarScale

Preset = Literal["fast", "base", "precise"]
Search = Literal["local", "auto", "full"]
Resampling = Literal["nearest", "bilinear", "cubic"]
GcpMethod = Literal["auto", "polynomial", "tps"]
TiePointsUse = Literal["seed", "replace"]

SCENE_PX = 4096
"""Longer side of the reference above which the command line treats a pair as a scene: tile by tile, from the files."""


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
    try:
        return RegisterConfig(**options)
    except ValidationError as error:
        raise _explained(error.errors(include_url=False), RegisterConfig) from error


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
    kind: Any = cls
    try:
        text = to_json([mapping])
    except ValueError as error:
        raise ConfigError(f"{where or cls.__name__} holds what no YAML or JSON file can: {error}") from error
    try:
        # Strict takes no text for a number, and as JSON lists are tuples and mappings are dataclasses all the same.
        read: list[T] = _reader(kind).validate_json(text)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise _explained([{**each, "loc": each["loc"][1:]} for each in found], cls, where) from error
    return read[0]


def to_mapping(cfg: Any) -> Any:
    """The inverse of `from_mapping`: dataclasses as dicts, tuples as lists; JSON-ready."""
    return to_jsonable_python(cfg)


@lru_cache(maxsize=32)
def _reader(cls: Any) -> TypeAdapter[list[Any]]:
    """Reads a list of one, for pydantic takes no settings beside a bare dataclass, which could have its own."""
    return TypeAdapter(list[cls], config=ConfigDict(extra="forbid", strict=True))


_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")


def _explained(found: Sequence[Any], kind: type, where: str = "") -> ConfigError:
    """One line about the first thing that is wrong; what is unknown goes first, for it explains what is missing.

    Args:
        found: pydantic's errors.
        kind: the class that was to be read.
        where: prefix for names.
    """
    first = next((each for each in found if each["type"] in _UNKNOWN), found[0])
    given, told = first["input"], first.get("ctx", {})
    if isinstance(told.get("error"), ConfigError):  # from a check of our own
        return ConfigError(*told["error"].args)
    parts, owner = _place(kind, first["loc"])
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in (*where.split(), *parts))
    name = name.removeprefix(".")
    if first["type"] in _UNKNOWN:
        return ConfigError(f"unknown option '{name}'.{did_you_mean(str(parts[-1]), _fields(owner))}")
    if first["type"] == "literal_error":
        choices = told["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return ConfigError(f"unknown {name} '{given}'.{did_you_mean(str(given), choices)}")
    if first["type"] == "dataclass_type":
        return ConfigError(f"{name or kind.__name__} must be a mapping of names to values, not {given!r:.80}")
    if first["type"] == "missing":
        if isinstance(parts[-1], str):
            return ConfigError(f"option '{name}' is missing")
        return ConfigError(f"bad value {given!r:.80} for option '{name.rpartition('[')[0]}': too few values")
    return ConfigError(f"bad value {given!r:.80} for option '{name}': {first['msg']}")


def _place(kind: Any, loc: Iterable[int | str]) -> tuple[list[int | str], Any]:
    """The names and indices in the place of an error, and the class of the last name; marks of unions are left out."""
    parts: list[int | str] = []
    owner = kind
    for part in loc:
        for each in get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,):
            if fields := _fields(each):
                owner, kind = each, fields.get(str(part))
            elif get_origin(each) is (tuple if isinstance(part, int) else dict):
                kind = get_args(each)[0 if isinstance(part, int) else 1]
            else:
                continue
            parts.append(part)
            break
    return parts, owner


def _fields(kind: Any) -> dict[str, Any]:
    """Name -> type of the fields of a dataclass or model; empty for anything else."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return get_type_hints(kind) if isinstance(kind, type) and is_dataclass(kind) else {}
