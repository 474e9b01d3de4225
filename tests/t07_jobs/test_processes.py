"""Worker processes of this machine: the same figures as one process, workers that die, a parent that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from somareg.errors import ClusterError
from somareg.jobs import processes as module
from somareg.jobs.processes import Processes, processes
from somareg.runtime import budget
from tests.t07_jobs.work import check_every_job_once, check_only_the_killer_failed, facts, kill_if_one

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(os.name == "nt", reason="POSIX signals")]


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    with processes(2) as runner:
        yield runner


def test_every_job_once_in_processes_of_one_thread(two: Processes) -> None:
    environment = dict(os.environ)
    check_every_job_once(two)
    assert dict(os.environ) == environment


def test_the_same_workers_do_the_next_round(two: Processes) -> None:
    before = {each.process.pid for each in two.workers}
    assert len(list(two.run(facts, range(8)))) == 8
    assert {each.process.pid for each in two.workers} == before
    assert list(two.run(facts, [])) == []


def test_jobs_are_drawn_when_a_worker_takes_them(two: Processes) -> None:
    drawn: list[int] = []
    running = two.run(facts, (drawn.append(x) or x for x in range(1000)))
    next(running)
    assert len(drawn) <= 4
    running.close()  # type: ignore[attr-defined]
    assert sorted(dict(two.run(facts, [5, 6]))) == [0, 1]


def test_a_job_that_kills_is_recorded_and_its_neighbours_are_not(two: Processes) -> None:
    outcomes = dict(two.run(kill_if_one, range(6)))
    check_only_the_killer_failed(outcomes)
    assert len(two.workers) == 2


def test_a_job_whose_worker_was_killed_from_outside_is_done_again(two: Processes) -> None:
    running = two.run(slow, range(4))
    first = next(running)
    busy = [each for each in two.workers if each.job is not None]
    os.kill(busy[0].process.pid, signal.SIGKILL)
    outcomes = dict([first, *running])
    assert {i: o.value for i, o in outcomes.items()} == {i: i for i in range(4)}


def slow(number: int) -> int:
    time.sleep(0.3)
    return number


def a_lambda(x: int) -> Any:
    return lambda: x  # cannot be pickled


class Sealed:
    """Something that only this process can make."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _unseal, (os.getpid(),)


def _unseal(pid: int) -> Any:
    if pid != os.getpid():
        raise ValueError("sealed")
    return Sealed()


def is_sealed(job: Any) -> bool:
    return isinstance(job, Sealed)


def sealed(x: int) -> Sealed:
    return Sealed()


@pytest.mark.parametrize(
    ("function", "job", "kind"),
    [(a_lambda, 1, "AttributeError"), (is_sealed, Sealed(), "ValueError"), (sealed, 1, "ValueError")],
)
def test_what_cannot_be_sent_fails_alone(two: Processes, function: Any, job: Any, kind: str) -> None:
    before = {each.process.pid for each in two.workers}
    [(_, outcome)] = two.run(function, [job])
    assert outcome.failure is not None
    assert outcome.failure.kind in (kind, "PicklingError")
    assert {each.process.pid for each in two.workers} == before


def big(job: bytes) -> bytes:
    return job[::-1]


def test_more_than_a_pipe_holds(two: Processes) -> None:
    """Both sides write more than the pipe's buffer; neither may wait for the other."""
    jobs = [bytes([i]) * (4 << 20) for i in range(6)]
    assert {i: o.value for i, o in two.run(big, jobs)} == dict(enumerate(jobs))


def memory_share(x: int) -> int:
    return budget.allowed()


def test_workers_share_the_memory(two: Processes) -> None:
    here = budget.allowed()
    for _, outcome in two.run(memory_share, range(4)):
        assert outcome.result() == pytest.approx(here / 2, rel=0.2)


def tidy(folder: str) -> None:
    """A job that removes what it began when it is ended."""
    begun = Path(folder) / "begun"
    begun.touch()
    try:
        time.sleep(30)
    finally:
        begun.unlink()


def test_closing_ends_what_runs_and_lets_it_clean_up(tmp_path: Path) -> None:
    with processes(2) as runner:
        running = runner.run(tidy, [str(tmp_path)])
        threading.Thread(target=_close_when_begun, args=(tmp_path, runner)).start()
        outcomes = list(running)
    assert outcomes[0][1].failure is not None  # the job was ended twice, by hand, so it counts as one that kills
    assert not list(tmp_path.iterdir())


def _close_when_begun(folder: Path, runner: Processes) -> None:
    for _ in range(2):
        while not (folder / "begun").exists():
            time.sleep(0.02)
        [busy] = [each for each in runner.workers if each.job is not None]
        busy.process.terminate()
        while busy in runner.workers:
            time.sleep(0.02)


def test_a_failure_in_the_caller_ends_all_workers(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    with pytest.raises(KeyError), processes(2) as runner:
        for _ in runner.run(last_is_endless, [*map(str, folders), ""]):
            pids = [each.process.pid for each in runner.workers]
            raise KeyError
    assert runner.workers == []
    assert not any(_is_running(pid) for pid in pids)
    assert not [each for folder in folders for each in folder.iterdir()]


def last_is_endless(folder: str) -> None:
    if folder.endswith("b"):
        tidy(folder)


SCRIPT = """
    import os, sys, time
    from pathlib import Path
    from somareg.jobs.processes import processes

    def told(folder):
        (Path(folder) / str(os.getpid())).touch()
        time.sleep(60)

    def main():
        with processes(2) as runner:
            list(runner.run(told, [sys.argv[1]] * 2))

    if __name__ == "__main__":  # the function of the jobs is in here
        main()
"""


def _script(folder: Path) -> list[str]:
    path = folder / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return [sys.executable, str(path), str(folder / "told")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path: Path, number: int) -> None:
    told = tmp_path / "told"
    told.mkdir()
    parent = subprocess.Popen(_script(tmp_path), stderr=subprocess.DEVNULL)
    try:
        _wait_until(lambda: len(list(told.iterdir())) == 2)
    finally:
        parent.send_signal(number)
        parent.wait(20)
    _wait_until(lambda: not any(_is_running(int(each.name)) for each in told.iterdir()))


def _wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("way", ["file", "pipe"])
def test_workers_do_not_import_the_program_that_asks_for_them(tmp_path: Path, way: str) -> None:
    """No guard is needed, and a program that is read from a pipe has no file that could be imported."""
    text = textwrap.dedent("""
        from somareg.jobs.processes import processes

        print("started")
        with processes(2) as runner:
            print(len(list(runner.run(len, ["ab", "c"]))), "done")
    """)
    (tmp_path / "script.py").write_text(text)
    command = [sys.executable, "script.py"] if way == "file" else [sys.executable, "-"]
    done = subprocess.run(command, input=text, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["started", "2", "done"]


def test_a_worker_that_cannot_start_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_serve", os.getcwd)  # takes no arguments, so the process fails as it starts
    with processes(1) as runner, pytest.raises(ClusterError, match="ended as it started"):
        list(runner.run(facts, [1]))
