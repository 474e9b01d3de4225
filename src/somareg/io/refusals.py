"""The operating system's write errors as `OutputError`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from somareg.errors import OutputError, SomaregError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors into `OutputError`s that name `path`; other errors pass."""
    try:
        yield
    except SomaregError:  # some of them are OSErrors
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise OutputError(f"disk full while writing {path}; make room and run again") from error
        raise OutputError(
            f"cannot write {path} ({reason(error)}{_elsewhere(error, path)}); {_way_out(error)}"
        ) from error


def reason(error: OSError) -> str:
    """The system's message."""
    return error.strerror or str(error) or type(error).__name__


def _elsewhere(error: OSError, path: Path) -> str:
    """The file of the error, when it is neither the output nor one of its temporary names."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    return f": {name}" if name and Path(name).name not in ("", path.name) and not name.endswith(".part") else ""


def _way_out(error: OSError) -> str:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "close files or raise the limit (ulimit -n), and run again"
    if error.errno in (errno.ESTALE, errno.ENOENT, errno.EIO, errno.ENODEV, errno.ETIMEDOUT):
        return "it went away or failed while it was written: check the disk, and run again"
    return "give another output"
