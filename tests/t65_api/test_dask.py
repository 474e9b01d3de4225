"""A real Dask cluster of two processes: the same figures as one process, workers that die, jobs that kill."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import somareg
from somareg import cluster
from somareg.batches import work
from somareg.errors import ClusterError, ReadError
from somareg.jobs import Serial
from somareg.matching.weights import store
from somareg.types import Grid
from tests.small_network import save_network, small_network
from tests.t65_api.conftest import REFERENCE, UTM, moving_grid, write_pair

distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(os.name == "nt", reason="POSIX signals")]


@pytest.fixture(scope="module")
def dask() -> Iterator[cluster.Dask]:
    with cluster.local_cluster(2) as runner:
        yield runner


def facts(x: int) -> tuple[int, int, str | None]:
    if x == 3:
        raise ReadError("3.tif: damaged")
    return x * x, os.getpid(), os.environ.get("OMP_NUM_THREADS")


def kill_if_one(number: int) -> int:
    """Job 1 kills whoever does it; the others take their time."""
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return number


def blame_at_once(dask_scheduler: Any) -> None:
    dask_scheduler.allowed_failures = 0


def used() -> tuple[int, int, int]:
    """Of this process: weights loaded, weights found loaded, references decoded."""
    info = store._network.cache_info()
    return info.misses, info.hits, work.REFERENCES.reads


def test_every_job_once_in_processes_of_one_thread(dask: cluster.Dask) -> None:
    drawn: list[int] = []

    def jobs() -> Iterator[int]:
        for x in range(40):
            drawn.append(x)
            yield x

    outcomes = dict(dask.run(facts, jobs()))
    assert sorted(outcomes) == drawn == list(range(40))
    serial = dict(Serial().run(facts, range(40)))
    assert outcomes[3].failure is not None
    assert serial[3].failure is not None
    assert outcomes[3].failure.message == serial[3].failure.message
    with pytest.raises(ReadError, match="damaged"):
        outcomes[3].result()
    del outcomes[3], serial[3]
    assert [outcomes[i].result()[0] for i in outcomes] == [i * i for i in outcomes]
    assert {o.result()[2] for o in outcomes.values()} == {"1"}
    pids = {o.result()[1] for o in outcomes.values()}
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_jobs_are_drawn_as_there_is_room(dask: cluster.Dask) -> None:
    drawn: list[int] = []
    running = dask.run(facts, (drawn.append(x) or x for x in range(1000)))
    next(running)
    assert len(drawn) <= 2 * dask.ahead + 1
    running.close()  # type: ignore[attr-defined]


def test_batch_with_a_worker_killed_in_the_middle(dask: cluster.Dask, tmp_path: Path) -> None:
    weights = save_network(small_network(), tmp_path / "small.safetensors")
    grid = Grid(128, 128, REFERENCE.transform, REFERENCE.crs)
    for number, shift in enumerate([(3.0, -2.0), (1.5, 2.0), (-2.5, 0.5)]):
        (tmp_path / str(number)).mkdir()
        write_pair(tmp_path / str(number), moving_grid(UTM, 10.0, grid), reference=grid, shift=shift)
    pairs: list[Any] = [(tmp_path / str(n) / "sar.tif", tmp_path / "0" / "optical.tif") for n in range(3)]
    pairs.insert(1, (tmp_path / "nowhere.tif", pairs[0][1]))
    options = {"model": str(weights), "preset": "fast", "local": False, "search": "local"}
    victims = list(dask.client.run(os.getpid).values())
    killed: list[int] = []

    def kill_one(stage: str, share: float) -> None:
        if share > 0 and not killed:
            killed.append(victims[0])
            os.kill(victims[0], signal.SIGKILL)

    result = somareg.batch(pairs, tmp_path / "dask", dask=dask.client, progress=kill_one, **options)
    assert killed
    assert result.counts["failed"] == 1
    # Weights and the reference of the series are read once per process.
    counts = dask.client.run(used)
    assert sum(hits + misses for misses, hits, _ in counts.values()) >= 2
    assert all(misses <= 1 and reads <= 1 for misses, _, reads in counts.values())

    serial = somareg.batch(pairs, tmp_path / "serial", **options)
    for name in ("summary.csv", "summary.json"):
        assert (tmp_path / "dask" / name).read_text() == (tmp_path / "serial" / name).read_text()
    for entry in serial.entries:
        if entry.status == "done":
            one, other = (tmp_path / kind / entry.name / "displacement.tif" for kind in ("serial", "dask"))
            with rasterio.open(one) as a, rasterio.open(other) as b:
                np.testing.assert_array_equal(a.read(), b.read())


def test_a_job_that_kills_is_recorded_and_its_neighbours_are_not(dask: cluster.Dask) -> None:
    dask.client.run_on_scheduler(blame_at_once)  # whoever lies beside the job that kills; else it takes twice as long
    outcomes = dict(dask.run(kill_if_one, range(6)))
    assert sorted(outcomes) == list(range(6))
    assert [outcomes[i].value for i in (0, 2, 3, 4, 5)] == [0, 2, 3, 4, 5]
    failure = outcomes[1].failure
    assert failure is not None
    assert failure.kind == "KilledWorker"
    assert "more memory" in failure.message


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


def test_another_version_is_refused(dask: cluster.Dask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "__version__", "0.0.1")
    with pytest.raises(ClusterError, match=r"somareg is 0\.0\.1 here, .* has version "), cluster.connect(dask.client):
        pass
