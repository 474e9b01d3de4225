"""`somareg eval`: measure methods on pairs with known truth, by the protocol of DESIGN.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from somareg.cli import options as o
from somareg.cli.session import session

Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="folder of the pairs (benchmarks/README.md)")]
Sets = Annotated[str, typer.Option("--sets", metavar="A,B", help="sets of pairs")]
Levels = Annotated[str, typer.Option("--levels", metavar="A,B", help="difficulty: E, m, M, H, R")]
Methods = Annotated[str, typer.Option("--methods", metavar="A,B", help="methods to measure")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="pairs per set at most")]
Split = Annotated[str, typer.Option("--split", metavar="NAME", help="test, or val for tuning")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="folder for one JSON per method and the table")]


def evaluate(
    data: Data,
    sets: Sets,
    out: Out,
    levels: Levels = "m,H",
    methods: Methods = "identity,border_only,orientation",
    split: Split = "test",
    limit: Limit = None,
    seed: o.Seed = 0,
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
        from somareg.lab.evaluate.run import evaluate as run
        from somareg.lab.evaluate.table import rich_table, table

        with ui.working():
            summaries = run(
                data,
                names("--sets", sets),
                names("--levels", levels),
                names("--methods", methods),
                limit=limit,
                out_dir=out,
                seed=seed,
                split="val" if split == "val" else "test",
                progress=lambda what, done, total: ui.progress(f"{what} ({done} of {total})", done / total),
            )
        if as_json:
            ui.emit({"out": str(out.resolve()), "results": summaries})
        elif ui.wants_text and ui.out.is_terminal:
            ui.out.print(rich_table(out))
        elif ui.wants_text:
            print(table(out))  # Markdown, to be piped into a file


def names(flag: str, text: str) -> list[str]:
    """`"m, H"` -> `["m", "H"]`.

    Raises:
        typer.BadParameter: an empty list.
    """
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise typer.BadParameter("give at least one name", param_hint=flag)
    return items
