"""The options that several commands share, each written once, and how they become `RegisterConfig` fields.

Values are checked by `somareg.config` when the command runs, so that `--help` need not import it and the message for a
bad value is the same from Python and from the shell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

_INPUT, _SEARCH, _RUN, _OUTPUT = "Input images", "Search and engine", "Running", "Output"


def _option(flags: str, text: str, panel: str, metavar: str | None = None) -> Any:
    return typer.Option(*flags.split(), help=text, rich_help_panel=panel, metavar=metavar, show_default=True)


Moving = Annotated[
    str,
    typer.Argument(metavar="MOVING", help="image to align (GeoTIFF, COG, PNG, JPEG 2000 ...; STAC: item.json#ASSET)"),
]
Reference = Annotated[str, typer.Argument(metavar="REFERENCE", help="image to align it to")]

MovingModality = Annotated[
    str | None, _option("--moving-modality", "sar, optical or other; what a STAC Item tells, else sar", _INPUT, "NAME")
]
ReferenceModality = Annotated[
    str | None, _option("--reference-modality", "the same for the reference; else optical", _INPUT, "NAME")
]
MovingBands = Annotated[str | None, _option("--moving-bands", "bands to match on, from 1: 1 or 3,2,1", _INPUT, "LIST")]
ReferenceBands = Annotated[str | None, _option("--reference-bands", "bands to match on, from 1", _INPUT, "LIST")]
MovingScale = Annotated[str, _option("--moving-scale", "SAR: auto, dB, power, amplitude or complex", _INPUT, "NAME")]
ReferenceScale = Annotated[str, _option("--reference-scale", "the same for a SAR reference", _INPUT, "NAME")]
MovingNodata = Annotated[float | None, _option("--moving-nodata", "value that means no data", _INPUT, "VALUE")]
ReferenceNodata = Annotated[float | None, _option("--reference-nodata", "value that means no data", _INPUT, "VALUE")]
AssumeCrs = Annotated[str | None, _option("--assume-crs", "CRS of the image that declares none", _INPUT, "EPSG:N")]

Preset = Annotated[str, _option("--preset", "fast, base or precise", _SEARCH, "NAME")]
Search = Annotated[str, _option("--search", "local, auto or full (any rotation, scale 0.7-1.4)", _SEARCH, "NAME")]
SearchRadius = Annotated[float | None, _option("--search-radius", "search radius, reference pixels", _SEARCH, "PX")]
SearchRadiusM = Annotated[float | None, _option("--search-radius-m", "search radius, metres", _SEARCH, "M")]
Model = Annotated[
    str,
    _option(
        "--model",
        "compact (the trained weights that ship), orientation (no weights), or a .safetensors file; auto takes compact "
        "for SAR against optical, else orientation",
        _SEARCH,
        "NAME|FILE",
    ),
]
TiePoints = Annotated[
    str | None,
    _option(
        "--tie-points", "tie points matched elsewhere (.geojson .gpkg .csv .points .pts .tif .vrt)", _SEARCH, "FILE"
    ),
]
TiePointsUse = Annotated[
    str,
    _option(
        "--tie-points-use",
        "seed: one more start of the search; replace: match nothing, use them alone",
        _SEARCH,
        "NAME",
    ),
]
GcpMethod = Annotated[
    str,
    _option(
        "--gcp-method",
        "images placed by ground control points: auto, polynomial (as gdalwarp -order 2) or tps (as gdalwarp -tps)",
        _INPUT,
        "NAME",
    ),
]
Local = Annotated[bool, _option("--local/--no-local", "follow local displacement beyond the affine", _SEARCH)]

Device = Annotated[str, _option("--device", "auto, cpu, cuda or mps", _RUN, "NAME")]
Seed = Annotated[int, _option("--seed", "seed of everything random", _RUN, "N")]
MaxPixels = Annotated[int | None, _option("--max-pixels", "refuse larger images before reading", _RUN, "N")]
Workers = Annotated[
    int | None, _option("--workers --jobs -j", "processes on this machine, one thread each (extra dask)", _RUN, "N")
]
Dask = Annotated[
    str | None, _option("--dask", "Dask scheduler whose workers see the same files: tcp://host:8786", _RUN, "ADDRESS")
]
Scene = Annotated[
    str,
    _option(
        "--scene",
        "always, never or auto: match tile by tile, in bounded memory (auto above 4096 px of common ground)",
        _RUN,
        "NAME",
    ),
]
Extent = Annotated[
    str,
    _option(
        "--extent",
        "reference: outputs on the whole reference, without data where MOVING is not; common: on the part it covers",
        _OUTPUT,
        "NAME",
    ),
]
Resume = Annotated[bool, _option("--resume", "scenes: go on from the finished tiles of a run that was killed", _RUN)]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="log every step; tracebacks", rich_help_panel=_RUN)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print errors only", rich_help_panel=_RUN)]

Json = Annotated[bool, _option("--json", "print one JSON document on stdout, nothing else", _OUTPUT)]
Overwrite = Annotated[bool, _option("--overwrite", "replace earlier outputs of somareg", _OUTPUT)]
Force = Annotated[bool, _option("--force", "write aligned.tif even on no-go", _OUTPUT)]
Stac = Annotated[bool, _option("--stac", "describe the outputs in a STAC Item, item.json", _OUTPUT)]
DryRun = Annotated[bool, _option("--dry-run", "say what would be done, reading headers only", _OUTPUT)]
PointsReference = Annotated[
    str | None, typer.Option("--reference", metavar="FILE", help="reference image of tie points, where they need it")
]
PointsMoving = Annotated[
    str | None, typer.Option("--moving", metavar="FILE", help="moving image of tie points, where they need it")
]
Resampling = Annotated[str, _option("--resampling", "nearest, bilinear or cubic", _OUTPUT, "NAME")]


def parse_bands(flag: str, text: str | None) -> tuple[int, ...] | None:
    """`"3,2,1"` -> `(3, 2, 1)`.

    Raises:
        typer.BadParameter: not a list of band numbers from 1 (a usage error, exit code 2).
    """
    if text is None:
        return None
    try:
        bands = tuple(int(part) for part in text.split(","))
    except ValueError:
        bands = ()
    if not bands or min(bands) < 1:
        raise typer.BadParameter(f"'{text}' is not a list of band numbers from 1, such as 1 or 3,2,1", param_hint=flag)
    return bands


def check_choice(flag: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a value outside `choices`, suggesting the nearest.

    Raises:
        ConfigError: naming the option and the nearest valid value.
    """
    from somareg.config import did_you_mean
    from somareg.errors import ConfigError

    known = tuple(choices)
    if value not in known:
        raise ConfigError(f"unknown {flag} '{value}'.{did_you_mean(value, known)}")


def config_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `RegisterConfig` among a command's parameters, as far as they were given: say `locals()` first.

    Raises:
        typer.BadParameter: see `parse_bands`.
    """
    from somareg.config import RegisterConfig

    fields = {name: given.get(name) for name in RegisterConfig.model_fields}
    fields["search_radius_px"] = given.get("search_radius")
    for role in ("moving", "reference"):
        fields[f"{role}_bands"] = parse_bands(f"--{role}-bands", given.get(f"{role}_bands"))
    return drop_unset(**fields)


def drop_unset(**options: Any) -> dict[str, Any]:
    """The options that were given: `None` means that the default of `RegisterConfig` holds."""
    return {name: value for name, value in options.items() if value is not None}
