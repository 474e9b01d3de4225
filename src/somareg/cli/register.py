"""`somareg register MOVING REFERENCE -o OUT`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from somareg.cli import options as o
from somareg.cli.failures import DECISION_CODES, UsageError
from somareg.cli.flags import said, takes_options
from somareg.cli.session import Session, session
from somareg.config import RegisterConfig

if TYPE_CHECKING:
    from somareg.types import Decision, Result

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
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:
    """Align MOVING to REFERENCE and write the aligned image, the displacement, a report and a verdict."""
    options = said(asked)
    if out is None and not dry_run:
        raise UsageError("missing option '-o': say where the outputs go, for example -o aligned")
    with session(as_json=as_json, verbose=verbose, quiet=quiet) as ui:
        tiled = is_scene(asked.scene, resume, moving, reference, options)
        if dry_run:
            show_plan(ui, moving, reference, {**options, "scene": "always" if tiled else "never"})
            return
        shared: dict[str, Any] = {"overwrite": overwrite, "force": force, "stac": stac}
        if tiled:
            shared |= {"resume": resume, "workers": workers, "dask": dask}
            decision = run_scene(ui, moving, reference, Path(str(out)), options, shared)
        elif workers is not None or dask is not None:
            raise UsageError(
                "--workers and --dask are for scenes and `somareg batch`; leave them out or --scene always"
            )
        else:
            decision = run(ui, moving, reference, Path(str(out)), options, **shared).verdict.decision
        raise typer.Exit(DECISION_CODES[decision])


def is_scene(scene: str, resume: bool, moving: str, reference: str, options: dict[str, Any]) -> bool:
    """Whether the pair is matched tile by tile; headers are read for it, and no pixel."""
    if scene == "never" and resume:
        raise UsageError("--resume goes on with a scene; leave out --scene never")
    if scene != "auto" or resume:
        return scene != "never"
    from somareg.errors import SomaregError
    from somareg.register.plan import matches_in_tiles

    try:
        return matches_in_tiles(moving, reference, options)
    except SomaregError:
        return False  # `register` says what is wrong


def run_scene(
    ui: Session, moving: str, reference: str, out: Path, options: dict[str, Any], shared: dict[str, Any]
) -> Decision:
    """Register a scene into `out`, print the summary or the report's JSON."""
    from somareg.register.api import register_scene

    with ui.working():
        options = {name: value for name, value in options.items() if name != "scene"}
        result = register_scene(moving, reference, out, progress=ui.progress, **shared, **options)
    show_result(ui, out)
    return result.verdict.decision


def show_plan(ui: Session, moving: str, reference: str, options: dict[str, Any]) -> None:
    """Print what `register` would do."""
    from somareg.register.api import plan

    steps = plan(moving, reference, **options)
    if ui.as_json:
        ui.emit(steps)
    elif ui.wants_text:
        from somareg.cli.summary import print_plan

        print_plan(ui.out, steps)


def run(
    ui: Session,
    moving: str | Path,
    reference: str | Path,
    out: Path,
    options: dict[str, Any],
    *,
    overwrite: bool,
    force: bool,
    stac: bool = False,
) -> Result:
    """Register, save into `out`, print the summary or the report's JSON."""
    from somareg.io import writer
    from somareg.register import api

    if stac:
        from somareg.report.stac import need_pystac

        need_pystac()
    writer.check_writable(out, overwrite=overwrite)
    with ui.working():
        result = api.register(moving, reference, progress=ui.progress, **options)
        ui.progress("writing outputs", 1.0)
        folder = result.save(out, overwrite=overwrite, force=force, stac=stac)
    show_result(ui, folder)
    return result


def show_result(ui: Session, folder: Path) -> None:
    """Print the summary of an output folder, or its report's JSON."""
    if ui.as_json:
        ui.emit(json.loads((folder / "report.json").read_text(encoding="utf-8")))
    elif ui.wants_text:
        from somareg.cli.summary import print_result
        from somareg.report.record import load_report

        print_result(ui.out, load_report(folder / "report.json"), folder)
