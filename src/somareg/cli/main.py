"""Entry point of the command `somareg`: the list of commands, and how usage errors end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from somareg.cli.failures import report_failure
from somareg.cli.help import SETTINGS, Commands, Entry
from somareg.runtime.version import __version__

EPILOG = "Exit codes: 0 go, 3 review, 4 no-go, 2 wrong usage, 1 error, 130 interrupted."

COMMANDS = {
    "register": Entry(
        "somareg.cli.register:register",
        "Align MOVING to REFERENCE and write the aligned image, the displacement, a report and a verdict.",
        EPILOG,
    ),
    "warp": Entry(
        "somareg.cli.warp:warp",
        "Apply an estimate to other rasters of the same ground: other bands, other pixel sizes, masks, other dates.",
    ),
    "assess": Entry(
        "somareg.cli.assess:assess",
        "Judge how well MOVING lies on REFERENCE as they stand; nothing is written.",
        EPILOG,
    ),
    "batch": Entry(
        "somareg.cli.batch:batch",
        "Align many pairs; the same command again continues an earlier run, even after a crash.",
        EPILOG,
    ),
    "audit": Entry(
        "somareg.cli.audit:audit",
        "Find drift, steps and outliers in an archive of scenes, or the pairs of a data set that are off.",
        "Exit codes: 0 all as it should be, 3 something to look at, 4 nothing could be measured, 1 a scene failed.",
    ),
    "demo": Entry(
        "somareg.cli.demo:demo",
        "Register a real Sentinel-1 / Sentinel-2 pair that lies some pixels apart; works offline.",
        EPILOG,
    ),
    "view": Entry(
        "somareg.cli.view:view",
        "Show a result on a local page: compare the images, error map, arrows, tie points, verdict; Ctrl-C ends it.",
    ),
    "eval": Entry(
        "somareg.cli.eval:evaluate",
        "Run methods over pairs with known truth and print one table.",
    ),
    "train": Entry(
        "somareg.cli.train:train",
        "Train the network; with --resume it continues where it was stopped or killed.",
    ),
    "export": Entry(
        "somareg.cli.export:export",
        "Write the network of a checkpoint as safetensors, with a card that says what it is, or its encoder as ONNX.",
    ),
    "export-shift": Entry(
        "somareg.cli.export_shift:export_shift",
        "Write x and y shift in reference pixels as two float32 bands, as SpaceNet 9 exchanges alignments.",
    ),
    "tie-points": Entry(
        "somareg.cli.tie_points:tie_points",
        "Convert tie points between the formats of other programs.",
    ),
    "doctor": Entry(
        "somareg.cli.doctor:doctor",
        "Check versions, device, memory and formats, and register the demo pair as a self-test.",
    ),
}


class _Somareg(Commands):
    entries = COMMANDS


app = typer.Typer(
    name="somareg",
    cls=_Somareg,
    help="Align a SAR image and an optical image of the same ground, pixel by pixel, and know when it failed.",
    epilog=EPILOG,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=dict(SETTINGS),
)


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
