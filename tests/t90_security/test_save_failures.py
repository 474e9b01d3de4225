"""`Result.save` while the disk refuses, at every operation in turn: the earlier result or the new one, whole."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import somareg
from somareg.io.atomic import check_writable
from somareg.io.lock import LOCK_NAME
from somareg.register import save as saving
from somareg.report import OWNED
from somareg.types import Result
from tests.t90_security.boxed import boxed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform != "linux", reason="works in child processes")

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree"}
ERRORS = {"full": errno.ENOSPC, "broken": errno.EIO, "forbidden": errno.EACCES}


@pytest.fixture(scope="module")
def results() -> Iterator[tuple[Result, Result]]:
    """Two results that differ in what they write; pages that take long are short."""
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 255, (20, 20)), np.ones((6, 6))).astype(np.uint8)
    options: Any = {"moving_modality": "optical", "model": "orientation", "preset": "fast", "local": False}
    first, second = (somareg.register(image[at:, at:], image[at:, :-at], **options) for at in (2, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "write_report", short_report)
        yield first, second


def short_report(result: Result, place: Path, *_: object, **__: object) -> None:
    for name in ("report.json", "report.html"):
        (place / name).write_text(f"{result.settings} {result.quality.predicted_rmse_px} {result.reference.grid}")


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
        if path.name != LOCK_NAME
    }


def refusing(
    work: Callable[[], object], below: Path, point: int, number: int, *, lasting: bool
) -> Callable[[], object]:
    """The work, with an operation below a folder refused; `lasting`: and all that follow."""

    def run() -> None:
        count = 0

        def strike() -> None:
            nonlocal count
            count += 1
            if count == point or (lasting and count > point):
                raise OSError(number, os.strerror(number))

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event in EVENTS and any(str(below) in os.fsdecode(each) for each in arguments if isinstance(each, str)):
                strike()

        plain = os.fsync

        def fsync(handle: int) -> None:
            strike()
            plain(handle)

        os.fsync = fsync
        sys.addaudithook(hook)
        work()
        if count >= point:
            raise SystemExit("went on")  # told apart from a save that had fewer operations

    return run


def points(lasting: bool) -> Iterator[int]:
    """Operations that are refused: the first ones and every third after them, all with `SOMAREG_FUZZ_ALL` set."""
    every = 1 if os.environ.get("SOMAREG_FUZZ_ALL") else 3
    yield from range(1, 8)
    yield from range(8 + lasting, 400, every)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_a_disk_that_refuses(results: tuple[Result, Result], tmp_path: Path, lasting: bool) -> None:
    old, new = results
    kept = tmp_path / "kept"
    for name, result in (("old", old), ("new", new)):
        result.save(kept / name, force=True)
        (kept / name / "mine.txt").write_text("mine")
    whole = [content(kept / name) for name in ("old", "new")]
    assert whole[0] != whole[1]
    out, tried = tmp_path / "out", 0
    for point in points(lasting):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(kept / "old", out)
        number = list(ERRORS.values())[point % len(ERRORS)]
        end = boxed(refusing(lambda: new.save(out, overwrite=True, force=True), out, point, number, lasting=lasting))
        assert not end.is_fault or end.kind == "SystemExit", (point, end)
        if end.kind == "done":
            break
        tried += 1
        check_writable(out, overwrite=True, owned=OWNED)  # what the next command does first
        found = content(out)
        assert found in whole, (point, end, sorted(found))
        if end.kind == "SystemExit":  # of what it did not need
            assert found == whole[1], (point, end)
    assert content(out) == whole[1]
    assert tried > 15
