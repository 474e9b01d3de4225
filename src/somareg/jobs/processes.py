"""The runner on worker processes of this machine: a job that ends its worker costs that worker only.

A worker talks to this process through a pipe of its own, so it is known which job a dead worker had, nobody else can
send it work, and it ends with this process. On Linux workers are forked from a process that has imported the
function and nothing else (`forkserver`): importing PyTorch once instead of in every worker is what makes two workers
worth their while for a short batch.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from types import FrameType, ModuleType
from typing import Any, TypeVar

from somareg.errors import ClusterError
from somareg.jobs.one import Failure, Outcome, deadly, do
from somareg.runtime import memory
from somareg.runtime.budget import shared_by

J = TypeVar("J")
V = TypeVar("V")

# One thread per worker: more gain nothing when workers share the cores, and results do not depend on the machine.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
# On macOS a process must not be forked once system frameworks are loaded, and Windows cannot fork.
METHOD = "forkserver" if sys.platform == "linux" else "spawn"
_PATIENCE_S = 5.0  # for a worker that was asked to end


@dataclass(eq=False)
class _Worker:
    """A process and this side of its pipe.

    Attributes:
        job: number and content of the job that it does; None while it has none.
        is_ready: whether it has said that it can take jobs.
    """

    process: Any
    line: Connection
    job: tuple[int, Any] | None = None
    is_ready: bool = False

    def take(self, function: Callable[[J], V], waiting: Iterator[tuple[int, J]]) -> bool:
        """Start the next job; False when there is none. A worker that is dead by now is found by its answer."""
        for index, job in waiting:
            self.job = index, job
            with suppress(BrokenPipeError, ConnectionResetError):
                self.line.send((function, job))
            return True
        return False

    def answer(self) -> Outcome[Any] | None:
        """What the worker has sent; None when it has died."""
        try:
            return self.line.recv()  # type: ignore[no-any-return]
        except (EOFError, OSError):
            return None
        except Exception as error:  # the value cannot be unpickled here
            return _failed(error)

    def end(self) -> None:
        """End the process: at once when it has nothing to do, otherwise as soon as it has cleaned up."""
        self.line.close()
        if self.job is not None or not self.is_ready:
            self.process.terminate()
        self.process.join(_PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


@dataclass
class Processes:
    """Jobs on worker processes of one thread each.

    A job whose worker dies is tried once more when all others are done, alone. If its worker dies then, too, it is
    recorded as failed; other jobs are not affected.

    Attributes:
        count: workers at a time.
    """

    count: int
    workers: list[_Worker] = field(default_factory=list)

    def run(self, function: Callable[[J], V], jobs: Iterable[J]) -> Iterator[tuple[int, Outcome[V]]]:
        """See `somareg.jobs.one.Runner.run`.

        Raises:
            ClusterError: a worker process ended before it could take a job.
        """
        waiting = enumerate(jobs)
        killed: list[tuple[int, J]] = []
        try:
            self._fill(function)
            yield from self._until_done(function, waiting, killed.append)
            for job in killed:
                again: list[tuple[int, J]] = []
                yield from self._until_done(function, iter([job]), again.append)
                for index, _ in again:
                    yield index, deadly()
        finally:
            for worker in [each for each in self.workers if each.job is not None]:
                self._drop(worker)

    def _until_done(
        self,
        function: Callable[[J], V],
        waiting: Iterator[tuple[int, J]],
        bury: Callable[[tuple[int, J]], None],
    ) -> Iterator[tuple[int, Outcome[V]]]:
        """Do all jobs; those whose worker died go to `bury`."""
        are_left = True
        for worker in [each for each in self.workers if each.is_ready]:
            are_left = are_left and worker.take(function, waiting)
        while are_left or any(worker.job is not None for worker in self.workers):
            for worker in self._heard():
                outcome, job = worker.answer(), worker.job
                if outcome is None:
                    self._replace(worker, function)
                    if job is not None:
                        bury(job)
                    continue
                worker.is_ready, worker.job = True, None
                are_left = are_left and worker.take(function, waiting)  # first: it works while the outcome is used
                if job is not None:
                    yield job[0], outcome

    def _heard(self) -> list[_Worker]:
        """Workers that have sent something or have died; waits for one."""
        lines = {each.line: each for each in self.workers if each.job is not None or not each.is_ready}
        return [lines[line] for line in wait(list(lines))]  # type: ignore[index]

    def _replace(self, worker: _Worker, function: Callable[..., Any]) -> None:
        self._drop(worker)
        if not worker.is_ready:
            raise ClusterError(
                "a worker process ended as it started; see above for its message. Where there is too little memory for "
                "it, take fewer workers"
            )
        self._fill(function)

    def _drop(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        worker.end()

    def _fill(self, function: Callable[..., Any]) -> None:
        """Start the workers that are missing."""
        prepare(function.__module__)
        context: Any = multiprocessing.get_context(METHOD)
        while len(self.workers) < self.count:
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, self.count), name="somareg worker", daemon=True)
            with _environment(), _main_hidden(function.__module__):
                process.start()
            there.close()
            self.workers.append(_Worker(process, here))


@contextmanager
def processes(count: int) -> Iterator[Processes]:
    """Worker processes on this machine, started with the first jobs; they end with the context.

    The memory that a job may plan with is an equal part of what is there.
    """
    runner = Processes(count)
    try:
        yield runner
    finally:
        for worker in list(runner.workers):
            runner._drop(worker)


def prepare(module: str) -> None:
    """Start to import a module for workers, while this process goes on; only the first call of a process counts.

    Args:
        module: name of the one that holds the function of the jobs.
    """
    if METHOD == "forkserver":
        forkserver.set_forkserver_preload([module])
        with _environment():
            forkserver.ensure_running()


@contextmanager
def _main_hidden(module: str) -> Iterator[None]:
    """Keep a new process from importing the program that starts it, unless the jobs' function is in there.

    Nothing of it is needed, a script without `if __name__ == "__main__":` would start workers of its own, and a program
    that is read from a pipe has no file.
    """
    main = sys.modules["__main__"]
    if module != "__main__":
        sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _environment() -> Iterator[None]:
    """Set what a new process must find in its environment when it loads its libraries."""
    before = dict(os.environ)
    os.environ.update(_ENVIRONMENT)
    os.environ.update({name: str(value) for name, value in memory.environment().items() if name not in before})
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


# --- in the worker ----------------------------------------------------------------------------------------------------


def _serve(line: Connection, sharing: int) -> None:
    """Do jobs until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends its workers
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_follow_parent, daemon=True).start()
    memory.keep()  # if the process that this one was forked from belongs to somebody else
    os.environ.update(_ENVIRONMENT)
    with shared_by(sharing), suppress(EOFError, OSError):  # the parent has closed the pipe
        line.send(Outcome())
        while True:
            outcome = _outcome(line)
            try:
                line.send(outcome)
            except OSError:
                raise
            except Exception as error:  # the value cannot be pickled
                line.send(_failed(error))


def _outcome(line: Connection) -> Outcome[Any]:
    try:
        function, job = line.recv()
    except (EOFError, OSError):
        raise
    except Exception as error:  # the job cannot be unpickled here
        return _failed(error)
    return do(function, job)


def _failed(error: Exception) -> Outcome[Any]:
    return Outcome(failure=Failure(type(error).__name__, str(error) or "no message"))


def _leave(number: int, frame: FrameType | None) -> None:
    """End by an exception, so that half-written files are removed on the way."""
    raise SystemExit(128 + number)


def _follow_parent() -> None:
    """End with the parent, however it ended: what it started may not go on in its folders."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
