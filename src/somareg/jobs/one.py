"""Many independent jobs: the protocol of a runner, how a job ends, and the runner that does one after the other.

A runner never lets one job end the others: what a job raises becomes its recorded `Failure`. Functions and jobs must be
picklable, and doing a job twice must be as good as doing it once, for a worker may die after the work and before the
answer. Weights need no care: `load_network` keeps them per process, so a worker loads them with its first job.

This module imports neither torch nor Dask.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from somareg import errors
from somareg.errors import JobError

J = TypeVar("J")
V = TypeVar("V")

# Seeds, threads and the decoded reference belong to the process: workers with several threads take jobs in turn.
# Reentrant, because a job may run jobs of its own.
_ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True)
class Failure:
    """What a job raised.

    Attributes:
        kind: name of the exception's class; "KilledWorker" when the workers that tried it died.
        message: its text, one line or more.
        trace: the traceback as text, "" when there is none.
    """

    kind: str
    message: str
    trace: str = ""


@dataclass(frozen=True)
class Outcome(Generic[V]):
    """How a job ended.

    Attributes:
        value: what the function returned; None on failure.
        failure: None on success.
        seconds: that the job took where it ran.
    """

    value: V | None = None
    failure: Failure | None = None
    seconds: float = 0.0

    def result(self) -> V:
        """The value.

        Raises:
            SomaregError: the job failed; the class that it raised when that is one of `somareg.errors`, else JobError.
        """
        if self.failure is None:
            return self.value  # type: ignore[return-value]  # a function may well return None
        known = getattr(errors, self.failure.kind, None)
        if isinstance(known, type) and issubclass(known, errors.SomaregError):
            raise known(self.failure.message)
        raise JobError(f"{self.failure.kind}: {self.failure.message}")


class Runner(Protocol):
    """Does jobs."""

    def run(self, function: Callable[[J], V], jobs: Iterable[J]) -> Iterator[tuple[int, Outcome[V]]]:
        """Do every job once.

        Args:
            function: of one job; a function of a module, so that other processes find it.
            jobs: drawn as they are given out, so that a generator sees when each of them starts to count as running.

        Yields:
            (index, outcome) in order of completion; every index once. Leaving the iterator gives up what is not done.

        Raises:
            ClusterError: nobody is left to do the work.
        """
        ...


class Serial:
    """One job after the other in this process."""

    def run(self, function: Callable[[J], V], jobs: Iterable[J]) -> Iterator[tuple[int, Outcome[V]]]:
        """See `Runner.run`; the order is that of the jobs."""
        for index, job in enumerate(jobs):
            yield index, do(function, job)


def do(function: Callable[[J], V], job: J) -> Outcome[V]:
    """One job, its exception recorded; the same wherever it runs."""
    with _ONE_AT_A_TIME:
        begin = time.perf_counter()
        try:
            value = function(job)
        except Exception as error:
            failure = Failure(type(error).__name__, str(error) or "no message", traceback.format_exc())
            return Outcome(failure=failure, seconds=time.perf_counter() - begin)
        return Outcome(value, seconds=time.perf_counter() - begin)
