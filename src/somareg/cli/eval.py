"""`somareg eval`: measure methods on pairs with known truth, by the protocol of DESIGN.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from somareg.cli import options as o
from somareg.cli.failures import UsageError
from somareg.cli.flags import takes_options
from somareg.cli.session import Session, session
from somareg.config import RegisterConfig

if TYPE_CHECKING:
    from somareg.lab.evaluate.inside import Inside

Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="folder of the pairs (benchmarks/README.md)")]
Sets = Annotated[str | None, typer.Option("--sets", metavar="A,B", help="sets of pairs")]
Levels = Annotated[
    str, typer.Option("--levels", metavar="A,B", help="difficulty: E, m, M, H, R, A, N; whole pairs: whole")
]
Methods = Annotated[
    str,
    typer.Option(
        "--methods",
        metavar="A,B",
        help="methods to measure; a model is FILE.safetensors or NAME=FILE, your matcher NAME=package.module:function",
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="pairs per set at most")]
Split = Annotated[str, typer.Option("--split", metavar="NAME", help="test, or val for tuning")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="folder for one JSON per method and the table")]
Diagnose = Annotated[bool, typer.Option("--diagnose", help="look inside each learned model (OUT/diagnosis)")]

Verdict = Annotated[
    bool,
    typer.Option("--verdict", help="judge the verdict instead, and fit its calibration: methods ours, orientation"),
]
Refit = Annotated[bool, typer.Option("--refit", help="with --verdict: from the observations that --out holds")]


@takes_options("dinov2", "seed")
def evaluate(
    *,
    data: Data,
    out: Out,
    sets: Sets = None,
    levels: Levels = "m,H",
    methods: Methods = "identity,border_only,orientation,ours",
    split: Split = "test",
    limit: Limit = None,
    asked: RegisterConfig,
    diagnose: Diagnose = False,
    verdict: Verdict = False,
    refit: Refit = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:
    """Run methods over pairs with known truth and print one table."""
    with session(as_json=as_json, verbose=verbose, quiet=quiet) as ui:
        o.check_choice("--split", split, ("test", "val"))
        if not data.is_dir():
            from somareg.errors import ReadError

            raise ReadError(f"{data}: no such folder; --data takes the folder that holds the sets")
        if refit and not verdict:
            raise UsageError("--refit goes with --verdict")
        if verdict:
            _verdict(ui, data, out, names("--methods", methods), asked, limit=limit, refit=refit)
            return
        if sets is None:
            raise UsageError("name the sets of pairs: --sets sih,ombria")
        from somareg.lab.evaluate.inside import diagnose_methods, learned
        from somareg.lab.evaluate.peers import make_methods
        from somareg.lab.evaluate.protocol import affine_levels
        from somareg.lab.evaluate.run import evaluate as run
        from somareg.lab.evaluate.table import rich_table, table

        asked_sets, asked_levels = names("--sets", sets), names("--levels", levels)
        which = (data, asked_sets, asked_levels, make_methods(names("--methods", methods), asked.dinov2))
        if diagnose and not learned(which[-1]):
            raise UsageError("--diagnose looks inside learned models; name one: --methods ours,model.safetensors")
        if diagnose:
            affine_levels(which[2])
        options: dict[str, Any] = {
            "limit": limit,
            "out_dir": out,
            "split": split,
            "progress": lambda what, done, total: ui.progress(f"{what} ({done} of {total})", done / total),
        }
        with ui.working():
            summaries = run(*which, seed=asked.seed, **options)
            found = diagnose_methods(*which, **options) if diagnose else []
        if as_json:
            told = {i.name: {"file": str(i.file.resolve()), "alarms": i.diagnosis.alarms} for i in found}
            ui.emit({"out": str(out.resolve()), "results": summaries, **({"diagnosis": told} if diagnose else {})})
        elif ui.wants_text:
            if ui.out.is_terminal:
                ui.out.print(rich_table(out))
            else:
                print(table(out))  # Markdown, to be piped into a file
            for inside in found:
                print_alarms(inside)


def _verdict(
    ui: Session, data: Path, out: Path, methods: list[str], asked: RegisterConfig, *, limit: int | None, refit: bool
) -> None:
    """Calibrate engines and print how good their verdicts are."""
    from somareg.lab.evaluate.verdict.run import calibrate

    with ui.working():
        found = calibrate(
            data,
            out,
            methods,
            seed=asked.seed,
            dinov2=asked.dinov2,
            limit=limit,
            refit=refit,
            progress=lambda what, done, total: ui.progress(f"{what} ({done} of {total})", done / total),
        )
    if ui.as_json:
        engines = {
            engine: {k: record[k] for k in ("model", "go", "review", "bars")} for engine, record in found.items()
        }
        ui.emit({"out": str(out.resolve()), "engines": engines})
    elif ui.wants_text:
        for engine in found:
            ui.out.print((out / f"calibration-{engine}.md").read_text(encoding="utf-8"), markup=False, soft_wrap=True)


def print_alarms(inside: Inside) -> None:
    """The alarms of a model, as Markdown."""
    alarms, pairs = inside.diagnosis.alarms, inside.diagnosis.samples
    count = f"{len(alarms)} alarm{'s' * (len(alarms) > 1)}" if alarms else "no alarm"
    print(f"\n{inside.name}: {count}, {pairs} pair{'s' * (pairs > 1)}; numbers in {inside.file}\n")
    for alarm in alarms:
        print(f"- {alarm}")


def names(flag: str, text: str) -> list[str]:
    """`"m, H"` -> `["m", "H"]`.

    Raises:
        typer.BadParameter: an empty list.
    """
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise typer.BadParameter("give at least one name", param_hint=flag)
    return items
