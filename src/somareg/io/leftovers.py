"""Temporary names that carry their owner, and clean-up after owners that were killed."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import shutil
import zlib
from pathlib import Path

from somareg.errors import OutputError
from somareg.io.swap import undo

SUFFIX = ".part"
FOLDER = "somareg"
"""Name of the temporary folder, inside the output folder, for outputs that appear together."""


def _host() -> str:
    """This machine and its namespace of process ids; each container has its own namespace."""
    space = Path("/proc/self/ns/pid")
    inode = space.stat().st_ino if space.exists() else 0
    return f"{zlib.crc32(f'{platform.node()}/{inode}'.encode()):08x}"


_HOST = _host()
_PART = re.compile(r"^\.(?P<name>.+)-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<run>[0-9a-f]+)\.part$", re.DOTALL)
_RUN = secrets.token_hex(4)  # process ids recur; in a container the same one every time


def part_name(name: str) -> str:
    """`.NAME-HOST-PID-RUN.part`: host, pid and run tell later runs whether the owner is still alive."""
    short = name.encode()[:80].decode(errors="ignore")  # a file name may hold 255 bytes
    pid = os.getpid()
    return f".{short}-{_HOST}-{pid}-{_run_of(pid)}{secrets.token_hex(4)}{SUFFIX}"


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of runs on this machine that are no longer alive.

    Files that such a run had put aside are restored first; when that fails, nothing is removed.

    Raises:
        OutputError: something else stands in that place.
    """
    for entry in _entries(folder):
        match = _PART.match(entry.name)
        if match and match["host"] == _HOST and not _is_alive(int(match["pid"]), match["run"]):
            _clear(entry)


def recover(folder: Path) -> None:
    """Remove what earlier runs left in a folder, on any machine and in any container.

    The caller holds the folder's lock, so no run that writes whole folders is alive.

    Raises:
        OutputError: as `remove_leftovers`.
    """
    for entry in _entries(folder):
        match = _PART.match(entry.name)
        if match and match["name"] == FOLDER:
            _clear(entry)


def _clear(entry: Path) -> None:
    try:
        if entry.is_dir() and not entry.is_symlink():
            undo(entry)
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    except OutputError:
        raise
    except OSError:
        return  # a later run may succeed


def _entries(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(folder.iterdir())
    return []


def _run_of(pid: int) -> str:
    """The run id of this process; a forked child has another one."""
    return _RUN if pid == _PID else f"{zlib.crc32(f'{_RUN}/{pid}'.encode()):08x}"


_PID = os.getpid()


def _is_alive(pid: int, run: str) -> bool:
    if pid == os.getpid():  # also when an earlier process had this number
        return len(run) < 16 or run.startswith(_run_of(pid))
    if os.name == "nt":  # signal 0 would end the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
