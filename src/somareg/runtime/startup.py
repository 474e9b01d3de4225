"""Makes commands start sooner."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import large packages inside while the garbage collector is off.

    PyTorch's modules make so many objects that the collector runs over them a dozen times, a seventh of the time that
    they take. Modules live as long as the process, so what is there in the end is never looked through again. This acts
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
