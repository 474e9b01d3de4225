"""`somareg warp RASTER... ESTIMATE -o OUT.tif`, or with several rasters `-o DIR`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from somareg.cli import options as o
from somareg.cli.failures import ERROR, UsageError, one_line
from somareg.cli.flags import takes_options
from somareg.cli.session import Session, prepare_workers, session
from somareg.config import INPUT, GcpMethod, RegisterConfig
from somareg.runtime.startup import quick_imports

if TYPE_CHECKING:
    from somareg.batches.warps import Warped
    from somareg.types import Estimate, Verdict

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="RASTER... ESTIMATE",
        help="rasters of the moving image's ground: bands, masks ...; then the output folder of register, or a file in "
        "it (or leave it to --estimate)",
    ),
]
EstimateFile = Annotated[
    str | None,
    typer.Option("--estimate", metavar="FILE", help="displacement.tif, report.json, their folder, or tie points"),
]
Nearest = Annotated[
    list[str] | None,
    typer.Option("--nearest", metavar="RASTER", help="one more raster, a mask or a map of classes; may be repeated"),
]
Out = Annotated[str, typer.Option("--out", "-o", metavar="FILE|DIR", help="GeoTIFF to write; folder for several")]
Resolution = Annotated[
    str,
    typer.Option("--resolution", metavar="NAME", help="reference: its grid; native: RASTER's own pixel size"),
]


Nodata = Annotated[
    float | None,
    typer.Option(
        "--nodata",
        "--moving-nodata",
        metavar="VALUE",
        help="value that means no data, instead of what RASTER declares; nan for none",
        rich_help_panel=INPUT,
    ),
]
Bands = Annotated[
    str | None,
    typer.Option("--bands", metavar="LIST", help="bands to write, from 1; default all", rich_help_panel=INPUT),
]
Mask = Annotated[
    str | None,
    typer.Option(
        "--mask",
        "--moving-mask",
        metavar="FILE",
        help="mask of RASTER in a file on any grid, 0 where it is invalid; none for no mask",
        rich_help_panel=INPUT,
    ),
]
MaskValues = Annotated[
    str | None,
    typer.Option(
        "--mask-values",
        "--moving-mask-values",
        metavar="LIST",
        help="classes of that mask that are invalid, such as 3,8-10 or bit3; the others are valid",
        rich_help_panel=INPUT,
    ),
]


@takes_options("gcp_method", "resampling", "max_memory")
def warp(
    inputs: Inputs,
    *,
    out: Out,
    estimate: EstimateFile = None,
    nearest: Nearest = None,
    reference: o.PointsReference = None,
    moving: o.PointsMoving = None,
    nodata: Nodata = None,
    bands: Bands = None,
    mask: Mask = None,
    mask_values: MaskValues = None,
    asked: RegisterConfig,
    resolution: Resolution = "reference",
    workers: o.Workers = None,
    dask: o.Dask = None,
    overwrite: o.Overwrite = False,
    force: o.ForceWarp = False,
    progress: o.Progress = "bar",
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:
    """Apply an estimate to other rasters of the same ground: other bands, other pixel sizes, masks, other dates."""
    with session(as_json=as_json, verbose=verbose, quiet=quiet, progress=progress) as ui:
        o.check_choice("--resolution", resolution, ("reference", "native"))
        rasters, source = _split(inputs, estimate, nearest or [])
        known = _estimate(source, reference, moving, asked.gcp_method)
        settings: dict[str, Any] = {"resampling": asked.resampling, "resolution": resolution, "overwrite": overwrite}
        settings["force"] = force
        settings |= {"nodata": nodata, "bands": bands, "mask": mask, "mask_values": mask_values}
        settings |= {"max_memory": asked.max_memory}
        settings |= {"gcp_method": asked.gcp_method if "gcp_method" in asked.model_fields_set else None}
        if len(rasters) == 1 and not nearest and not _is_folder(out):
            _one(ui, rasters[0], known, Path(out), settings)
            return
        prepare_workers(workers, "somareg.batches.warps")
        with quick_imports():
            from somareg.batches.warps import warp_many

        with ui.working():
            done = warp_many(
                rasters, known, out, nearest=nearest or (), workers=workers, dask=dask, progress=ui.progress, **settings
            )
        _tell(ui, done)
        raise typer.Exit(ERROR if any(warped.failure for warped in done) else 0)


def _split(inputs: list[str], estimate: str | None, nearest: list[str]) -> tuple[list[str], str]:
    """Which of the arguments are rasters, and which one is the estimate."""
    if estimate is not None:
        return inputs, estimate
    *rasters, last = inputs
    if not rasters and not nearest:
        raise UsageError(f"only '{last}' was given; name the raster and the estimate: somareg warp RASTER ESTIMATE")
    return rasters, last


def _estimate(source: str, reference: str | None, moving: str | None, gcp_method: GcpMethod) -> Estimate | str:
    """The path of an estimate as it was given, or the estimate that a file of tie points gives."""
    from somareg.tiepoints.formats import SUFFIXES

    points = Path(source).suffix.lower() in SUFFIXES.keys() - {".tif", ".tiff", ".json"}
    if not points and reference is None and moving is None:
        return source
    if reference is None or moving is None:
        raise UsageError(f"'{source}' holds tie points; name the images that they join with --reference and --moving")
    from somareg.tiepoints.estimate import estimate_from_points

    return estimate_from_points(source, reference=reference, moving=moving, gcp_method=gcp_method)


def _is_folder(out: str) -> bool:
    return out.endswith(("/", os.sep)) or Path(out).is_dir()


def _one(ui: Session, raster: str, known: Estimate | str, target: Path, settings: dict[str, Any]) -> None:
    from somareg.io.displacement import read_verdict
    from somareg.types import Estimate

    with quick_imports():
        from somareg.register import api

    with ui.working():
        api.warp(raster, known, target, progress=ui.progress, **settings)
    more = {}
    if ui.as_json:
        more["verdict"] = _told(known.verdict if isinstance(known, Estimate) else read_verdict(known))
    ui.written(target, **more)


def _told(verdict: Verdict | None) -> dict[str, Any] | None:
    """The verdict for a JSON document, without reasons, which are in the report."""
    if verdict is None:
        return None
    figures = ("decision", "probability", "headline", "predicted_rmse_px", "predicted_rmse_m")
    return {name: getattr(verdict, name) for name in figures}


def _tell(ui: Session, done: list[Warped]) -> None:
    if ui.as_json:
        ui.emit({"outputs": [_document(warped) for warped in done]})
        return
    for warped in done:
        if warped.failure is not None:
            message = one_line(f"error: {warped.failure.message}")
            ui.err.print(message, markup=False, soft_wrap=True, style="red")
        elif ui.wants_text:
            ui.out.print(str(warped.output), markup=False, soft_wrap=True)


def _document(warped: Warped) -> dict[str, Any]:
    if warped.failure is None:
        size = warped.output.stat().st_size
        return {
            "raster": warped.raster,
            "output": str(warped.output),
            "bytes": size,
            "verdict": _told(warped.verdict),
        }
    failure = warped.failure
    return {"raster": warped.raster, "error": {"type": failure.kind, "message": one_line(failure.message)}}
