"""`somareg batch PAIRS.csv -o OUT` and `somareg batch MOVING_DIR REFERENCE_DIR -o OUT`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from somareg.cli import options as o
from somareg.cli.failures import DECISION_CODES, ERROR
from somareg.cli.flags import said, takes_options
from somareg.cli.session import prepare_workers, session
from somareg.config import RegisterConfig
from somareg.runtime.startup import quick_imports

if TYPE_CHECKING:
    from somareg.batches.summary import BatchResult

Pairs = Annotated[
    str, typer.Argument(metavar="PAIRS", help="CSV (moving, reference, name, any option), or a folder of moving images")
]
Reference = Annotated[
    str | None,
    typer.Argument(metavar="[REFERENCE]", help="folder of references, matched by name, or one image for all"),
]
Reports = Annotated[
    str, typer.Option("--reports", metavar="WHICH", help="whose report.html is written: all, problems (not go), none")
]


@takes_options()
def batch(
    pairs: Pairs,
    reference: Reference = None,
    *,
    out: o.JobsOut,
    workers: o.Workers = None,
    dask: o.Dask = None,
    continue_on_error: o.ContinueOnError = True,
    asked: RegisterConfig,
    overwrite: o.Redo = False,
    force: o.Force = False,
    stac: o.Stac = False,
    reports: Reports = "problems",
    dry_run: o.DryRun = False,
    progress: o.Progress = "bar",
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:
    """Align many pairs; the same command again continues an earlier run, even after a crash."""
    options = said(asked)
    shared: dict[str, Any] = {"reference": reference, "overwrite": overwrite, "force": force, "stac": stac}
    shared["reports"] = reports
    with session(as_json=as_json, verbose=verbose, quiet=quiet, progress=progress) as ui:
        prepare_workers(workers, "somareg.batches.work")
        with quick_imports():
            from somareg.batches import run

        if dry_run:
            entries = run.planned(pairs, out, **shared, **options)
            if as_json:
                ui.emit({"pairs": [{"name": e.name, "status": e.status, "moving": e.moving} for e in entries]})
            elif ui.wants_text:
                from somareg.cli.batch_table import print_planned

                print_planned(ui.out, entries)
            return
        with ui.working():
            result = run.batch(
                pairs,
                out,
                workers=workers,
                dask=dask,
                continue_on_error=continue_on_error,
                progress=ui.progress,
                **shared,
                **options,
            )
        if as_json:
            ui.emit(result.document())
        elif ui.wants_text:
            from somareg.cli.batch_table import print_batch

            print_batch(ui.out, result)
        raise typer.Exit(exit_code(result))


def exit_code(result: BatchResult) -> int:
    """The exit code of the worst pair; a pair that failed or was not done counts as an error."""
    return DECISION_CODES.get(result.worst, ERROR)
