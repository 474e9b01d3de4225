"""Jobs that every runner with processes must cope with, and what must come of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from typing import Any

import pytest

from somareg.errors import ReadError
from somareg.jobs.one import Outcome, Runner, Serial

COUNT = 40


def facts(x: int) -> tuple[int, int, str | None]:
    if x == 3:
        raise ReadError("3.tif: damaged")
    time.sleep(0.01)
    return x * x, os.getpid(), os.environ.get("OMP_NUM_THREADS")


def kill_if_one(number: int) -> int:
    """Job 1 kills whoever does it; the others take their time."""
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return number


def check_every_job_once(runner: Runner) -> None:
    """In two processes of one thread; a failure is what it is in this process."""
    drawn: list[int] = []
    outcomes = dict(runner.run(facts, (drawn.append(x) or x for x in range(COUNT))))
    assert sorted(outcomes) == drawn == list(range(COUNT))
    [(_, serial)] = Serial().run(facts, [3])
    failed = outcomes.pop(3)
    assert failed.failure is not None
    assert serial.failure is not None
    assert (failed.failure.kind, failed.failure.message) == (serial.failure.kind, serial.failure.message)
    assert "in facts" in failed.failure.trace
    with pytest.raises(ReadError, match="damaged"):
        failed.result()
    assert all(outcome.result()[0] == i * i for i, outcome in outcomes.items())
    assert {outcome.result()[2] for outcome in outcomes.values()} == {"1"}
    pids = {outcome.result()[1] for outcome in outcomes.values()}
    assert len(pids) == 2
    assert os.getpid() not in pids


def check_only_the_killer_failed(outcomes: Mapping[int, Outcome[Any]]) -> None:
    """Of six jobs of `kill_if_one`."""
    assert sorted(outcomes) == list(range(6))
    assert [outcomes[i].value for i in (0, 2, 3, 4, 5)] == [0, 2, 3, 4, 5]
    failure = outcomes[1].failure
    assert failure is not None
    assert failure.kind == "KilledWorker"
    assert "more memory" in failure.message
