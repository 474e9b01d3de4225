"""One run at a time in a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from somareg.errors import OutputError
from somareg.io.lock import LOCK_NAME, folder_lock


def test_lock_keeps_a_second_run_out_and_leaves_nothing(tmp_path: Path) -> None:
    busy = pytest.raises(OutputError, match=f"in use by another run .process {os.getpid()} ")
    with folder_lock(tmp_path / "out"), busy, folder_lock(tmp_path / "out"):
        pass
    with folder_lock(tmp_path / "out"):
        assert [p.name for p in (tmp_path / "out").iterdir()] == [LOCK_NAME]
    assert not any((tmp_path / "out").iterdir())
