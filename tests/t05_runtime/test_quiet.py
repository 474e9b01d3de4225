"""Warnings are silenced for a moment, also where two threads do so at once."""

from __future__ import annotations

import threading
import warnings

import pytest

from somareg.runtime.quiet import without


class Odd(UserWarning):
    """A category of its own."""


def test_only_the_category_is_silent_and_only_inside() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with without(Odd):
            warnings.warn("not told", Odd, stacklevel=1)
            warnings.warn("told", UserWarning, stacklevel=1)
            with without(Odd):  # the same thread goes in again
                warnings.warn("not told", Odd, stacklevel=1)
        warnings.warn("told after", Odd, stacklevel=1)
    assert [str(each.message) for each in shown] == ["told", "told after"]


def test_two_threads_leave_the_filters_as_they_were() -> None:
    """Entered and left crosswise, `warnings.catch_warnings` would leave the first one's filter in force."""
    before = list(warnings.filters)
    first_is_in, second_begins = threading.Event(), threading.Event()

    def first() -> None:
        with without(Odd):
            first_is_in.set()
            second_begins.wait(5)

    def second() -> None:
        first_is_in.wait(5)
        second_begins.set()
        with without(DeprecationWarning), pytest.raises(KeyError), without(Odd):
            raise KeyError

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
