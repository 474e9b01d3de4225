"""A real Dask cluster of two processes: the same figures as one process, workers that die, jobs that kill."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from typing import Any

import pytest

from somareg.errors import ClusterError
from somareg.jobs import dask as cluster
from somareg.jobs.dask import Dask
from tests.t07_jobs.work import check_every_job_once, check_only_the_killer_failed, facts, kill_if_one

psutil = pytest.importorskip("psutil")
distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(os.name == "nt", reason="POSIX signals")]


def blame_at_once(dask_scheduler: Any) -> None:
    dask_scheduler.allowed_failures = 0


def test_every_job_once_in_processes_of_one_thread(dask: Dask) -> None:
    check_every_job_once(dask)


def kept_bytes(x: int) -> int:
    """Growth of the process by a gigabyte that was used and freed."""
    before = psutil.Process().memory_info().rss
    blocks = [bytearray(8 << 20) for _ in range(16)]
    del blocks
    return psutil.Process().memory_info().rss - before


@pytest.mark.skipif(sys.platform != "linux", reason="GNU C library")
def test_workers_keep_memory_that_was_freed(dask: Dask) -> None:
    """Dask has them give it back at once, so that every tensor costs page faults again."""
    outcomes = dict(dask.run(kept_bytes, range(2)))
    assert min(o.result() for o in outcomes.values()) > 64 << 20
    assert max(o.result() for o in dict(dask.run(kept_bytes, range(4))).values()) < 16 << 20


def test_jobs_are_drawn_as_there_is_room(dask: Dask) -> None:
    drawn: list[int] = []
    running = dask.run(facts, (drawn.append(x) or x for x in range(1000)))
    next(running)
    assert len(drawn) <= 2 * dask.ahead + 1
    running.close()  # type: ignore[attr-defined]


def test_a_job_that_kills_is_recorded_and_its_neighbours_are_not(dask: Dask) -> None:
    dask.client.run_on_scheduler(blame_at_once)  # whoever lies beside the job that kills; else it takes twice as long
    outcomes = dict(dask.run(kill_if_one, range(6)))
    check_only_the_killer_failed(outcomes)


def test_nobody_waits_for_ever() -> None:
    refused = pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9")
    with refused, cluster.connect("tcp://127.0.0.1:9", timeout_s=0.5):
        pass
    with distributed.LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address=":0") as empty:
        with cluster.connect(empty.scheduler_address) as runner, pytest.raises(ClusterError, match="no worker for 1 s"):
            list(replace(runner, patience_s=1.0).run(facts, [1]))
        with cluster.connect(empty.scheduler_address) as runner:
            threading.Timer(0.5, lambda: empty.scale(1)).start()  # workers may come later
            [(_, outcome)] = runner.run(facts, [5])
            assert outcome.result()[0] == 25


def test_another_version_is_refused(dask: Dask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "__version__", "0.0.1")
    with pytest.raises(ClusterError, match=r"somareg is 0\.0\.1 here, .* has version "), cluster.connect(dask.client):
        pass
