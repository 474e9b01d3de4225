"""The options that several commands share, each written once; those of `register` are made in `somareg.cli.flags`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from somareg.config import OUTPUT, RUNNING, did_you_mean
from somareg.errors import ConfigError


def _option(flags: str, text: str, panel: str, metavar: str | None = None) -> Any:
    return typer.Option(*flags.split(), help=text, rich_help_panel=panel, metavar=metavar, show_default=True)


Moving = Annotated[
    str,
    typer.Argument(metavar="MOVING", help="image to align (GeoTIFF, COG, PNG, JPEG 2000 ...; STAC: item.json#ASSET)"),
]
Reference = Annotated[str, typer.Argument(metavar="REFERENCE", help="image to align it to")]

Workers = Annotated[
    int | None, _option("--workers --jobs -j", "processes on this machine, one thread each", RUNNING, "N")
]
Dask = Annotated[
    str | None,
    _option(
        "--dask", "Dask scheduler whose workers see the same files: tcp://host:8786 (extra dask)", RUNNING, "ADDRESS"
    ),
]
Resume = Annotated[bool, _option("--resume", "scenes: continue from the finished tiles of a killed run", RUNNING)]
JobsOut = Annotated[
    str, typer.Option("--out", "-o", metavar="DIR", help="folder for the outputs; a run that exists there continues")
]
ContinueOnError = Annotated[
    bool, typer.Option("--continue-on-error/--stop-on-error", help="continue after a pair or scene that fails")
]
Redo = Annotated[bool, typer.Option("--overwrite", help="do every pair or scene anew")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="log every step; tracebacks", rich_help_panel=RUNNING)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print errors only", rich_help_panel=RUNNING)]

Progress = Annotated[
    str,
    _option(
        "--progress",
        'bar (on a terminal), none, or json: for programs, a line such as {"stage": "matching", "share": 0.5} on '
        "stderr at each step",
        RUNNING,
        "NAME",
    ),
]

Json = Annotated[bool, _option("--json", "print one JSON document on stdout, nothing else", OUTPUT)]
Overwrite = Annotated[bool, _option("--overwrite", "replace earlier outputs of somareg", OUTPUT)]
Force = Annotated[bool, _option("--force", "write aligned.tif even on no-go", OUTPUT)]
ForceWarp = Annotated[bool, _option("--force", "apply an estimate although its verdict is no-go", OUTPUT)]
Stac = Annotated[bool, _option("--stac", "describe the outputs in a STAC Item, item.json", OUTPUT)]
DryRun = Annotated[bool, _option("--dry-run", "show what would be done; read only the headers", OUTPUT)]
PointsReference = Annotated[
    str | None, typer.Option("--reference", metavar="FILE", help="reference image of tie points, where they need it")
]
PointsMoving = Annotated[
    str | None, typer.Option("--moving", metavar="FILE", help="moving image of tie points, where they need it")
]


def check_choice(flag: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a value outside `choices`, suggesting the nearest.

    Raises:
        ConfigError: naming the option and the nearest valid value.
    """
    known = tuple(choices)
    if value not in known:
        raise ConfigError(f"unknown {flag} '{value}'.{did_you_mean(value, known)}")
