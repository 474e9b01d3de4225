"""Nothing but errors of somareg leaves a public function, whatever happens inside."""

from __future__ import annotations

import errno
import inspect
import json
import pickle
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import somareg
from somareg import errors
from somareg.batches import run, warps
from somareg.errors import (
    InternalError,
    MemoryLimitError,
    OutputError,
    ReadError,
    SomaregError,
    as_somareg_error,
    guarded,
)
from somareg.io import displacement, shifts
from somareg.register import api, apply, save, whole
from somareg.tiepoints import formats
from somareg.view import folder
from tests.t80_cli.conftest import Cli

DOORS: list[Callable[..., Any]] = [
    *(getattr(somareg, name) for name in somareg.__all__ if inspect.isfunction(getattr(somareg, name))),
    *(api.plan, run.planned, save.save, save.convert, folder.find_folder),
    *(displacement.read_estimate, shifts.read_shifts, shifts.export_shifts, formats.convert_tie_points),
]


def cholesky() -> None:
    torch.linalg.cholesky(-torch.eye(3))


def amax() -> None:
    torch.zeros(0).amax()


def no_room() -> None:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:116] DefaultCPUAllocator: can't allocate memory: you tried to")


def numpy_no_room() -> None:
    np.zeros(1 << 62)


def opencv() -> None:
    cv2.resize(np.zeros((0, 0), np.uint8), (5, 5))


def opencv_no_room() -> None:
    raise cv2.error("OpenCV(4.10) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9999 bytes")


def deep_json() -> None:
    json.loads("[" * 100_000)


def sqlite() -> None:
    sqlite3.connect(":memory:").execute("SELECT nothing FROM nowhere")


def files() -> None:
    raise OSError(errno.EMFILE, "Too many open files", "/data/a.tif")


def vanished() -> None:
    raise OSError(errno.ESTALE, "Stale file handle")


def several_lines() -> None:
    raise ValueError("one\ntwo\x1b[2J" + "x" * 5000)


def nothing_said() -> None:
    raise AssertionError


FAILURES: dict[Callable[[], None], type[SomaregError]] = {
    cholesky: InternalError,
    amax: InternalError,
    no_room: MemoryLimitError,
    numpy_no_room: MemoryLimitError,
    opencv: InternalError,
    opencv_no_room: MemoryLimitError,
    deep_json: InternalError,
    sqlite: InternalError,
    files: ReadError,
    vanished: ReadError,
    several_lines: InternalError,
    nothing_said: InternalError,
}


def test_the_doors_are_guarded() -> None:
    assert len(DOORS) >= 18
    for call in DOORS:
        assert hasattr(call, "__wrapped__"), call
        assert call.__doc__
        assert list(inspect.signature(call).parameters)[:1] != ["args"]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
def test_what_a_library_raises(failure: Callable[[], None]) -> None:
    with pytest.raises(FAILURES[failure]) as caught:
        guarded(failure)()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 700
    assert caught.value.__cause__ is not None
    again = pickle.loads(pickle.dumps(caught.value))  # a worker in another process sends it
    assert (type(again), str(again)) == (type(caught.value), message)
    if FAILURES[failure] is InternalError:
        assert "please report" in message
        assert type(caught.value.__cause__).__name__ in message
    if failure is files:
        assert "/data/a.tif" in message


@pytest.mark.parametrize("failure", [cholesky, amax, deep_json, numpy_no_room], ids=lambda failure: failure.__name__)
def test_through_every_door_of_a_registration(
    failure: Callable[[], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whether a pair is registered, assessed or written, and where it happens."""

    def fails(*_: Any, **__: Any) -> None:
        failure()

    rng = np.random.default_rng(0)
    pair = rng.random((96, 96)), rng.random((96, 96))
    monkeypatch.setattr(whole, "align", fails)
    for call in (api.register, api.assess):
        with pytest.raises(FAILURES[failure]):
            call(*pair, model="orientation")
    with pytest.raises(FAILURES[failure]):
        api.register_into(*pair, tmp_path / "out", model="orientation")
    monkeypatch.undo()
    result = api.register(*pair, model="orientation")
    monkeypatch.setattr(save, "write_tie_points", fails)
    monkeypatch.setattr(save, "apply", fails)
    with pytest.raises(FAILURES[failure]):
        result.save(tmp_path / "out")
    with pytest.raises(FAILURES[failure]):
        result.to_xarray(force=True)
    monkeypatch.setattr(apply, "apply", fails)
    with pytest.raises(FAILURES[failure]):
        api.warp(pair[0], result)
    assert list(tmp_path.iterdir()) == []


def test_through_the_doors_of_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*_: Any, **__: Any) -> None:
        amax()

    for module, name in ((run, "find_pairs"), (warps, "output_paths"), (warps, "_known")):
        monkeypatch.setattr(module, name, fails)
    with pytest.raises(InternalError):
        somareg.batch([("a.tif", "b.tif")], tmp_path / "out")
    with pytest.raises(InternalError):
        somareg.warp_many(["a.tif"], tmp_path, tmp_path / "out")


def test_the_place_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        amax()

    monkeypatch.setattr(whole, "align", fails)
    rng = np.random.default_rng(0)
    with pytest.raises(InternalError, match=r"register/whole\.py:\d+"):
        api.register(rng.random((96, 96)), rng.random((96, 96)), model="orientation")


class Cancelled(Exception):
    pass


@pytest.mark.parametrize("call", [api.register, api.assess])
def test_a_caller_stops_the_work_by_its_own_exception(call: Callable[..., Any]) -> None:
    def stop(stage: str, share: float) -> None:
        raise Cancelled(stage)

    rng = np.random.default_rng(0)
    with pytest.raises(Cancelled, match="reading"):
        call(rng.random((96, 96)), rng.random((96, 96)), progress=stop)


def test_a_caller_stops_in_the_last_step(tmp_path: Path) -> None:
    """Through several doors, and past handlers of the operating system's refusals."""
    rng = np.random.default_rng(0)
    for kind in (Cancelled, OSError, KeyError, OutputError):

        def stop(stage: str, share: float, kind: type[Exception] = kind) -> None:
            if stage == "writing report":
                raise kind(stage)

        with pytest.raises(kind, match="writing report"):
            api.register_into(
                rng.random((96, 96)), rng.random((96, 96)), tmp_path / "out", model="orientation", progress=stop
            )
        assert list(tmp_path.iterdir()) == []


def test_a_caller_interrupts() -> None:
    def stop(stage: str, share: float) -> None:
        raise KeyboardInterrupt

    rng = np.random.default_rng(0)
    with pytest.raises(KeyboardInterrupt):
        api.register(rng.random((96, 96)), rng.random((96, 96)), progress=stop)


def test_errors_of_the_family_stay_themselves() -> None:
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, SomaregError):
            one = kind(name)
            assert as_somareg_error(one) is one


def test_the_command_line_says_how_to_report(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*_: Any, **__: Any) -> None:
        amax()

    monkeypatch.setattr(api, "locate", fails)
    done = cli("assess", "a.tif", "b.tif")
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert "somareg doctor" in done.err
    assert "run with -v for the traceback" in done.err
    done = cli("assess", "a.tif", "b.tif", "--json", "-v")
    assert json.loads(done.out)["error"]["type"] == "InternalError"
    assert "Traceback" in done.err
    assert "amax" in done.err
