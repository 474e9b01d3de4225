"""Answers that were made before, the least recently used go first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable


class Cache:
    """Bytes by key, of a bounded total; for many threads.

    Args:
        limit: bytes held at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._held: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """What is held for `key`, made now if there is nothing; an exception of `make` passes and is not held."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        value = make()
        with self._lock:
            if key not in self._held:
                self._held[key] = value
                self._size += len(value)
            while self._size > self._limit and self._held:
                self._size -= len(self._held.popitem(last=False)[1])
        return value
