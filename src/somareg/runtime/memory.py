"""Freed memory: whether the GNU C library keeps it or gives it back; with any other C library nothing happens."""

from __future__ import annotations

import ctypes
import os
from typing import Any

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
KEEP_BYTES, PAD_BYTES = 256 << 20, 64 << 20
_DASKS = str(65_536)  # what Dask sets for all its workers, whatever they do
MAP_BYTES = 32 << 20  # the largest block that may be kept: the C library allows no more


def keep() -> None:
    """Let the process keep up to `KEEP_BYTES` of freed memory.

    Otherwise large blocks go back to the system at once, and every tensor of a few megabytes costs page faults again: a
    fifth of the time of a registration. This acts on the whole process, so commands and workers call it and library
    functions do not. The environment (`MALLOC_TRIM_THRESHOLD_`) has the last word, unless it is what Dask puts there.
    """
    mallopt = _function("mallopt")
    if mallopt is None or os.environ.get("MALLOC_TRIM_THRESHOLD_", _DASKS) != _DASKS:
        return
    mallopt(_M_MMAP_THRESHOLD, MAP_BYTES)
    mallopt(_M_TRIM_THRESHOLD, KEEP_BYTES)
    mallopt(_M_TOP_PAD, PAD_BYTES)


def environment() -> dict[str, int]:
    """Environment variables with the same effect on a process that is about to start."""
    return {
        "MALLOC_MMAP_THRESHOLD_": MAP_BYTES,
        "MALLOC_TRIM_THRESHOLD_": KEEP_BYTES,
        "MALLOC_TOP_PAD_": PAD_BYTES,
    }


def release() -> None:
    """Give freed memory back to the system.

    A long run calls this between its stages. The C library keeps freed blocks that lie below blocks in use; without
    this call the peak of one stage would add to the needs of the next.
    """
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str) -> Any:
    """A function of the C library, None where it has none of that name."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None
