"""Jobs in this process: what a job raises is recorded, and the options choose the runner."""

from __future__ import annotations

from typing import Any

import pytest

from somareg.errors import ConfigError, JobError, ReadError
from somareg.jobs.one import Serial
from somareg.jobs.runner import open_runner


def reciprocal(x: float) -> float:
    return 1 / x


def refuse(x: float) -> float:
    raise ReadError(f"{x}: damaged")


def test_serial_runner_records_what_a_job_raises_and_goes_on() -> None:
    drawn: list[float] = []

    def jobs() -> Any:
        for x in (2.0, 0.0, 4.0):
            drawn.append(x)
            yield x

    outcomes = {}
    for index, outcome in Serial().run(reciprocal, jobs()):
        assert len(drawn) == index + 1  # a job is drawn when it starts
        outcomes[index] = outcome
    assert [outcomes[0].result(), outcomes[2].result()] == [0.5, 0.25]
    assert outcomes[1].failure is not None
    assert outcomes[1].failure.kind == "ZeroDivisionError"
    assert "reciprocal" in outcomes[1].failure.trace
    with pytest.raises(JobError, match=r"ZeroDivisionError: .*division by zero"):
        outcomes[1].result()
    [(_, refused)] = Serial().run(refuse, [1.0])
    with pytest.raises(ReadError, match=r"1\.0: damaged"):
        refused.result()


def test_runner_options_contradict() -> None:
    with pytest.raises(ConfigError, match="one of them"), open_runner(2, "tcp://a:1"):
        pass
    with pytest.raises(ConfigError, match="1 or more"), open_runner(0):
        pass
    with open_runner(1) as runner:
        assert isinstance(runner, Serial)
