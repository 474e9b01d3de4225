"""A batch on two processes, of a Dask cluster or of this machine: the same files as in one, although a worker dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import somareg
from somareg.batches import work
from somareg.jobs.dask import Dask
from somareg.soma.weights import store
from somareg.types import Grid
from tests.small_network import save_network, small_network
from tests.t65_register.conftest import REFERENCE, UTM, moving_grid, write_pair

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(os.name == "nt", reason="POSIX signals")]


def used() -> tuple[int, int, int]:
    """Of this process: weights loaded, weights found loaded, references decoded."""
    info = store._network.cache_info()
    return info.misses, info.hits, work.REFERENCES.reads


def _pairs(tmp_path: Path) -> tuple[list[Any], dict[str, Any]]:
    """Three pairs with one reference and one that does not exist, and options."""
    weights = save_network(small_network(), tmp_path / "small.safetensors")
    grid = Grid(128, 128, REFERENCE.transform, REFERENCE.crs)
    for number, shift in enumerate([(3.0, -2.0), (1.5, 2.0), (-2.5, 0.5)]):
        (tmp_path / str(number)).mkdir()
        write_pair(tmp_path / str(number), moving_grid(UTM, 10.0, grid), reference=grid, shift=shift)
    pairs: list[Any] = [(tmp_path / str(n) / "sar.tif", tmp_path / "0" / "optical.tif") for n in range(3)]
    pairs.insert(1, (tmp_path / "nowhere.tif", pairs[0][1]))
    return pairs, {"model": str(weights), "preset": "fast", "local": False, "search": "local"}


def test_batch_with_a_worker_killed_in_the_middle(dask: Dask, tmp_path: Path) -> None:
    pairs, options = _pairs(tmp_path)
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

    _check_same_as_one(tmp_path / "dask", pairs, options, tmp_path / "serial")


def test_batch_by_workers_with_one_killed_in_the_middle(tmp_path: Path) -> None:
    pairs, options = _pairs(tmp_path)
    victims: list[Any] = []

    def kill_one(stage: str, share: float) -> None:
        if share > 0 and not victims:
            victims.extend(each for each in multiprocessing.active_children() if each.name == "somareg worker")
            victims[0].kill()

    result = somareg.batch(pairs, tmp_path / "workers", workers=2, progress=kill_one, **options)
    assert len(victims) == 2
    assert result.counts["failed"] == 1
    _check_same_as_one(tmp_path / "workers", pairs, options, tmp_path / "serial")


def _check_same_as_one(folder: Path, pairs: list[Any], options: dict[str, Any], other_folder: Path) -> None:
    serial = somareg.batch(pairs, other_folder, **options)
    for name in ("summary.csv", "summary.json"):
        assert (folder / name).read_text() == (other_folder / name).read_text()
    for entry in serial.entries:
        if entry.status == "done":
            one, other = (place / entry.name / "displacement.tif" for place in (other_folder, folder))
            with rasterio.open(one) as a, rasterio.open(other) as b:
                np.testing.assert_array_equal(a.read(), b.read())
