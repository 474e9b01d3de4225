"""Many independent jobs: the protocol of a runner, the outcome of a job, and a runner for this process.

An exception of one job never ends the others: it is recorded as that job's `Failure`. Functions and jobs must be
picklable, and a job must give the same when it is done twice, because a worker may die after the work and before its
answer. Weights are loaded once per process (`load_network` keeps them), with a worker's first job.

This module imports neither torch nor Dask.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from somareg import errors
from somareg.errors import JobError

J = TypeVar("J")
V = TypeVar("V")

# Seeds, the number of threads and the decoded reference are state of the process, so a worker with several threads runs
# one job at a time. Reentrant, because a job may run jobs of its own.
_ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True)
class Failure:
    """The exception of a job.

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
    """The result of a job or its failure.

    Attributes:
        value: what the function returned; None on failure.
        failure: None on success.
        seconds: duration of the job on its worker.
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
        error_class = getattr(errors, self.failure.kind, None)
        if isinstance(error_class, type) and issubclass(error_class, errors.SomaregError):
            raise error_class(self.failure.message)
        raise JobError(f"{self.failure.kind}: {self.failure.message}")


class Runner(Protocol):
    """Runs a function on many jobs, wherever that is."""

    def run(self, function: Callable[[J], V], jobs: Iterable[J]) -> Iterator[tuple[int, Outcome[V]]]:
        """Do every job once.

        Args:
            function: of one job; a function of a module, so that other processes find it.
            jobs: an iterable that is advanced only when a job is started, so that a generator can note its start.

        Yields:
            (index, outcome) in order of completion, every index once. Closing the iterator cancels the jobs that are
            left.

        Raises:
            ClusterError: no worker is left.
        """
        ...


class Serial:
    """Runs jobs one by one in this process."""

    def run(self, function: Callable[[J], V], jobs: Iterable[J]) -> Iterator[tuple[int, Outcome[V]]]:
        """See `Runner.run`; the order is that of the jobs."""
        for index, job in enumerate(jobs):
            yield index, do(function, job)


def do(function: Callable[[J], V], job: J) -> Outcome[V]:
    """Run one job and record its value or its exception; every runner does it this way."""
    with _ONE_AT_A_TIME:
        begin = time.perf_counter()
        try:
            value = function(job)
        except Exception as error:
            failure = Failure(type(error).__name__, str(error) or "no message", traceback.format_exc())
            return Outcome(failure=failure, seconds=time.perf_counter() - begin)
        return Outcome(value, seconds=time.perf_counter() - begin)


def deadly() -> Outcome[Any]:
    """The outcome of a job that ended its worker twice, the second time alone."""
    return Outcome(
        failure=Failure(
            "KilledWorker", "every worker that tried this job died, at last alone; most likely it needs more memory"
        )
    )
