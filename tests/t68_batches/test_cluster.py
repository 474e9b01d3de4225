"""A scheduler and workers that were started by hand, as on a cluster: processes of their own, reached over TCP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import somareg
from tests.small_network import save_network, small_network
from tests.t65_register.conftest import REFERENCE, UTM, moving_grid, write_pair

pytest.importorskip("distributed")
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(os.name == "nt", reason="POSIX signals")]
LIMIT_S = 120


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """As docs/batch.md says: `dask scheduler`, then `dask worker` with one thread, twice."""
    folder = tmp_path_factory.mktemp("cluster")
    told = folder / "scheduler.json"
    paths = os.pathsep.join(filter(None, [str(Path(somareg.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    place = ("--scheduler-file", str(told), "--host", "127.0.0.1", "--no-dashboard")
    commands = [
        ("scheduler", "--port", "0", *place),
        *[("worker", "--nthreads", "1", "--local-directory", str(folder), *place)] * 2,
    ]
    started = []
    try:
        for words in commands:
            with (folder / f"log{len(started)}").open("w") as log:
                command = [sys.executable, "-m", "dask", *words]
                started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder))
        end = time.monotonic() + LIMIT_S
        while not told.is_file() or not told.read_text():
            assert time.monotonic() < end, (folder / "log0").read_text()
            time.sleep(0.1)
        yield json.loads(told.read_text())["address"]
    finally:
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            process.wait(LIMIT_S)


def test_a_batch_goes_to_the_workers_of_an_address(address: str, tmp_path: Path) -> None:
    from distributed import Client

    assert address.startswith("tcp://127.0.0.1:")
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=LIMIT_S)
        homes = set(client.run(os.getpid).values())
    assert len(homes) == 2
    assert os.getpid() not in homes
    weights = save_network(small_network(), tmp_path / "small.safetensors")
    pairs: list[Any] = []
    for number, shift in enumerate([(3.0, -2.0), (1.5, 2.0), (-2.5, 0.5)]):
        (tmp_path / str(number)).mkdir()
        made = write_pair(tmp_path / str(number), moving_grid(UTM, 10.0), shift=shift, seed=number)
        pairs.append((made.moving, made.reference))
    assert REFERENCE.crs == UTM
    options: dict[str, Any] = {"model": str(weights), "preset": "fast", "local": False, "search": "local"}
    before = dict(os.environ)
    there = somareg.batch(pairs, tmp_path / "there", dask=address, **options)
    here = somareg.batch(pairs, tmp_path / "here", **options)
    assert not there.counts.get("failed")
    assert (tmp_path / "there" / "summary.csv").read_text() == (tmp_path / "here" / "summary.csv").read_text()
    assert len(here.entries) == 3
    assert dict(os.environ) == before
