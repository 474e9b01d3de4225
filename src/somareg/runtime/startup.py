"""Faster start of commands."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Pause the garbage collector while large packages are imported inside the context.

    PyTorch's modules create so many objects that the collector runs a dozen times, a seventh of the import time.
    Modules live as long as the process, so the objects are frozen afterwards and never scanned again. This acts
    on the whole process, so commands call it and library functions do not.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
