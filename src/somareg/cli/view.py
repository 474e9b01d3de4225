"""`somareg view OUT`: look at a result at full resolution, in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from somareg.cli import options as o
from somareg.cli.session import session

Folder = Annotated[Path, typer.Argument(metavar="OUT", help="output folder of register, or a file in it")]
Port = Annotated[
    int, typer.Option("--port", metavar="N", help="port to listen on; 0: any that is free", min=0, max=65535)
]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="print the address and open nothing")]
Moving = Annotated[Path | None, typer.Option("--moving", metavar="FILE", help="the moving image, if it was moved away")]
Reference = Annotated[Path | None, typer.Option("--reference", metavar="FILE", help="the same for the reference")]


def view(
    folder: Folder,
    port: Port = 0,
    no_browser: NoBrowser = False,
    moving: Moving = None,
    reference: Reference = None,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:
    """Show a result on a local page: compare the images, error map, arrows, tie points, verdict; Ctrl-C ends it."""
    with session(as_json=False, verbose=verbose, quiet=quiet) as ui:
        from somareg.view import find_folder, need_view

        need_view()  # before anything that imports what may be missing
        found = find_folder(folder, moving=moving, reference=reference)
        from somareg.view import Scene, Server

        with Scene(found) as scene, Server(scene, port) as server:
            for note in scene.notes:
                ui.err.print(f"note: {note}", style="dim", markup=False)
            ui.out.print(server.url, markup=False, soft_wrap=True)
            if ui.wants_text:
                ui.err.print("only this machine and this address reach it; Ctrl-C ends it", style="dim")
            server.run(None if no_browser else lambda: _open_browser(server.url))


def _open_browser(url: str) -> None:
    import webbrowser

    webbrowser.open(url)
