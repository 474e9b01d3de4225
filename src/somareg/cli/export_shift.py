"""`somareg export-shift OUT -o SHIFTS.tif`: an estimate as the two-band shift raster of SpaceNet 9."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from somareg.cli import options as o
from somareg.cli.session import session

EstimateFile = Annotated[str, typer.Argument(metavar="ESTIMATE", help="output folder of register, or a file in it")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="GeoTIFF to write")]


def export_shift(
    estimate: EstimateFile,
    out: Out,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:
    """Write x and y shift in reference pixels as two float32 bands, as SpaceNet 9 exchanges alignments."""
    with session(as_json=as_json, verbose=verbose, quiet=quiet) as ui:
        from somareg.io.shifts import export_shifts

        ui.written(export_shifts(estimate, out, overwrite=overwrite))
