"""`somareg demo`: register the real pair that ships with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from somareg.cli import options as o
from somareg.cli.failures import DECISION_CODES
from somareg.cli.flags import said, takes_options
from somareg.cli.session import session
from somareg.config import RegisterConfig

Out = Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="folder for the outputs")]


@takes_options("preset", "model", "dinov2", "device")
def demo(
    *,
    out: Out = "somareg-demo",
    asked: RegisterConfig,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:
    """Register a real Sentinel-1 / Sentinel-2 pair that lies some pixels apart; works offline."""
    with session(as_json=as_json, verbose=verbose, quiet=quiet) as ui:
        from somareg.cli.register import run
        from somareg.cli.sample import sample_pair

        moving, reference = sample_pair()
        if ui.wants_text:
            ui.out.print("Sentinel-1 VH onto Sentinel-2, Irvine, California, pixels of 8.3 m")
            ui.out.print("Contains modified Copernicus Sentinel data 2020", style="dim")
        # A second demo replaces the first; files that are not somareg's are left alone.
        result = run(ui, moving, reference, Path(out), {**said(asked), "overwrite": True})
        raise typer.Exit(DECISION_CODES[result.verdict.decision])
