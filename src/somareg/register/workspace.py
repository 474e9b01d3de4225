"""The output folder of a run that can be resumed: its lock, and the journal of what is finished."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from somareg.errors import OutputError
from somareg.io.atomic import check_writable
from somareg.io.folders import check_free_space, make_folder
from somareg.io.lock import FolderLock, folder_lock
from somareg.io.refusals import output_errors
from somareg.register.tiles.journal import Journal
from somareg.report import OWNED

WORK = ".somareg-scene"
JOURNAL = "journal"


class Workspace:
    """Where a run keeps what is finished. The folder is made when there is something to keep.

    Attributes:
        folder: for the outputs; None keeps nothing.
        lock: of the folder, held by this run.
        beside: what this run has in the folder beside its outputs.
    """

    def __init__(self, folder: Path | None = None, lock: FolderLock | None = None, *, resume: bool = False) -> None:
        self.folder, self.lock, self._resume = folder, lock, resume
        self.beside: tuple[str, ...] = ()

    def journal(self, name: str, binding: Mapping[str, Any], expected_bytes: int) -> Journal:
        """The journal of a run, bound to what it is about.

        Args:
            name: of what is matched, where a pair is matched more than once; "" for the pair as it is.
            binding: JSON-ready description of inputs and settings.
            expected_bytes: of the outputs.

        Raises:
            OutputError: the folder cannot be made, there is too little room, or the journal belongs to something else.
        """
        if self.folder is None:
            return Journal(None, binding)
        self._claim(self.folder)
        check_free_space(self.folder, expected_bytes)
        return Journal(self.folder / WORK / f"{JOURNAL}{name}", binding)

    def _claim(self, folder: Path) -> None:
        if self.beside:
            return
        work = folder / WORK
        make_folder(folder)
        if self.lock is not None:
            self.lock.settle()
        if work.is_symlink():  # from a stranger, it would have us write elsewhere
            raise OutputError(f"{work} is a link; remove it and run again")
        with output_errors(work):
            work.mkdir(exist_ok=True)
            self.beside = (WORK,)
            if not self._resume:
                for journal in work.glob(f"{JOURNAL}*"):
                    journal.unlink()

    def clear(self) -> None:
        """Take away what was kept: all is done."""
        if self.folder is not None:
            shutil.rmtree(self.folder / WORK, ignore_errors=True)


@contextmanager
def open_workspace(folder: Path, *, resume: bool, overwrite: bool) -> Iterator[Workspace]:
    """The workspace of a run that writes into a folder, which no other run does meanwhile; nothing is made before there
    is something to keep.

    Raises:
        OutputError: another run is at work in the folder, it holds something else or an unfinished run, or it cannot be
            written.
    """
    with folder_lock(folder) as lock:
        check_writable(folder, overwrite=overwrite, owned=OWNED, beside=(WORK,), lock=lock)
        if list((folder / WORK).glob(f"{JOURNAL}*")) and not (resume or overwrite):
            raise OutputError(
                f"output folder {folder} holds an unfinished run; continue with --resume or start anew with --overwrite"
            )
        workspace = Workspace(folder, lock, resume=resume)
        yield workspace
        workspace.clear()
