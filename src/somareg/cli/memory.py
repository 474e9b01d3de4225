"""Freed memory stays with the process for the next tensor.

The C library gives large blocks back to the system when they are freed; with PyTorch on a CPU every tensor of a few
megabytes then costs page faults again, which was a fifth of the time of a registration.
"""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of the GNU C library
KEEP_BYTES = 256 << 20


def keep_freed_memory() -> None:
    """Ask the C library to keep up to `KEEP_BYTES` of freed memory; nothing happens where it is not the GNU one.

    It acts on the whole process: for commands, which own theirs, not for a library inside somebody else's. The
    environment (`MALLOC_TRIM_THRESHOLD_`) has the last word.
    """
    if "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the largest that is allowed
    mallopt(_M_TRIM_THRESHOLD, KEEP_BYTES)
    mallopt(_M_TOP_PAD, 64 << 20)
