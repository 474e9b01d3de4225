"""Settings of the whole process: for commands, which own theirs, not for a library inside somebody else's."""

from __future__ import annotations

import os

SPINS = "1000"


def wait_politely() -> None:
    """Let OpenMP's threads fall asleep soon while they wait for each other; to be called before torch is imported.

    By default those of the GNU library spin for about a millisecond. On a computer that is busy otherwise the thread
    they wait for may not even have a core, and a registration took three times as long and more; on an idle one the
    difference is small. The environment (`GOMP_SPINCOUNT`, `OMP_WAIT_POLICY`) has the last word.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
