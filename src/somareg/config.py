"""The options of `register`, each named, typed, bounded and described once, and how settings of any kind are read.

The command line's flags, the columns of a batch's table and the tables of the documentation are made from
`RegisterConfig` while they run. `RegisterOptions`, which editors and type checkers read, is written from it by
`make options`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, TypedDict, TypeVar, Union, get_args, get_origin, get_type_hints

from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic import ValidatorFunctionWrapHandler as Check
from pydantic_core import to_json, to_jsonable_python

from somareg.errors import ConfigError
from somareg.types import Classes, Modality, SarScale, TiePoints

Preset = Literal["fast", "base", "precise"]
Search = Literal["local", "auto", "full"]
Resampling = Literal["nearest", "bilinear", "cubic"]
GcpMethod = Literal["auto", "polynomial", "tps"]
TiePointsUse = Literal["seed", "replace"]
Bands = tuple[Annotated[int, Field(ge=1)], ...]
Extent = Literal["reference", "common"]
Scene = Literal["auto", "always", "never"]

SCENE_PX = 4096
"""Longer side of the common ground above which a pair is matched tile by tile, reference pixels."""

INPUT, SEARCH, OUTPUT, RUNNING = GROUPS = "Input images", "Search and engine", "Output", "Running"
"""What options are about, in the order in which they are listed."""


def option(
    default: Any, text: str, group: str, metavar: str = "", *, flag: str = "", accepts: str = "", **bounds: Any
) -> Any:
    """A field of `RegisterConfig`.

    Args:
        default: its value where none is given.
        text: what it means. Where this does not name all values of a literal, they are listed before it.
        group: of `GROUPS`.
        metavar: what the command line shows in place of a value; for a literal "NAME", for a whole number "N".
        flag: of the command line, where it is not the name with dashes.
        accepts: annotation of what Python callers may give, where that is more than the field holds.
        **bounds: `gt`, `ge`, `lt`, `le`, `allow_inf_nan`.
    """
    shown: dict[str, Any] = {"group": group, "metavar": metavar, "flag": flag, "accepts": accepts}
    return Field(default=default, description=text, json_schema_extra=shown, **bounds)


class RegisterConfig(BaseModel):
    """Everything that shapes an estimate; frozen, JSON-ready, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    moving_modality: Modality = option(
        "sar", "what the moving image is; unsaid, what a STAC Item tells", INPUT, accepts="Modality | None"
    )
    reference_modality: Modality = option("optical", "the same for the reference", INPUT, accepts="Modality | None")
    moving_bands: Bands | None = option(
        None, "bands to match on, from 1, such as 1 or 3,2,1", INPUT, "LIST", accepts="str | Sequence[int] | None"
    )
    reference_bands: Bands | None = option(
        None, "the same for the reference", INPUT, "LIST", accepts="str | Sequence[int] | None"
    )
    moving_scale: SarScale = option("auto", "what the values of a SAR image mean", INPUT)
    reference_scale: SarScale = option("auto", "the same for a SAR reference", INPUT)
    moving_nodata: float | None = option(None, "value that means no data", INPUT, "VALUE")
    reference_nodata: float | None = option(None, "the same for the reference", INPUT, "VALUE")
    moving_mask: str | None = option(
        None,
        "mask of the moving image in a file on any grid, 0 where it is invalid (docs/masks.md)",
        INPUT,
        "FILE",
        accepts="str | Path | NDArray[Any] | None",
    )
    moving_mask_values: str | None = option(
        None,
        "classes of that mask that are invalid, such as 3,8-10 or bit3; the others are valid",
        INPUT,
        "LIST",
        accepts="str | Sequence[int] | None",
    )
    reference_mask: str | None = option(
        None, "the same for the reference", INPUT, "FILE", accepts="str | Path | NDArray[Any] | None"
    )
    reference_mask_values: str | None = option(
        None, "the same for the reference's mask", INPUT, "LIST", accepts="str | Sequence[int] | None"
    )
    assume_crs: str | None = option(None, "CRS of the image that declares none", INPUT, "EPSG:N")
    gcp_method: GcpMethod = option(
        "auto",
        "images placed by ground control points: auto, polynomial (as gdalwarp -order 2) or tps (as gdalwarp -tps)",
        INPUT,
    )
    preset: Preset = option("base", "speed against accuracy", SEARCH)
    search: Search = option(
        "auto",
        "local (nearly aligned), auto (trusts georeferences; without them ±22°, scale 0.78-1.28, ±14 % shift, then as "
        "full while nothing is clear) or full (any rotation, scale 0.68-1.45)",
        SEARCH,
    )
    search_radius_px: float | None = option(
        None, "search radius, reference pixels", SEARCH, "PX", flag="--search-radius", gt=0, allow_inf_nan=False
    )
    search_radius_m: float | None = option(
        None,
        "the same in metres, in every direction; needs a reference with a CRS",
        SEARCH,
        "M",
        gt=0,
        allow_inf_nan=False,
    )
    model: str = option(
        "auto",
        "compact (the trained weights that ship), orientation (no weights), or a .safetensors file; auto takes compact "
        "for SAR against optical, else the likelier of both",
        SEARCH,
        "NAME|FILE",
        accepts="str | Path",
    )
    tie_points: str | None = option(
        None,
        "tie points matched elsewhere (.geojson .gpkg .csv .points .pts .tif .vrt)",
        SEARCH,
        "FILE",
        accepts="str | Path | TiePoints | None",
    )
    tie_points_use: TiePointsUse = option(
        "seed", "seed: one more start of the search; replace: match nothing, use them alone", SEARCH
    )
    local: bool = option(True, "follow local displacement beyond the affine", SEARCH)
    resampling: Resampling = option("cubic", "how pixels that are written are resampled", OUTPUT)
    extent: Extent = option(
        "reference",
        "reference: outputs on the whole reference, without data where the moving image is not; common: on the part it "
        "covers",
        OUTPUT,
    )
    scene: Scene = option(
        "auto", "match tile by tile, in bounded memory: always, never or auto (above 4096 px of common ground)", RUNNING
    )
    device: str = option("auto", "auto (CUDA, then the CPU), cpu, cuda, cuda:1 or mps", RUNNING, "NAME")
    seed: int = option(0, "seed of everything random", RUNNING, ge=0, le=2**32 - 1)
    max_pixels: int = option(4_000_000_000, "refuse larger images before reading", RUNNING, gt=0)
    max_memory: ByteSize | None = option(
        None,
        "memory that a process may take, such as 2GiB or 1500MB; unsaid, 60 % of what is available",
        RUNNING,
        "SIZE",
        accepts="ByteSize | int | str | None",
        gt=0,
    )

    @field_validator("moving_bands", "reference_bands", mode="wrap")
    @classmethod
    def _bands(cls, given: Any, check: Check, info: ValidationInfo) -> Bands | None:
        """Band numbers, from a list or a text such as "3,2,1"."""
        try:
            bands: Bands | None = check(re.split(r"[\s,;]+", given.strip()) if isinstance(given, str) else given)
        except ValidationError as error:
            raise ConfigError(
                f"{info.field_name}: {_shown(given)} is not a list of band numbers from 1, such as 1 or 3,2,1"
            ) from error
        return bands

    @model_validator(mode="after")
    def _one_radius(self) -> Self:
        if self.search_radius_px is not None and self.search_radius_m is not None:
            raise ConfigError(
                "search_radius_px and search_radius_m are given both; leave one out (--search-radius is in pixels)"
            )
        return self

    @field_validator("moving_mask_values", "reference_mask_values", mode="before")
    @classmethod
    def _classes(cls, given: Any, info: ValidationInfo) -> str | None:
        """Classes of a mask, from a text, a number or a list."""
        try:
            return None if given is None else str(Classes.parse(given))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{info.field_name}: {_shown(given)} is not a list of classes, such as 3,8-10 or bit3,bit4"
            ) from error

    @field_validator("model", "tie_points", "moving_mask", "reference_mask", mode="before")
    @classmethod
    def _path(cls, given: Any) -> Any:
        return str(given) if isinstance(given, Path) else given


