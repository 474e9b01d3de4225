"""Seconds that each stage of a run took."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Clock:
    """A stopwatch of stages; the first stage starts with the object.

    Attributes:
        laps: name of each stage that has ended -> its seconds.
    """

    def __init__(self) -> None:
        self.laps: Mapping[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End the running stage, call it `name`, and start the next one."""
        now = time.perf_counter()
        self.laps = {**self.laps, name: round(now - self._last, 4)}
        self._last = now
