"""The output folder of a resumable run: its lock and its journal of finished tiles."""

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
    """The place for finished tiles of a run. The folder is made when the first tile is stored.

    Attributes:
        folder: for the outputs; None keeps nothing.
        lock: held by this run on the folder.
        beside: names in the folder that are no outputs.
    """

    def __init__(self, folder: Path | None = None, lock: FolderLock | None = None, *, resume: bool = False) -> None:
        self.folder, self.lock, self._resume = folder, lock, resume
        self.beside: tuple[str, ...] = ()

    def journal(self, name: str, binding: Mapping[str, Any], expected_bytes: int) -> Journal:
        """Open the journal of a run, bound to its inputs and settings.

        Args:
            name: distinguishes several matchings of one pair; "" for the ordinary one.
            binding: JSON-ready description of inputs and settings.
            expected_bytes: of the outputs.

        Raises:
            OutputError: the folder cannot be made, the disk is too full, or the journal belongs to another run.
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
        if work.is_symlink():  # a link in a stranger's folder would redirect our writes
            raise OutputError(f"{work} is a link; remove it and run again")
        with output_errors(work):
            work.mkdir(exist_ok=True)
            self.beside = (WORK,)
            if not self._resume:
                for journal in work.glob(f"{JOURNAL}*"):
                    journal.unlink()

    def clear(self) -> None:
        """Remove the journal when the outputs are complete."""
        if self.folder is not None:
            shutil.rmtree(self.folder / WORK, ignore_errors=True)


@contextmanager
def open_workspace(folder: Path, *, resume: bool, overwrite: bool) -> Iterator[Workspace]:
    """Lock a folder and open the workspace of a run in it; nothing is created before there
    is something to keep.

    Raises:
        OutputError: another run uses the folder, it has other content or an unfinished run, or it cannot be
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