# --- written by `make options` ---


class RegisterOptions(TypedDict, total=False):
    """The fields of `RegisterConfig` as keyword arguments; `docs/api.md` tells what they mean."""

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
    tie_points: str | Path | TiePoints | None
    tie_points_use: TiePointsUse
    local: bool
    resampling: Resampling
    extent: Extent
    scene: Scene
    device: str
    seed: int
    max_pixels: int
    max_memory: ByteSize | int | str | None


# --- end of what `make options` writes ---


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`" Did you mean 'base'?"`, or the list of choices when nothing is near."""
    options = list(choices)
    near = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else f" Choose from {', '.join(options)}."


def make_config(options: Mapping[str, Any]) -> RegisterConfig:
    """Validate options into a `RegisterConfig`; None stands for an option that is not given.

    Raises:
        ConfigError: unknown option or bad value, naming it and the nearest valid choice.
    """
    fields = RegisterConfig.model_fields
    try:
        return RegisterConfig(
            **{name: given for name, given in options.items() if given is not None or name not in fields}
        )
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
        return ConfigError(f"unknown {name} {_shown(str(given))}.{did_you_mean(str(given), choices)}")
    if first["type"] == "dataclass_type":
        return ConfigError(f"{name or kind.__name__} must be a mapping of names to values, not {_shown(given)}")
    if first["type"] == "missing":
        if isinstance(parts[-1], str):
            return ConfigError(f"option '{name}' is missing")
        return ConfigError(f"bad value {_shown(given)} for option '{name.rpartition('[')[0]}': too few values")
    return ConfigError(f"bad value {_shown(given)} for option '{name}': {first['msg']}")


def _shown(given: Any) -> str:
    """A value in a message: on one line, and not a long one."""
    text = " ".join(repr(given).split())
    return text if len(text) <= 80 else f"{text[:79]}…"


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
