"""The tiles of a scene on two processes: the same figures as in one, also when one of them is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from somareg.jobs.dask import Dask
from somareg.types import Result
from tests.t64_tiles.conftest import Pair, run

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(os.name == "nt", reason="POSIX signals")]


# Workers have one thread; more of them add in another order, which shows in the last bits.
@pytest.mark.usefixtures("no_page", "one_thread")
def test_same_files_with_a_worker_killed_in_the_middle(dask: Dask, small: Pair, tmp_path: Path) -> None:
    serial = run(small.moving, small.reference, tmp_path / "serial")
    before = set(dask.client.run(os.getpid).values())
    victim, told = min(before), []

    def kill_one(stage: str, share: float) -> None:
        told.append(stage)
        if stage == "tile 2/9":  # the other seven are given out already
            os.kill(victim, signal.SIGKILL)

    found = run(small.moving, small.reference, tmp_path / "dask", dask=dask.client, progress=kill_one)
    assert len(before) == 2
    assert "tile 2/9" in told
    assert victim not in dask.client.run(os.getpid).values()
    _check_same(found, tmp_path / "dask", serial, tmp_path / "serial")


@pytest.mark.usefixtures("no_page", "one_thread")
def test_same_files_by_workers_with_one_killed_in_the_middle(small: Pair, tmp_path: Path) -> None:
    serial = run(small.moving, small.reference, tmp_path / "serial")
    victims: list[Any] = []

    def kill_one(stage: str, share: float) -> None:
        if stage == "tile 2/9":
            victims.extend(each for each in multiprocessing.active_children() if each.name == "somareg worker")
            victims[0].kill()

    found = run(small.moving, small.reference, tmp_path / "workers", workers=2, progress=kill_one)
    assert len(victims) == 2
    _check_same(found, tmp_path / "workers", serial, tmp_path / "serial")


def _check_same(found: Result, here: Path, serial: Result, there: Path) -> None:
    assert {tile.status for tile in found.tiles} == {"matched"}
    assert found.quality == serial.quality
    assert found.verdict == serial.verdict
    for name in ("tie_points.geojson", "gcps.points", "displacement.tif", "aligned.tif"):
        assert (here / name).read_bytes() == (there / name).read_bytes(), name
