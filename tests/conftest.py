"""For all tests: threads that wait must sleep.

By default the threads of OpenMP spin while they wait for each other. On a machine that does anything else at the same
time, small tensors then take twenty times longer. Set before torch is imported, and inherited by child processes.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small networks are quicker on one thread, and sums are the same in every run and in every process."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dask() -> Iterator[Any]:
    """The runner of a Dask cluster of two processes."""
    distributed = pytest.importorskip("distributed")
    from somareg.jobs.dask import connect

    options = {"threads_per_worker": 1, "dashboard_address": None, "scheduler_kwargs": {"allowed_failures": 1}}
    with (
        distributed.LocalCluster(n_workers=2, processes=True, **options) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
        connect(client) as runner,
    ):
        yield runner
