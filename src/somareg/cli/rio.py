"""`rio somareg`: the whole command line as a plugin of rasterio's `rio`, which loads this module at every start."""

from __future__ import annotations

import click  # rasterio brings it; Typer may carry a click of its own, so the arguments are handed over as text


@click.command(
    "somareg",
    short_help="Align two images of the same ground, and know when it failed.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def somareg(arguments: tuple[str, ...]) -> None:
    """Run `somareg ARGUMENTS` and exit with its code."""
    from somareg.cli.main import main

    main(arguments)
