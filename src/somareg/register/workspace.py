"""The output folder of a run that can be resumed: its lock, and the journal of what is finished."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from somareg.errors import OutputError
from somareg.io.atomic import check_free_space, check_writable, make_folder, remove_leftovers
from somareg.io.lock import folder_lock
from somareg.register.tiles.journal import Journal
from somareg.report import OWNED

WORK = ".somareg-scene"
JOURNAL = "journal"


@dataclass(frozen=True)
class Workspace:
    """Where a run keeps what is finished.

    Attributes:
        folder: for the outputs; None keeps nothing.
    """

    folder: Path | None = None

    def journal(self, name: str, binding: Mapping[str, Any], expected_bytes: int) -> Journal:
        """The journal of a run, bound to what it is about.

        Args:
            name: of what is matched, where a pair is matched more than once; "" for the pair as it is.
            binding: JSON-ready description of inputs and settings.
            expected_bytes: of the outputs.

        Raises:
            OutputError: too little room, or the journal belongs to something else.
        """
        if self.folder is None:
            return Journal(None, binding)
        check_free_space(self.folder, expected_bytes)
        return Journal(self.folder / WORK / f"{JOURNAL}{name}", binding)


@contextmanager
def open_workspace(folder: Path, *, resume: bool, overwrite: bool) -> Iterator[Workspace]:
    """The folder, locked; what was kept in it goes when the run ends well.

    Raises:
        OutputError: another run is at work in the folder, it holds something else, or it cannot be written.
    """
    if folder.is_dir():
        remove_leftovers(folder)
    others = folder.is_dir() and any(entry.name != WORK for entry in folder.iterdir())
    check_writable(folder, overwrite=overwrite or not others, owned=OWNED)
    if list((folder / WORK).glob(f"{JOURNAL}*")) and not (resume or overwrite):
        raise OutputError(
            f"output folder {folder} holds an unfinished run; go on with --resume or begin anew with --overwrite"
        )
    make_folder(folder)
    with folder_lock(folder / WORK):
        if not resume:
            for journal in (folder / WORK).glob(f"{JOURNAL}*"):
                journal.unlink()
        yield Workspace(folder)
        shutil.rmtree(folder / WORK, ignore_errors=True)
