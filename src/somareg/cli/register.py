"""`somareg register MOVING REFERENCE -o OUT`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from somareg.cli import options as o
from somareg.cli.failures import DECISION_CODES, UsageError
from somareg.cli.flags import said, takes_options
from somareg.cli.session import Session, prepare_workers, session
from somareg.config import RegisterConfig
from somareg.runtime.startup import quick_imports

if TYPE_CHECKING:
    from somareg.types import Result

Out = Annotated[str | None, typer.Option("--out", "-o", metavar="DIR", help="folder for the outputs (created)")]


@takes_options()
def register(
    moving: o.Moving,
    reference: o.Reference,
    *,
    out: Out = None,
    asked: RegisterConfig,
    overwrite: o.Overwrite = False,
    force: o.Force = False,
    stac: o.Stac = False,
    resume: o.Resume = False,
    workers: o.Workers = None,
    dask: o.Dask = None,
    dry_run: o.DryRun = False,
    progress: o.Progress = "bar",
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:
    """Align MOVING to REFERENCE and write the aligned image, the displacement, a report and a verdict."""
    options = said(asked)
    if out is None and not dry_run:
        raise UsageError("missing option '-o': say where the outputs go, for example -o aligned")
    if asked.scene == "never" and resume:
        raise UsageError("--resume needs tiles; leave out --scene never")
    with session(as_json=as_json, verbose=verbose, quiet=quiet, progress=progress) as ui:
        if dry_run:
            show_plan(ui, moving, reference, options)
            return
        prepare_workers(workers, "somareg.register.tiles.tile")
        rest: dict[str, Any] = {"overwrite": overwrite, "force": force, "stac": stac}
        rest |= {"resume": resume, "workers": workers, "dask": dask}
        options |= {name: value for name, value in rest.items() if value}
        result = run(ui, moving, reference, Path(str(out)), options)
        raise typer.Exit(DECISION_CODES[result.verdict.decision])


def show_plan(ui: Session, moving: str, reference: str, options: dict[str, Any]) -> None:
    """Print what `register` would do."""
    with quick_imports():
        from somareg.register.api import plan

    steps = plan(moving, reference, **options)
    if ui.as_json:
        ui.emit(steps)
    elif ui.wants_text:
        from somareg.cli.summary import print_plan

        print_plan(ui.out, steps)


def run(ui: Session, moving: str | Path, reference: str | Path, out: Path, arguments: dict[str, Any]) -> Result:
    """Register into a folder, then print the summary or the report's JSON."""
    with quick_imports():
        from somareg.register.api import register_into

    with ui.working():
        result = register_into(moving, reference, out, progress=ui.progress, **arguments)
    show_result(ui, out)
    return result


def show_result(ui: Session, folder: Path) -> None:
    """Print the summary of an output folder, or its report's JSON."""
    if ui.as_json:
        ui.emit(json.loads((folder / "report.json").read_text(encoding="utf-8")))
    elif ui.wants_text:
        from somareg.cli.summary import print_result
        from somareg.report.record import load_report

        print_result(ui.out, load_report(folder / "report.json"), folder)
