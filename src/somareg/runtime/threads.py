"""Threads: how many work on one operation, a helper beside the caller, and how they wait for each other.

The many small steps of a search leave a second core idle; a helper thread uses it. Import this module before torch,
which reads only once how its threads are to wait.

All thread counts set here apply to the calling thread only: other threads of the program, later threads and calls
that run at the same time keep theirs.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import torch

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")

SMALL_PX = 300  # longer side up to which one thread per operation is fastest
PAIR = 2  # cores that the caller and its helper fill with one thread each
SPINS = "1000"

_cores: ContextVar[int] = ContextVar("somareg_cores", default=0)
_setting = threading.Lock()


class Submit(Protocol):
    """Runs work, now or beside the caller, and returns a callable that yields its result."""

    def __call__(self, work: Callable[[], T], /) -> Callable[[], T]: ...


class Over(Protocol):
    """Applies a function to each of several things, as `map` does."""

    def __call__(self, function: Callable[[A], B], things: Sequence[A], /) -> list[B]: ...


def at_once(work: Callable[[], T]) -> Callable[[], T]:
    """Do the work now."""
    result = work()
    return lambda: result


def one_by_one(function: Callable[[A], B], things: Sequence[A]) -> list[B]:
    """Apply a function to each thing."""
    return [function(thing) for thing in things]


class Helper:
    """A second thread that works beside the caller's.

    Args:
        executor: of one thread; without it (None) work runs in the caller's thread, when its result is asked for.
    """

    def __init__(self, executor: Executor | None) -> None:
        self.executor = executor

    def submit(self, work: Callable[[], T]) -> Callable[[], T]:
        """Queue work; the callable that is returned waits for its result."""
        if self.executor is None:
            return cache(work)
        return self.executor.submit(_without_gradients(work)).result

    def over(self, function: Callable[[A], B], things: Sequence[A]) -> list[B]:
        """Apply a function to each thing; an idle helper takes some of them."""
        if self.executor is None or len(things) < 2:
            return one_by_one(function, things)
        items, results = deque(enumerate(things)), dict[int, B]()

        def work() -> None:
            while items:
                try:
                    index, thing = items.popleft()
                except IndexError:  # the other thread took the last one
                    return
                results[index] = function(thing)

        helped = self.executor.submit(_without_gradients(work))
        try:
            work()
        finally:
            items.clear()
            if not helped.cancel():
                helped.result()
        return [results[index] for index in range(len(things))]


@contextmanager
def helper(device: torch.device, cores: int) -> Iterator[Helper]:
    """Share the cores between the caller and one helper; on exit the helper has finished and the caller has the
    threads that it had.

    Args:
        device: where the work is done; on a GPU nothing is shared.
        cores: number that may be used; inside `few_threads` the number that it yields.
    """
    import torch

    threads = torch.get_num_threads()
    cores = max(cores, _cores.get())
    if cores < 2 or device.type != "cpu":
        yield Helper(None)
        return
    own, others = min(threads, cores - cores // 2), min(threads, cores // 2)
    set_threads(own)
    try:
        with ThreadPoolExecutor(1, "somareg", set_threads, (others,)) as executor:
            yield Helper(executor)
    finally:
        set_threads(threads)


@contextmanager
def few_threads(longest: float = math.inf) -> Iterator[int]:
    """Use one thread per operation for small images, and on two cores for any size; afterwards the
    number is what it was.

    On two cores the helper keeps the second one busy. More threads gain nothing on small images, and on a busy
    computer they take many times longer, because they spin while they wait for each other.

    Args:
        longest: longer side of the reference, pixels.

    Yields:
        The number of cores that may be used.
    """
    import torch

    before = torch.get_num_threads()
    cores = max(before, _cores.get())
    token = _cores.set(cores)
    if longest <= SMALL_PX or cores <= PAIR:
        set_threads(1)
    try:
        yield cores
    finally:
        set_threads(before)
        _cores.reset(token)


def set_threads(count: int) -> None:
    """Threads per operation of the calling thread.

    `torch.set_num_threads` sets them for this thread and for all threads that are yet to use torch. What the latter get
    is put back by a thread that is made for that.
    """
    import torch

    if count == torch.get_num_threads():
        return
    with _setting, ThreadPoolExecutor(1, "somareg-threads") as other:
        default = other.submit(torch.get_num_threads).result()
        torch.set_num_threads(count)
        other.submit(torch.set_num_threads, default).result()


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread per operation on any machine; the old number is restored afterwards.

    The operations on a tile are so small that threads mostly wait for each other, and the features of two would be in
    memory at once. Figures do not depend on the number of cores then: more threads add in another order.
    """
    import torch

    before = torch.get_num_threads()
    set_threads(1)
    try:
        yield
    finally:
        set_threads(before)


def wait_politely() -> None:
    """Let OpenMP's threads sleep soon while they wait for each other; call it before torch is imported.

    By default those of the GNU library spin for about a millisecond. On a computer that is busy otherwise the thread
    they wait for may not even have a core, and a registration took more than three times as long; on an idle one the
    difference is small. This acts on the whole process, so commands call it and library functions do not. The
    environment (`GOMP_SPINCOUNT`, `OMP_WAIT_POLICY`) has the last word.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _without_gradients(work: Callable[[], T]) -> Callable[[], T]:
    """Run the work in inference mode, which must be set in each thread."""
    import torch

    return torch.inference_mode()(work)
