"""A run that is killed, wherever that is, leaves the earlier result or the new one, whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from somareg.errors import OutputError
from somareg.io import leftovers, swap
from somareg.io.atomic import check_writable, output_folder
from somareg.report import OWNED
from tests.t80_cli.conftest import Cli
from tests.t90_security.conftest import tree

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="ends child processes half-way")


def test_a_kill_at_every_step_of_a_write(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("crash.py"), tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *wrong, count = json.loads(done.stdout)
    assert not wrong, wrong[:5]
    assert int(count.split()[0]) > 500


def killed_between_renames(out: Path, allowed: int) -> None:
    """Replace the files in a folder, and die after so many renames."""
    code = """
import os, sys
from pathlib import Path
from somareg.io.atomic import output_folder
left = [int(sys.argv[2])]
def hook(event, arguments):
    if event == "os.rename":
        if not left[0]: os._exit(9)
        left[0] -= 1
sys.addaudithook(hook)
with output_folder(sys.argv[1], overwrite=True, owned=("report.json", "aligned.tif", "item.json")) as part:
    for name in ("report.json", "aligned.tif"): (part / name).write_text("new")
"""
    assert subprocess.run([sys.executable, "-c", code, str(out), str(allowed)], check=False).returncode == 9


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A folder with an earlier result and a file of the user's."""
    out = tmp_path / "out"
    out.mkdir()
    for name in ("report.json", "aligned.tif", "item.json", "mine.txt"):
        (out / name).write_text(f"old {name}")
    return out


@pytest.mark.parametrize("renames", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("command", ["refused", "missing input", "usage"])
def test_a_command_that_fails_brings_the_earlier_result_back(
    cli: Cli, earlier: Path, tmp_path: Path, renames: int, command: str
) -> None:
    killed_between_renames(earlier, renames)
    arguments = {
        "refused": ["register", "a.tif", "b.tif", "-o", earlier],
        "missing input": ["register", tmp_path / "none.tif", tmp_path / "none.tif", "-o", earlier, "--overwrite"],
        "usage": ["register", "a.tif", "b.tif", "-o", earlier, "--overwrite", "--preset", "base"],
    }[command]
    assert cli(*arguments).code == 1
    assert {p.name: p.read_text() for p in earlier.iterdir()} == {
        name: f"old {name}" for name in ("report.json", "aligned.tif", "item.json", "mine.txt")
    }


def test_another_container_s_kill_is_undone(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its host and process numbers mean nothing here; that the folder can be locked says that nobody is at it."""
    killed_between_renames(earlier, 3)
    monkeypatch.setattr(leftovers, "_HOST", "0badc0de")
    with pytest.raises(OutputError, match="not empty"):
        check_writable(earlier)
    assert {p.read_text()[:4] for p in earlier.iterdir()} == {"old "}


def test_what_a_person_has_put_there_since_is_left_alone(earlier: Path) -> None:
    killed_between_renames(earlier, 2)  # aligned.tif and item.json are put aside
    (earlier / "item.json").write_text("a person's")
    for _ in range(2):
        with pytest.raises(OutputError, match=r"item\.json stands in the place of an earlier file"):
            check_writable(earlier, overwrite=True)
        assert (earlier / "item.json").read_text() == "a person's"
    (earlier / "item.json").unlink()
    check_writable(earlier, overwrite=True)
    assert (earlier / "item.json").read_text() == "old item.json"


def test_a_list_from_a_stranger_takes_nothing_away(tmp_path: Path) -> None:
    """A folder may come from somebody else, with what looks like a replacement that was killed."""
    out = tmp_path / "out"
    part = out / f".somareg-{leftovers._HOST}-999999999-{'0a' * 8}.part"
    (part / swap.ASIDE).mkdir(parents=True)
    for name in ("thesis.docx", "../precious"):
        (out / name).write_text("years of work")
    for folder in ("..", "../..", "../../out", str(tmp_path)):
        part.mkdir(exist_ok=True)
        (part / swap.ASIDE).mkdir(exist_ok=True)
        fresh = {"thesis.docx": 1, "../precious": (tmp_path / "precious").stat().st_ino}
        (part / swap.LIST).write_text(json.dumps({"folder": folder, "fresh": fresh}))
        check_writable(out, overwrite=True)
        assert tree(tmp_path) == {"out": -1, "out/thesis.docx": 13, "precious": 13}


def test_a_failure_that_cannot_be_undone_now_is_undone_later(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Path.rename

    def broken(self: Path, target: Path) -> Path:
        if self.name == "report.json" and swap.ASIDE not in Path(target).parts:
            raise OSError(5, "Input/output error")
        return plain(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with (
        pytest.raises(OutputError, match="Input/output error"),
        output_folder(earlier, overwrite=True, owned=OWNED) as part,
    ):
        (part / "report.json").write_text("new")
    assert not (earlier / "report.json").exists()
    monkeypatch.undo()
    monkeypatch.setattr(leftovers, "_RUN", "00000000")  # of a process that has ended
    check_writable(earlier, overwrite=True)
    assert {p.read_text()[:4] for p in earlier.iterdir()} == {"old "}


REPLACING = """
import sys
from somareg.io.atomic import output_folder
while True:
    for text in ("new", "newer"):
        with output_folder(sys.argv[1], overwrite=True, owned=("a", "b", "c")) as part:
            for name in ("a", "b", "c"): (part / name).write_text(text)
        print(text, flush=True)
"""


def test_kills_at_any_time(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for delay in range(12):
        command = [sys.executable, "-c", REPLACING, str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "new\n"
            time.sleep(0.0007 * delay)
            child.send_signal(signal.SIGKILL)
        check_writable(out, overwrite=True)
        found = {p.name: p.read_text() for p in out.iterdir()}
        assert set(found) == {"a", "b", "c"}
        assert len(set(found.values())) == 1, found
        shutil.rmtree(out)
    assert tree(tmp_path) == {}
