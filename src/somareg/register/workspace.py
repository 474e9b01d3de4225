"""The output folder of a run that can be resumed: its lock, and the journal of what is finished."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from somareg.errors import OutputError
from somareg.io.atomic import check_free_space, check_writable, make_folder, remove_leftovers
from somareg.io.lock import folder_lock
from somareg.register.tiles.journal import Journal
from somareg.report import OWNED

WORK = ".somareg-scene"
JOURNAL = "journal"


class Workspace:
    """Where a run keeps what is finished. The folder is made and locked when there is something to keep.

    Attributes:
        folder: for the outputs; None keeps nothing.
        is_claimed: whether the folder is made and locked.
    """

    def __init__(self, folder: Path | None = None, *, resume: bool = False) -> None:
        self.folder, self._resume = folder, resume
        self._lock = ExitStack()
        self.is_claimed = False

    def journal(self, name: str, binding: Mapping[str, Any], expected_bytes: int) -> Journal:
        """The journal of a run, bound to what it is about.

        Args:
            name: of what is matched, where a pair is matched more than once; "" for the pair as it is.
            binding: JSON-ready description of inputs and settings.
            expected_bytes: of the outputs.

        Raises:
            OutputError: another run is at work in the folder, there is too little room, or the journal belongs to
                something else.
        """
        if self.folder is None:
            return Journal(None, binding)
        self._claim(self.folder)
        check_free_space(self.folder, expected_bytes)
        return Journal(self.folder / WORK / f"{JOURNAL}{name}", binding)

    def _claim(self, folder: Path) -> None:
        if self.is_claimed:
            return
        make_folder(folder)
        self._lock.enter_context(folder_lock(folder / WORK))
        self.is_claimed = True
        if not self._resume:
            for journal in (folder / WORK).glob(f"{JOURNAL}*"):
                journal.unlink()

    def close(self, *, is_done: bool) -> None:
        """Unlock the folder; what was kept in it goes when all is done."""
        with self._lock:
            if is_done and self.folder is not None and (self.folder / WORK).exists():
                shutil.rmtree(self.folder / WORK, ignore_errors=True)


@contextmanager
def open_workspace(folder: Path, *, resume: bool, overwrite: bool) -> Iterator[Workspace]:
    """The workspace of a run that writes into a folder; nothing is made before there is something to keep.

    Raises:
        OutputError: the folder holds something else or an unfinished run, or it cannot be written.
    """
    if folder.is_dir():
        remove_leftovers(folder)
    others = folder.is_dir() and any(entry.name != WORK for entry in folder.iterdir())
    check_writable(folder, overwrite=overwrite or not others, owned=OWNED)
    if list((folder / WORK).glob(f"{JOURNAL}*")) and not (resume or overwrite):
        raise OutputError(
            f"output folder {folder} holds an unfinished run; go on with --resume or begin anew with --overwrite"
        )
    workspace, is_done = Workspace(folder, resume=resume), False
    try:
        yield workspace
        is_done = True
    finally:
        workspace.close(is_done=is_done)
