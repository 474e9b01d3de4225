"""Work that need not wait for the search, done beside it: the search's many small steps leave a second core idle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")


class Later(Protocol):
    """Takes work and gives a call for its result."""

    def __call__(self, work: Callable[[], T], /) -> Callable[[], T]: ...


def at_once(work: Callable[[], T]) -> Callable[[], T]:
    """Do the work now."""
    result = work()
    return lambda: result


@contextmanager
def ahead(device: torch.device) -> Iterator[Later]:
    """Share torch's threads between the caller and one helper that works in the background.

    On leaving, the helper's work is done and the caller has all the threads again. On a graphics card, or with one
    thread only, the work is done when its result is asked for.

    Args:
        device: where the work is done.
    """
    threads = torch.get_num_threads()
    if threads < 2 or device.type != "cpu":
        yield cache
        return
    half = threads // 2
    torch.set_num_threads(threads - half)
    try:
        with ThreadPoolExecutor(1, "ahead", torch.set_num_threads, (half,)) as helper:
            yield lambda work: helper.submit(torch.inference_mode()(work)).result
    finally:
        torch.set_num_threads(threads)
