"""The runner for the options `workers` and `dask`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from somareg.errors import ConfigError
from somareg.jobs.one import Runner, Serial


@contextmanager
def open_runner(workers: int | None = None, dask: Any = None) -> Iterator[Runner]:
    """Open the runner for the two options; worker processes that it starts end with the context.

    Args:
        workers: processes of one thread each on this machine; None or 1 without `dask` is this process.
        dask: address of a Dask scheduler ("tcp://host:8786"); or a `distributed.Client` of yours, which stays
            open (extra `dask`).

    Raises:
        ConfigError: both, or fewer than one worker.
        UnsupportedError: `distributed` is not installed.
        ClusterError: there is no answer at the address, or its workers lack this version of somareg. While jobs run: a
            worker process ends as it starts.
    """
    if workers is not None and dask is not None:
        raise ConfigError("workers and dask exclude each other; give one of them")
    if workers is not None and workers < 1:
        raise ConfigError(f"{workers} workers are too few; give 1 or more")
    if dask is None and workers in (None, 1):
        yield Serial()
        return
    if workers is not None:
        from somareg.jobs.processes import processes

        with processes(workers) as runner:
            yield runner
        return
    from somareg.jobs.dask import connect  # Dask is an extra

    with connect(dask) as cluster:
        yield cluster
