"""Settings of the whole process: for commands, which own theirs, not for a library inside somebody else's."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of the GNU C library
KEEP_BYTES = 256 << 20
SPINS = "1000"


def keep_freed_memory() -> None:
    """Ask the C library to keep up to `KEEP_BYTES` of freed memory; nothing happens where it is not the GNU one.

    Otherwise it gives large blocks back to the system when they are freed, and every tensor of a few megabytes costs
    page faults again: a fifth of the time of a registration. The environment (`MALLOC_TRIM_THRESHOLD_`) has the last
    word.
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


def wait_politely() -> None:
    """Let OpenMP's threads fall asleep soon while they wait for each other; to be called before torch is imported.

    By default those of the GNU library spin for about a millisecond. On a computer that is busy otherwise the thread
    they wait for may not even have a core, and a registration took three times as long and more; on an idle one the
    difference is small. The environment (`GOMP_SPINCOUNT`, `OMP_WAIT_POLICY`) has the last word.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
