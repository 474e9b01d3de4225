"""Seconds that each stage of a run took."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Clock:
    """Seconds per stage; it starts when it is made."""

    def __init__(self) -> None:
        self.laps: Mapping[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End the stage `name`; the next one begins."""
        now = time.perf_counter()
        self.laps = {**self.laps, name: round(now - self._last, 4)}
        self._last = now
