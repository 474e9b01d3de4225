"""One run at a time in a folder: a lock that the operating system lets go of when the run dies, however it dies."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from somareg.errors import OutputError
from somareg.io.atomic import make_folder, output_errors

LOCK_NAME = ".somareg.lock"


@contextmanager
def folder_lock(folder: str | Path) -> Iterator[None]:
    """Hold a folder for this run; it is made where it is missing.

    Raises:
        OutputError: another run holds it, or it cannot be written.
    """
    file = make_folder(folder) / LOCK_NAME
    with output_errors(file):
        stream = _acquire(file)
    try:
        yield
    finally:
        # Unlinked while it is still held: who waits for this very file finds that it is no longer the folder's.
        with contextlib.suppress(OSError):
            file.unlink()
        stream.close()


def _acquire(file: Path) -> Any:
    while True:
        stream = file.open("a+", encoding="utf-8")
        if not _lock(stream):
            stream.seek(0)
            owner = " ".join(stream.read(200).split()) or "another process"
            stream.close()
            raise OutputError(f"{file.parent} is in use by another run ({owner}); wait for it or give another folder")
        with contextlib.suppress(FileNotFoundError):
            if os.name == "nt" or os.path.samestat(os.fstat(stream.fileno()), file.stat()):
                stream.truncate(0)
                stream.write(f"process {os.getpid()} on {platform.node()}\n")
                stream.flush()
                return stream
        stream.close()  # its owner took the file away meanwhile


def _lock(stream: Any) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            stream.seek(0)
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
