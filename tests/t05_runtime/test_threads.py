"""The helper beside the caller: everything is done once, in order, and the threads are given back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
import torch

from somareg.runtime.threads import SMALL_PX, Helper, few_threads, helper, one_by_one, set_threads

T = TypeVar("T")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Two threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_later_runs_beside_the_caller_in_order() -> None:
    begun, done = threading.Event(), []

    def first() -> int:
        begun.wait(5)
        done.append("first")
        return threading.get_ident()

    with helper(CPU, 2) as beside:
        one, two = beside.submit(first), beside.submit(lambda: done.append("second"))
        begun.set()  # the caller goes on while the first waits
        assert one() != threading.get_ident()
        two()
    assert done == ["first", "second"]


def test_leaving_waits_for_what_was_started() -> None:
    finished = []
    with helper(CPU, 2) as beside:
        beside.submit(lambda: (time.sleep(0.05), finished.append(1)))
    assert finished == [1]


def test_over_keeps_the_order_and_does_each_once() -> None:
    seen: list[int] = []
    both = threading.Barrier(2, timeout=60)

    def double(number: int) -> int:
        if number < 2:  # passes only if two threads are at work
            both.wait()
        seen.append(number)
        return 2 * number

    with helper(CPU, 2) as beside:
        assert beside.over(double, list(range(40))) == [2 * i for i in range(40)]
    assert sorted(seen) == list(range(40))


def test_a_helper_that_is_busy_is_not_waited_for() -> None:
    release = threading.Event()
    with helper(CPU, 2) as beside:
        busy = beside.submit(lambda: release.wait(60))
        assert beside.over(lambda i: i + 1, [1, 2, 3]) == [2, 3, 4]
        release.set()
        assert busy()


@pytest.mark.parametrize("failing", [0, 5, 11])
def test_failures_reach_the_caller(failing: int) -> None:
    def picky(number: int) -> int:
        time.sleep(0.002)
        if number == failing:
            raise ValueError(f"no {number}")
        return number

    with pytest.raises(ValueError, match=f"no {failing}"), helper(CPU, 2) as beside:
        beside.over(picky, list(range(12)))
    with helper(CPU, 2) as beside:
        result = beside.submit(lambda: picky(failing))
        with pytest.raises(ValueError, match="no"):
            result()


def test_work_is_done_without_gradients() -> None:
    weight = torch.ones(3, requires_grad=True)
    with torch.inference_mode(), helper(CPU, 2) as beside:
        assert not beside.submit(lambda: weight * 2)().requires_grad
        assert not any(part.requires_grad for part in beside.over(lambda i: weight * i, [1, 2, 3, 4]))


@pytest.mark.parametrize(("cores", "own", "others"), [(2, 1, 1), (5, 3, 2)])
def test_cores_are_shared_and_given_back(cores: int, own: int, others: int) -> None:
    torch.set_num_threads(cores)
    with helper(CPU, cores) as beside:
        assert torch.get_num_threads() == own
        assert beside.submit(torch.get_num_threads)() == others
        raised = beside.submit(lambda: 1 / 0)
    assert torch.get_num_threads() == cores
    with pytest.raises(ZeroDivisionError):
        raised()
    with pytest.raises(KeyError), helper(CPU, cores):
        raise KeyError
    assert torch.get_num_threads() == cores


@pytest.mark.parametrize("alone", [(CPU, 1), (torch.device("cuda"), 8)])
def test_without_a_second_core_work_is_done_when_it_is_asked_for(alone: tuple[torch.device, int]) -> None:
    calls: list[int] = []
    with helper(*alone) as beside:
        assert beside.executor is None
        result = beside.submit(lambda: calls.append(1) or threading.get_ident())
        assert calls == []
        assert result() == result() == threading.get_ident()
        assert calls == [1]
        assert beside.over(lambda i: i * i, [1, 2, 3]) == one_by_one(lambda i: i * i, [1, 2, 3]) == [1, 4, 9]
    assert Helper(None).over(str, []) == []


def elsewhere(work: Callable[[], T]) -> T:
    """The work in a thread that is made for it."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()


def test_small_images_take_one_thread_per_operation_and_leave_the_cores() -> None:
    torch.set_num_threads(5)
    with few_threads(SMALL_PX) as cores:
        assert (torch.get_num_threads(), cores) == (1, 5)
    with few_threads(SMALL_PX + 1) as cores:
        assert (torch.get_num_threads(), cores) == (5, 5)
    assert torch.get_num_threads() == 5


@pytest.mark.parametrize("inner", [SMALL_PX, SMALL_PX + 1])
def test_two_cores_are_for_the_caller_and_its_helper_whatever_the_size(inner: int) -> None:
    with few_threads() as cores:
        assert (torch.get_num_threads(), cores) == (1, 2)
        with few_threads(inner) as known, helper(CPU, 1) as beside:
            assert (torch.get_num_threads(), known) == (1, 2)
            assert beside.submit(torch.get_num_threads)() == 1
            assert beside.submit(threading.get_ident)() != threading.get_ident()
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_threads_are_those_of_the_caller_alone() -> None:
    assert elsewhere(torch.get_num_threads) == 2
    with few_threads(), helper(CPU, 2) as beside:
        assert torch.get_num_threads() == 1 == beside.submit(torch.get_num_threads)()
        assert elsewhere(torch.get_num_threads) == 2
    set_threads(3)
    assert (torch.get_num_threads(), elsewhere(torch.get_num_threads)) == (3, 2)


@pytest.mark.parametrize("failing", [False, True])
def test_calls_that_overlap_leave_every_number_as_it_was(failing: bool) -> None:
    """The second begins while the first is at work and ends after it; that number is not the usual one."""
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))
    after: dict[str, int] = {}

    def call(name: str, begin: threading.Event, begun: threading.Event, end: threading.Event) -> None:
        begin.wait(5)
        with contextlib.suppress(KeyError), few_threads() as cores, helper(CPU, cores):
            after[f"{name}, cores"] = cores
            begun.set()
            end.wait(5)
            if failing:
                raise KeyError
        after[name] = torch.get_num_threads()
        first_is_out.set()

    now = threading.Event()
    now.set()
    with ThreadPoolExecutor(2) as executor:
        done = [
            executor.submit(call, "first", now, first_is_in, second_is_in),
            executor.submit(call, "second", first_is_in, second_is_in, first_is_out),
        ]
        for each in done:
            each.result()
    assert after == dict.fromkeys(("first", "second", "first, cores", "second, cores"), 2)
    assert elsewhere(torch.get_num_threads) == 2
