"""Flush files and folders to the disk, so that they survive a power cut."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def sync(path: Path) -> None:
    """Flush a file or folder to the disk, where the system allows it."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Flush all files below a folder to the disk."""
    for entry in folder.rglob("*"):
        if entry.is_file():
            sync(entry)
