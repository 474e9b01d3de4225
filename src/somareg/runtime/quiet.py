"""Warnings of other packages that somareg silences because it reports the same itself."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def without(category: type[Warning]) -> Iterator[None]:
    """Silence warnings of a category inside the context.

    Warning filters are state of the process, and `warnings.catch_warnings` in two threads leave each other's
    filters behind. So only one thread runs inside at a time.
    """
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield
