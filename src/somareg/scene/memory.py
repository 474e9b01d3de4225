"""What a stage of a scene needed does not stay with the process."""

from __future__ import annotations

import ctypes


def release() -> None:
    """Ask the C library to give freed memory back to the system; nothing happens where it is not the GNU one.

    It keeps freed blocks below its top otherwise: the overview's features, several hundred megabytes, would stay until
    the end and add up with what the later stages need.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return
    trim(0)
