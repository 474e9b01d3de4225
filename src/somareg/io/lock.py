"""One run at a time in a folder: a lock that the operating system releases when the run ends or dies.

`filelock` takes the lock. Its `FileLock` would also choose the file, but it neither names the process that holds the
lock nor refuses a file or pipe that a stranger put there. So this module opens the file and writes the owner into it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import platform
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import lock_descriptor

from somareg.errors import OutputError
from somareg.io.folders import existing
from somareg.io.refusals import output_errors

log = logging.getLogger("somareg.io")

LOCK_NAME = ".somareg.lock"
_OWNER = "process"  # first word in a lock file
_TRIES = 5
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class FolderLock:
    """A folder that only this run may write to; made by `folder_lock`.

    Attributes:
        folder: the locked folder; it need not exist yet.
        is_real: False where the file system has no locks, so that another run may be writing there too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_real = True
        self._held: dict[Path, Any] = {}

    def settle(self) -> None:
        """Lock a file in the folder; while the folder does not exist, lock a file in its nearest parent instead.

        Code that makes the folder calls this again.

        Raises:
            OutputError: another run holds the folder, or the folder cannot be written.
        """
        tries = 0
        while missing := [file for file in _lock_files(self.folder) if file not in self._held]:
            with output_errors(self.folder):
                try:
                    stream = self._acquire(missing[0])
                except FileNotFoundError:  # the folder went away meanwhile, or no file can be made in it
                    if (tries := tries + 1) == _TRIES:
                        raise
                    continue
            if stream is not None:
                self._held[missing[0]] = stream

    def release(self) -> None:
        """Release the folder and remove its lock files."""
        for file, stream in self._held.items():
            # Unlinked while still locked: a run that has this file open sees that its name is gone, and tries again.
            with contextlib.suppress(OSError):
                file.unlink()
            stream.close()
        self._held.clear()

    def _acquire(self, file: Path) -> Any:
        """Open and lock the file; None when its owner removed it meanwhile."""
        stream = _open(file)
        try:
            # Locked files cannot be read by others on some systems.
            owner = "" if os.name == "nt" else " ".join(stream.read(200).split())
            if owner and not owner.startswith(_OWNER):
                raise OutputError(f"{file} is no lock of somareg; move it away and run again")
            if not self._lock(stream):
                raise OutputError(
                    f"{self.folder} is in use by another run ({owner or 'another process'}); wait for it or give "
                    "another folder"
                )
            with contextlib.suppress(FileNotFoundError):
                if os.name == "nt" or os.path.samestat(os.fstat(stream.fileno()), file.stat()):
                    stream.seek(0)
                    stream.truncate(0)
                    stream.write(f"{_OWNER} {os.getpid()} on {platform.node()}\n")
                    stream.flush()
                    return stream
        except BaseException:
            stream.close()
            raise
        stream.close()
        return None

    def _lock(self, stream: Any) -> bool:
        """Lock an open file for this process; False where another process has it locked."""
        try:
            return lock_descriptor(stream.fileno(), blocking=False)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self.is_real = False
            log.warning("the disk of %s has no file locks; do not start a second run in that folder", self.folder)
            return True


@contextmanager
def folder_lock(folder: str | Path) -> Iterator[FolderLock]:
    """Lock a folder for this run, also one that does not exist yet.

    Raises:
        OutputError: another run holds the folder, it is a file, or it cannot be written.
    """
    lock = FolderLock(Path(folder))
    try:
        lock.settle()
        yield lock
    finally:
        lock.release()


def _open(file: Path) -> Any:
    """Open or make a lock file; never through a link, which a stranger's folder could point at another file."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(file, flags, 0o644)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OutputError(f"{file} is no file; move it away and run again")
    return open(handle, "r+", encoding="utf-8", errors="replace")  # noqa: PTH123 - there is no other way for a handle


def _lock_files(folder: Path) -> list[Path]:
    """Lock files of a folder: the one inside it, or in its nearest existing parent while it does not exist, then those
    that other runs made in parents further up, when fewer of the parents existed.
    """
    whole = _absolute(folder)
    name = whole.name.encode()[:80].decode(errors="ignore")
    name = f".{name}-{zlib.crc32(os.fsencode(whole)):08x}{LOCK_NAME}"
    with output_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"output folder {folder} is a file; give a folder name")
        first = whole / LOCK_NAME if folder.is_dir() else _absolute(existing(folder)) / name
        return [first, *(file for parent in whole.parents if os.path.lexists(file := parent / name) and file != first)]


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - links stay links
