"""One run at a time in a folder, whether it is there or not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from somareg.errors import OutputError
from somareg.io import lock
from somareg.io.atomic import atomic_path, output_folder, write_text
from somareg.io.lock import LOCK_NAME, folder_lock
from tests.t90_security.conftest import tree


@pytest.mark.parametrize("place", ["out", "deep/er/out", "o" * 240])
@pytest.mark.parametrize("is_there", [False, True])
def test_lock_keeps_a_second_run_out_and_leaves_nothing(tmp_path: Path, place: str, is_there: bool) -> None:
    folder = tmp_path / place
    if is_there:
        folder.mkdir(parents=True)
    before = tree(tmp_path)
    busy = pytest.raises(OutputError, match=f"in use by another run .process {os.getpid()} ")
    with folder_lock(folder), busy, folder_lock(folder):
        pass
    with folder_lock(folder):
        assert folder.exists() == is_there
    assert tree(tmp_path) == before


def test_a_folder_that_appears_meanwhile_is_held_too(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with folder_lock(out) as held:
        out.mkdir()
        held.settle()
        assert [path.name for path in out.iterdir()] == [LOCK_NAME]
        with pytest.raises(OutputError, match="in use"), folder_lock(out):
            pass
    assert tree(tmp_path) == {"out": -1}


def test_neighbours_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with folder_lock(tmp_path / "a"), folder_lock(tmp_path / "b"), folder_lock(tmp_path):
        pass


def test_a_lock_of_a_killed_run_holds_nobody(tmp_path: Path) -> None:
    code = "import os, sys; from somareg.io.lock import folder_lock\nwith folder_lock(sys.argv[1]): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False).returncode == 9
    assert len(tree(tmp_path)) == 1
    with folder_lock(tmp_path / "out"):
        pass
    assert tree(tmp_path) == {}


def test_a_lock_of_another_process_is_named_until_that_process_dies(tmp_path: Path) -> None:
    code = (
        "import sys; from somareg.io.lock import folder_lock\n"
        "with folder_lock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        for _ in range(2):  # who is refused leaves the owner's name as it was
            with pytest.raises(OutputError, match=rf"process {other.pid} on "), folder_lock(tmp_path / "out"):
                pass
        other.kill()
        other.wait()
    with folder_lock(tmp_path / "out"):
        pass
    assert tree(tmp_path) == {}


def test_two_runs_into_one_new_folder(tmp_path: Path) -> None:
    """The second is told before it does anything, and the first one's result is there."""
    out = tmp_path / "out"
    with output_folder(out) as first:
        (first / "a").write_text("first")
        with pytest.raises(OutputError, match="in use"), output_folder(out):
            pass
    assert (out / "a").read_text() == "first"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_somebody_makes_meanwhile_is_not_replaced(tmp_path: Path, overwrite: bool) -> None:
    out = tmp_path / "out"

    def run() -> None:
        with output_folder(out, overwrite=overwrite, owned=("a", "b")) as part:
            (part / "a").write_text("mine")
            out.mkdir()
            (out / "a").write_text("theirs")
            (out / "c").write_text("theirs")

    if overwrite:
        run()
        assert {path.name: path.read_text() for path in out.iterdir()} == {"a": "mine", "c": "theirs"}
    else:
        with pytest.raises(OutputError, match="not empty"):
            run()
        assert {path.name: path.read_text() for path in out.iterdir()} == {"a": "theirs", "c": "theirs"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_runs_into_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def race() -> None:
        with atomic_path(tmp_path / "a.txt") as slow:
            slow.write_text("slow")
            write_text(tmp_path / "a.txt", "quick")

    with pytest.raises(OutputError, match=r"a\.txt exists"):
        race()
    assert (tmp_path / "a.txt").read_text() == "quick"
    (tmp_path / "a.txt").unlink()

    def no_links(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not here")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(OutputError, match=r"a\.txt exists"):
        race()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "quick"}


def test_a_disk_without_locks_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import fcntl

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with output_folder(tmp_path / "out") as part:
        (part / "a").write_text("1")
    assert "has no file locks" in caplog.text
    assert tree(tmp_path) == {"out": -1, "out/a": 1}


@pytest.mark.parametrize("kind", ["link", "file", "pipe"])
def test_a_stranger_s_lock_harms_no_file(tmp_path: Path, kind: str) -> None:
    """A folder may come from a stranger, with a "lock" in it that is something else."""
    out, precious = tmp_path / "out", tmp_path / "precious"
    out.mkdir()
    precious.write_text("years of work")
    if kind == "link":
        (out / LOCK_NAME).symlink_to(precious)
    elif kind == "file":
        os.link(precious, out / LOCK_NAME)
    else:
        os.mkfifo(out / LOCK_NAME)
    with pytest.raises(OutputError, match=LOCK_NAME), output_folder(out, overwrite=True):
        pass
    assert precious.read_text() == "years of work"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, where nobody can make a file")
def test_a_place_where_no_lock_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="/proc/somareg"), folder_lock("/proc/somareg"):
        pass
    assert lock._TRIES < 100
