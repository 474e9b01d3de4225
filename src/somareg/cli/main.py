"""Entry point of the command `somareg`: the list of commands, and how usage errors end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from somareg.cli.assess import assess
from somareg.cli.batch import batch
from somareg.cli.demo import demo
from somareg.cli.doctor import doctor
from somareg.cli.eval import evaluate
from somareg.cli.export import export
from somareg.cli.export_shift import export_shift
from somareg.cli.failures import report_failure
from somareg.cli.register import register
from somareg.cli.tie_points import tie_points
from somareg.cli.train import train
from somareg.cli.view import view
from somareg.cli.warp import warp
from somareg.runtime.version import __version__

EPILOG = "Exit codes: 0 go, 3 review, 4 no-go, 2 wrong usage, 1 error, 130 interrupted."

app = typer.Typer(
    name="somareg",
    help="Align a SAR image and an optical image of the same ground, pixel by pixel, and know when it failed.",
    epilog=EPILOG,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("register", epilog=EPILOG)(register)
app.command("warp")(warp)
app.command("assess", epilog=EPILOG)(assess)
app.command("batch", epilog=EPILOG)(batch)
app.command("demo", epilog=EPILOG)(demo)
app.command("view")(view)
app.command("eval")(evaluate)
app.command("train")(train)
app.command("export")(export)
app.command("export-shift")(export_shift)
app.add_typer(tie_points, name="tie-points")
app.command("doctor")(doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"somareg {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")]


@app.callback(invoke_without_command=True)
def _root(context: typer.Context, version: Version = False) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = app(arguments, prog_name="somareg", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        code = report_failure(error, as_json="--json" in arguments, verbose=False)
    sys.exit(code if isinstance(code, int) else 0)
