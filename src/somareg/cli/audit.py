"""`somareg audit SCENES --reference REFERENCE -o OUT`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from somareg.cli import options as o
from somareg.cli.failures import DECISION_CODES, ERROR
from somareg.cli.flags import said, takes_options
from somareg.cli.session import prepare_workers, session
from somareg.config import RegisterConfig
from somareg.runtime.startup import quick_imports

if TYPE_CHECKING:
    from somareg.batches.audit.result import AuditResult

TOLERANCE_PX = 2.0
"""As in `somareg.batches.audit.run`, which is not imported for a help text."""

Scenes = Annotated[
    str,
    typer.Argument(
        metavar="SCENES",
        help="folder of images, table (CSV, JSON: moving, date, platform, orbit, baseline, any option; with reference: "
        "pairs), or STAC catalogue, collection or item collection",
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        "--reference",
        "-r",
        metavar="FILE",
        help="image that every scene is compared with, or folder of one reference per scene",
    ),
]
Consecutive = Annotated[bool, typer.Option("--consecutive", help="compare each date with the one before it")]
Glob = Annotated[
    str | None, typer.Option("--glob", metavar="PATTERN", help="files of the folder, such as '**/*_B08.jp2'")
]
Asset = Annotated[str | None, typer.Option("--asset", metavar="KEY", help="asset of STAC Items")]
Tolerance = Annotated[
    float, typer.Option("--tolerance", metavar="PX", help="RMS displacement up to which a scene is fine, pixels")
]


@takes_options()
def audit(
    scenes: Scenes,
    *,
    reference: Reference = None,
    consecutive: Consecutive = False,
    glob: Glob = None,
    asset: Asset = None,
    tolerance: Tolerance = TOLERANCE_PX,
    out: o.JobsOut,
    workers: o.Workers = None,
    dask: o.Dask = None,
    continue_on_error: o.ContinueOnError = True,
    asked: RegisterConfig,
    overwrite: o.Redo = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:
    """Find drift, steps and outliers in an archive of scenes, or the pairs of a data set that are off."""
    with session(as_json=as_json, verbose=verbose, quiet=quiet) as ui:
        prepare_workers(workers, "somareg.batches.work")
        with quick_imports():
            from somareg.batches.audit import run

        with ui.working():
            result = run.audit(
                scenes,
                out,
                reference=reference,
                consecutive=consecutive,
                glob=glob,
                asset=asset,
                tolerance_px=tolerance,
                workers=workers,
                dask=dask,
                overwrite=overwrite,
                continue_on_error=continue_on_error,
                progress=ui.progress,
                **said(asked),
            )
        if as_json:
            ui.emit(result.document())
        elif ui.wants_text:
            from somareg.cli.audit_table import print_audit

            print_audit(ui.out, result)
        raise typer.Exit(exit_code(result))


def exit_code(result: AuditResult) -> int:
    """0 where all is fine, 3 for something to look at, 4 where nothing could be measured, 1 where a scene failed."""
    counts = result.counts
    if counts.get("failed") or counts.get("pending"):
        return ERROR
    if set(counts) == {"unmeasured"}:
        return DECISION_CODES["no-go"]
    return DECISION_CODES["review" if set(counts) != {"fine"} or result.steps or result.outliers else "go"]
