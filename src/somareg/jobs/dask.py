"""The runner on a Dask cluster: survives dead workers and never blocks forever."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from somareg.errors import ClusterError, UnsupportedError
from somareg.jobs.one import Failure, Outcome, deadly, do
from somareg.runtime import memory
from somareg.runtime.version import __version__

log = logging.getLogger("somareg.jobs")

J = TypeVar("J")
V = TypeVar("V")


@dataclass(frozen=True)
class Dask:
    """Jobs on the workers of a Dask client.

    A job whose worker dies is given to another worker. The scheduler gives it up after `allowed-failures` deaths,
    although another job on the same worker may have caused them; so jobs that were given up are tried once more, one
    at a time, when all others are done. A job whose worker dies then, too, is recorded as failed; the other jobs are
    not affected.

    Attributes:
        client: `distributed.Client`.
        patience_s: seconds without any worker after which the run ends with ClusterError.
        ahead: jobs per worker thread that are queued at the cluster at a time.
    """

    client: Any
    patience_s: float = 300.0
    ahead: int = 4

    def run(self, function: Callable[[J], V], jobs: Iterable[J]) -> Iterator[tuple[int, Outcome[V]]]:
        """See `somareg.jobs.one.Runner.run`."""
        waiting = enumerate(jobs)
        killed: list[tuple[int, J]] = []
        futures: dict[Any, tuple[int, J]] = {}
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        try:
            while True:
                for index, job in islice(waiting, max(0, self._room() - len(futures))):
                    self._give(function, index, job, futures, done)
                if not futures:
                    break
                future = self._next(done)
                index, job = futures.pop(future)
                outcome: Outcome[V] | None = self._outcome(future)
                if outcome is None:
                    killed.append((index, job))
                else:
                    yield index, outcome
            for index, job in killed:
                self._give(function, index, job, futures, done)
                future = self._next(done)
                del futures[future]
                yield index, self._outcome(future) or deadly()
        finally:
            for future in futures:
                future.cancel()

    def _room(self) -> int:
        """Number of jobs that may be queued now; it follows workers that join and leave."""
        threads: int = sum(self.client.nthreads().values())
        return max(4, self.ahead * threads)

    def _give(
        self,
        function: Callable[[J], V],
        index: int,
        job: J,
        futures: dict[Any, tuple[int, J]],
        done: queue.SimpleQueue[Any],
    ) -> None:
        future = self.client.submit(_do_there, function, job, pure=False)
        futures[future] = index, job
        future.add_done_callback(done.put)

    def _next(self, done: queue.SimpleQueue[Any]) -> Any:
        """The next future that is done; ClusterError without a scheduler, or without a worker for `patience_s`."""
        since = None
        while True:
            try:
                return done.get(timeout=min(2.0, self.patience_s))
            except queue.Empty:
                if self.client.status != "running":
                    raise ClusterError("the Dask scheduler is gone; start it and run again to continue") from None
                if self.client.scheduler_info(n_workers=-1)["workers"]:
                    since = None
                    continue
                since = since or time.monotonic()
                if time.monotonic() - since >= self.patience_s:
                    raise ClusterError(
                        f"the Dask cluster has had no worker for {self.patience_s:.0f} s; start some and run again"
                    ) from None

    def _outcome(self, future: Any) -> Outcome[Any] | None:
        """The outcome of a job; None when every worker that tried it died."""
        from distributed.scheduler import KilledWorker

        if future.status == "cancelled":
            raise ClusterError("the Dask scheduler is gone or gave up the jobs; start it and run again to continue")
        try:
            return future.result(timeout=self.patience_s)  # type: ignore[no-any-return]
        except KilledWorker as error:
            log.warning("%s", error)
            return None
        except TimeoutError as error:
            raise ClusterError(
                f"an answer did not arrive within {self.patience_s:.0f} s; run again to continue"
            ) from error
        except Exception as error:  # the job could not be unpickled there, or its answer not here
            return Outcome(failure=Failure(type(error).__name__, str(error) or "no message"))


def _do_there(function: Callable[[J], V], job: J) -> Outcome[V]:
    """Do a job on a worker that keeps its memory: two that give it back at once are slower than one."""
    memory.keep()
    return do(function, job)


@contextmanager
def connect(dask: Any, timeout_s: float = 10.0) -> Iterator[Dask]:
    """The workers of a running cluster.

    Args:
        dask: address of its scheduler, or a `distributed.Client`, which stays open.
        timeout_s: seconds that the scheduler has to answer.

    Raises:
        ClusterError: there is no answer, or workers lack this version of somareg.
    """
    distributed = need_distributed()
    if isinstance(dask, distributed.Client):
        _check_workers(dask)
        yield Dask(dask)
        return
    try:
        client = distributed.Client(str(dask), timeout=timeout_s, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise ClusterError(f"no Dask scheduler answers at {dask}; start it with `dask scheduler`") from error
    with client:
        _check_workers(client)
        yield Dask(client)


def need_distributed() -> Any:
    """The module.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        raise UnsupportedError("a Dask scheduler needs Dask here, too; pip install 'somareg[dask]'") from error
    return distributed


def _version() -> str:
    return __version__


def _check_workers(client: Any) -> None:
    """Check that all workers run this version of somareg, because another one would give other results."""
    try:
        versions = client.run(_version, on_error="return")
    except Exception as error:
        raise ClusterError(f"the Dask workers cannot be asked for their somareg ({error})") from error
    for worker, version in versions.items():
        if version != __version__:
            problem = f"cannot load it ({version})" if isinstance(version, Exception) else f"has version {version}"
            raise ClusterError(f"somareg is {__version__} here, Dask worker {worker} {problem}; install the same there")
