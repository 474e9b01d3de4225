"""`somareg tie-points convert IN OUT`."""

from __future__ import annotations

from typing import Annotated

import typer

from somareg.cli import options as o
from somareg.cli.help import Command, Group
from somareg.cli.session import session

_FORMATS = ".geojson .gpkg .csv .tsv .points .pts .tif .vrt"

Source = Annotated[str, typer.Argument(metavar="IN", help=f"tie points: {_FORMATS}")]
Target = Annotated[str, typer.Argument(metavar="OUT", help="file to write; its suffix selects the format")]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad-rows", help="leave out rows that cannot be read; each is named")]

tie_points = typer.Typer(cls=Group, rich_markup_mode=None, add_completion=False)


@tie_points.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    """Convert tie points between the formats of other programs."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@tie_points.command("convert", cls=Command)
def convert(
    source: Source,
    target: Target,
    reference: o.PointsReference = None,
    moving: o.PointsMoving = None,
    skip_bad_rows: SkipBadRows = False,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:
    """Bring tie points from one format to another: GeoJSON, GeoPackage, CSV, QGIS, ENVI, GDAL control points."""
    with session(as_json=as_json, verbose=verbose, quiet=quiet) as ui:
        from somareg.tiepoints.formats import convert_tie_points

        images = {"reference": reference, "moving": moving}
        done = convert_tie_points(source, target, **images, skip_bad_rows=skip_bad_rows, overwrite=overwrite)
        if as_json:
            ui.emit({"output": str(done.path.resolve()), "read": done.read, "written": done.written})
        elif ui.wants_text:
            ui.out.print(f"{done.path.resolve()}: {done.written} of {done.read} points", markup=False, soft_wrap=True)
