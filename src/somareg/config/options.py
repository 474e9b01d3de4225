"""The options of `register`, each named, typed, bounded and described once.

The command line's flags, the columns of a batch's table and the tables of the documentation are made from
`RegisterConfig` while they run. `RegisterOptions` in `somareg.config.arguments`, which editors and type checkers read,
is written from it by `make options`. Nothing here imports NumPy: `somareg register --help` answers at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic import ValidatorFunctionWrapHandler as Check

from somareg.choices import Modality, SarScale
from somareg.config.settings import explained, shown
from somareg.errors import ConfigError

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

INPUT, SEARCH, JUDGING, OUTPUT, RUNNING = GROUPS = "Input images", "Search and engine", "Verdict", "Output", "Running"
"""Groups of options, in the order in which help texts and tables list them."""


def option(
    default: Any, text: str, group: str, metavar: str = "", *, flag: str = "", accepts: str = "", **bounds: Any
) -> Any:
    """A field of `RegisterConfig`.

    Args:
        default: value of an option that the user leaves out.
        text: what the option means. Values of a literal that the text does not name are listed before it.
        group: of `GROUPS`.
        metavar: what the command line shows in place of a value; for a literal "NAME", for a whole number "N".
        flag: of the command line, when it differs from the name with dashes.
        accepts: annotation for Python callers, when they may pass more types than the field holds.
        **bounds: `gt`, `ge`, `lt`, `le`, `allow_inf_nan`.
    """
    metadata: dict[str, Any] = {"group": group, "metavar": metavar, "flag": flag, "accepts": accepts}
    return Field(default=default, description=text, json_schema_extra=metadata, **bounds)


class RegisterConfig(BaseModel):
    """Everything that shapes an estimate; frozen, JSON-ready, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    moving_modality: Modality = option(
        "sar",
        "modality of the moving image; without this option, that of a STAC Item",
        INPUT,
        accepts="Modality | None",
    )
    reference_modality: Modality = option("optical", "the same for the reference", INPUT, accepts="Modality | None")
    moving_bands: Bands | None = option(
        None, "bands to match on, from 1, such as 1 or 3,2,1", INPUT, "LIST", accepts="str | Sequence[int] | None"
    )
    reference_bands: Bands | None = option(
        None, "the same for the reference", INPUT, "LIST", accepts="str | Sequence[int] | None"
    )
    moving_scale: SarScale = option("auto", "scale of the values of a SAR image", INPUT)
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
        "curve through ground control points, for images without a geotransform: auto, polynomial (as gdalwarp "
        "-order 2) or tps (as gdalwarp -tps)",
        INPUT,
    )
    preset: Preset = option(
        "base",
        "resolution matched: fast halves it from 400 px on, base keeps it up to 2048 px, precise up to 4096",
        SEARCH,
    )
    search: Search = option(
        "auto",
        "local (nearly aligned), auto (around georeferences; without them ±22°, scale 0.78-1.28, ±14 % shift, then as "
        "full) or full (any rotation, scale 0.68-1.45); auto and full then try any shift by which most of the smaller "
        "image stays in the larger one",
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
    dinov2: str | None = option(
        None,
        "folder of the frozen DINOv2 that the model needs, or its hub name in the local cache; default: the one that "
        "the model names; those that ship need none (docs/dinov2.md)",
        SEARCH,
        "PATH|NAME",
        accepts="str | Path | None",
    )
    tie_points: str | None = option(
        None,
        "tie points matched elsewhere (.geojson .gpkg .csv .points .pts .tif .vrt)",
        SEARCH,
        "FILE",
        accepts="str | Path | TiePoints | None",
    )
    tie_points_use: TiePointsUse = option(
        "seed", "seed: one more start of the search; replace: match nothing, use only these points", SEARCH
    )
    local: bool = option(True, "follow local displacement beyond the affine", SEARCH)
    accuracy: float = option(
        0.5,
        "scenes: largest expected error of the local displacement, reference pixels; tiles are added to reach it",
        SEARCH,
        "PX",
        gt=0,
        allow_inf_nan=False,
    )
    max_error: float | None = option(
        3.0,
        "largest expected RMS error of a go, reference pixels; above it the verdict is review at best",
        JUDGING,
        "PX",
        gt=0,
        allow_inf_nan=False,
    )
    max_error_m: float | None = option(
        None,
        "the same in metres, in place of pixels; needs a reference with a CRS",
        JUDGING,
        "M",
        gt=0,
        allow_inf_nan=False,
    )
    min_probability: float | None = option(
        None,
        "smallest probability of an error below 2 px for a go; it can only raise the calibration's own threshold",
        JUDGING,
        "P",
        ge=0,
        le=1,
        allow_inf_nan=False,
    )
    resampling: Resampling = option("cubic", "resampling of the pixels that are written", OUTPUT)
    extent: Extent = option(
        "reference",
        "reference: outputs on the grid of the whole reference; common: on the part that the moving image covers",
        OUTPUT,
    )
    scene: Scene = option(
        "auto", "match tile by tile, in bounded memory: always, never or auto (above 4096 px of common ground)", RUNNING
    )
    device: str = option("auto", "auto (CUDA, then the CPU), cpu, cuda, cuda:1 or mps", RUNNING, "NAME")
    seed: int = option(0, "seed of all random numbers", RUNNING, ge=0, le=2**32 - 1)
    max_pixels: int = option(4_000_000_000, "refuse larger images before reading", RUNNING, gt=0)
    max_memory: ByteSize | None = option(
        None,
        "largest memory of a process, such as 2GiB or 1500MB; default: 60 % of what is available",
        RUNNING,
        "SIZE",
        accepts="ByteSize | int | str | None",
        gt=0,
    )

    @field_validator("moving_bands", "reference_bands", mode="wrap")
    @classmethod
    def _bands(cls, value: Any, check: Check, info: ValidationInfo) -> Bands | None:
        """Read band numbers from a list or a text such as "3,2,1"."""
        try:
            bands: Bands | None = check(re.split(r"[\s,;]+", value.strip()) if isinstance(value, str) else value)
        except ValidationError as error:
            raise ConfigError(
                f"{info.field_name}: {shown(value)} is not a list of band numbers from 1, such as 1 or 3,2,1"
            ) from error
        return bands

    @model_validator(mode="after")
    def _one_radius(self) -> Self:
        if self.search_radius_px is not None and self.search_radius_m is not None:
            raise ConfigError(
                "search_radius_px and search_radius_m are both given; leave one out (--search-radius is in pixels)"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _one_limit(cls, value: Any) -> Any:
        """Drop the default limit in pixels when the user gives one in metres."""
        if not isinstance(value, Mapping) or value.get("max_error_m") is None:
            return value
        if value.get("max_error") is not None:
            raise ConfigError("max_error and max_error_m are both given; leave one out (--max-error is in pixels)")
        return {**value, "max_error": None}

    @field_validator("moving_mask_values", "reference_mask_values", mode="before")
    @classmethod
    def _classes(cls, value: Any, info: ValidationInfo) -> str | None:
        """Read the classes of a mask from a text, a number or a list."""
        from somareg.types import Classes

        try:
            return None if value is None else str(Classes.parse(value))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{info.field_name}: {shown(value)} is not a list of classes, such as 3,8-10 or bit3,bit4"
            ) from error

    @field_validator("model", "dinov2", "tie_points", "moving_mask", "reference_mask", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value


def make_config(options: Mapping[str, Any]) -> RegisterConfig:
    """Validate options into a `RegisterConfig`; None means that the option was left out.

    Raises:
        ConfigError: unknown option or bad value, naming it and the nearest valid choice.
    """
    fields = RegisterConfig.model_fields
    try:
        return RegisterConfig(
            **{name: value for name, value in options.items() if value is not None or name not in fields}
        )
    except ValidationError as error:
        raise explained(error.errors(include_url=False), RegisterConfig) from error
