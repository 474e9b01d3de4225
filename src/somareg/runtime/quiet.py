"""Hides warnings of other packages on matters that somareg reports itself."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def without(category: type[Warning]) -> Iterator[None]:
    """No warnings of this category inside.

    Which warnings are shown is state of the process, and `warnings.catch_warnings` of two threads leave each other's
    behind. So only one thread is in here at a time.
    """
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield
