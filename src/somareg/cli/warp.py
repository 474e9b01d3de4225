"""`somareg warp RASTER ESTIMATE -o OUT.tif`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from somareg.cli import options as o
from somareg.cli.session import session

Raster = Annotated[str, typer.Argument(metavar="RASTER", help="raster of the moving image's ground: bands, masks ...")]
EstimateFile = Annotated[str, typer.Argument(metavar="ESTIMATE", help="output folder of register, or a file in it")]
Out = Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="GeoTIFF to write")]
Resolution = Annotated[
    str,
    typer.Option("--resolution", metavar="NAME", help="reference: its grid; native: RASTER's own pixel size"),
]


def warp(
    raster: Raster,
    estimate: EstimateFile,
    out: Out,
    resampling: o.Resampling = "cubic",
    resolution: Resolution = "reference",
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:
    """Apply an estimate to another raster of the same ground: other bands, another pixel size, a mask."""
    with session(as_json=as_json, verbose=verbose, quiet=quiet) as ui:
        from somareg.config import Resampling as Kernel

        o.check_choice("--resampling", resampling, get_args(Kernel))
        o.check_choice("--resolution", resolution, ("reference", "native"))
        from somareg import api
        from somareg.warp.plan import Resolution as Grid

        target = Path(out)
        with ui.working():
            api.warp(
                raster,
                estimate,
                target,
                resampling=cast(Kernel, resampling),
                resolution=cast(Grid, resolution),
                overwrite=overwrite,
                progress=ui.progress,
            )
        if as_json:
            ui.emit({"output": str(target.resolve()), "bytes": target.stat().st_size})
        elif ui.wants_text:
            ui.out.print(str(target.resolve()), markup=False, soft_wrap=True)
