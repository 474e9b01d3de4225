"""The plugin as files: what it is made of, how it finds the command, how it runs it. Without QGIS."""

from __future__ import annotations

import ast
import configparser
import json
import os
import stat
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from somareg import __version__
from tests.t82_qgis.plugin_files import PLUGIN, ROOT, module

pytestmark = pytest.mark.skipif(not PLUGIN.is_dir(), reason="not in a checkout")

tool = module("qgis_plugin", ROOT / "tools") if PLUGIN.is_dir() else None
command: Any = module("command") if PLUGIN.is_dir() else None
process: Any = module("process") if PLUGIN.is_dir() else None
posix = pytest.mark.skipif(sys.platform == "win32", reason="process groups of POSIX")


def test_the_options_are_those_of_the_commands() -> None:
    assert tool and tool.OPTIONS.read_text(encoding="utf-8") == tool.options(), "run `make options`"


def test_parameters_and_flags_are_unique() -> None:
    own = {
        "register": {"MOVING", "REFERENCE", "OUTPUT", "OVERWRITE", "LOAD"},
        "warp": {"RASTER", "ESTIMATE", "OUTPUT"},
        "assess": {"MOVING", "REFERENCE"},
        "batch": {"PAIRS", "MOVING", "REFERENCE", "OUTPUT", "OVERWRITE", "LOAD"},
    }
    table = json.loads((PLUGIN / "options.json").read_text(encoding="utf-8"))
    assert table.keys() == own.keys()
    for name, content in table.items():
        names = [option["name"].upper() for option in content["options"]]
        assert len(set(names)) == len(names) > 10 and not set(names) & own[name]
        assert all(option["default"] in option["choices"] for option in content["options"] if option["choices"])


def test_the_archive(tmp_path: Path) -> None:
    assert tool
    content = tool.archive()
    assert content == tool.archive()
    (tmp_path / "a.zip").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.zip") as made:
        names = made.namelist()
        assert made.testzip() is None
    assert {"somareg/__init__.py", "somareg/metadata.txt", "somareg/options.json", "somareg/LICENSE"} <= set(names)
    assert all(name.startswith("somareg/") for name in names) and not [n for n in names if "__pycache__" in n]
    assert {f"somareg/{path.name}" for path in PLUGIN.glob("*.py")} <= set(names)
    assert len(content) < 100_000


def test_the_metadata() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(PLUGIN / "metadata.txt", encoding="utf-8")
    told = parser["general"]
    assert told["version"] == __version__
    assert told["qgisMinimumVersion"] == "3.22" and told.getboolean("hasProcessingProvider")
    for name in ("name", "description", "about", "author"):
        assert told[name]
    assert (PLUGIN / told["icon"]).is_file()


def test_the_code_is_for_the_python_of_that_qgis() -> None:
    """QGIS 3.22 for Windows has Python 3.9; and nothing of somareg or its dependencies is imported."""
    for path in PLUGIN.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                root = name.split(".")[0]
                assert root in sys.stdlib_module_names or root in ("qgis", "processing"), (path.name, name)


def program(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


NAME = "somareg.exe" if sys.platform == "win32" else "somareg"
BIN = "Scripts" if sys.platform == "win32" else "bin"


@pytest.mark.parametrize(
    "place", [".local/bin", f".venv/{BIN}", f"venv/{BIN}", f"miniforge3/envs/geo/{BIN}", f"miniconda3/{BIN}"]
)
def test_the_command_is_found_where_installers_put_it(tmp_path: Path, place: str) -> None:
    file = program(tmp_path / place / NAME)
    assert command.find("", {"PATH": ""}, tmp_path) == [str(file)]


def test_which_one_is_taken(tmp_path: Path) -> None:
    """What was named in the settings, then the variable, then the path, then the usual places."""
    named, told, on_path = (program(tmp_path / name / NAME) for name in ("named", "told", "path"))
    program(tmp_path / ".venv" / BIN / NAME)
    variables = {"PATH": os.pathsep.join(["", ".", str(on_path.parent)]), "SOMAREG_COMMAND": str(told)}
    assert command.find(str(named), variables, tmp_path) == [str(named)]
    assert command.find(" ", variables, tmp_path) == [str(told)]
    del variables["SOMAREG_COMMAND"]
    assert command.find("", variables, tmp_path) == [str(on_path)]


def test_a_python_stands_for_the_command_in_it(tmp_path: Path) -> None:
    file = program(tmp_path / "python3")
    assert command.find(str(file), {}, tmp_path) == [str(file), "-m", "somareg"]


def test_without_a_command_the_message_tells_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that lies where QGIS happens to run is none of ours."""
    program(tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(command.NotFoundError, match=r"pip install somareg.*Settings > Options > Processing"):
        command.find("", {"PATH": os.pathsep.join(["", "."])}, tmp_path / "home")


def test_what_was_named_wrongly_is_not_replaced_by_another(tmp_path: Path) -> None:
    program(tmp_path / ".venv" / BIN / NAME)
    with pytest.raises(command.NotFoundError, match=r"was named as '.*gone', which is no program"):
        command.find(str(tmp_path / "gone"), {"PATH": ""}, tmp_path)


class Heard:
    """A listener that keeps what it was told."""

    def __init__(self, cancelled_after_s: float = 1e9) -> None:
        self.steps: list[tuple[float, str]] = []
        self.lines: list[str] = []
        self.until = time.monotonic() + cancelled_after_s
        self.listener = process.Listener(
            progress=lambda share, stage: self.steps.append((share, stage)),
            message=self.lines.append,
            is_cancelled=lambda: time.monotonic() > self.until,
        )


def ran(tmp_path: Path, text: str, *arguments: str, heard: Heard | None = None, grace_s: float = 5.0) -> Any:
    script = tmp_path / "script.py"
    script.write_text(text)
    heard = heard or Heard()
    return process.run([sys.executable, str(script)], arguments, heard.listener, grace_s)


def test_progress_and_document(tmp_path: Path) -> None:
    heard = Heard()
    text = (
        "import json, sys, os\n"
        "say = lambda line: print(line, file=sys.stderr, flush=True)\n"
        "say(json.dumps({'stage': 'matching', 'share': 0.25}))\n"
        "say('WARNING something')\n"
        "say('{\"stage\": broken')\n"
        "say(json.dumps({'stage': 'writing', 'share': 7}))\n"
        "print(json.dumps({'arguments': sys.argv[1:], 'ä': os.environ.get('PYTHONHOME')}, ensure_ascii=False))\n"
        "sys.exit(3)\n"
    )
    hostile = ["--out=a b", "$(touch pwned)", "; ls", "-", "ü"]
    os.environ["PYTHONPATH"], before = "/nowhere", os.environ.get("PYTHONPATH")
    try:
        document = ran(tmp_path, text, *hostile, heard=heard)
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    assert document == {"arguments": hostile, "ä": None}
    assert heard.steps == [(0.25, "matching"), (1.0, "writing")]
    assert heard.lines == ["WARNING something", '{"stage": broken']


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "import sys; print('WARNING x', file=sys.stderr); sys.exit('error: a.tif does not exist; check the path')",
            "a.tif does",
        ),
        ('print(\'{"error": {"message": "unknown preset"}}\'); raise SystemExit(2)', "unknown preset"),
        ("raise SystemExit(5)", "exit code 5"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
        ("print('no json')", "exit code 0"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(process.FailedError, match=expected) as caught:
        ran(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_command_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(process.FailedError, match=r"gone cannot be started"):
        process.run([str(tmp_path / "gone")], [], process.Listener())


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


@posix
@pytest.mark.parametrize("deaf", [False, True], ids=["interrupted", "killed"])
def test_cancel_ends_it_and_its_workers(tmp_path: Path, deaf: bool) -> None:
    """It may clear up; whoever does not listen is killed, and so is every process that it has started."""
    text = (
        "import os, signal, subprocess, sys, time\n"
        "from pathlib import Path\n"
        f"if {deaf}: signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "else: signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "worker = subprocess.Popen([sys.executable, '-c', "
        "'import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)'])\n"
        "part = Path(sys.argv[1]) / 'out.part'\n"
        "part.write_text('half')\n"
        "(part.parent / 'pids').write_text(f'{os.getpid()} {worker.pid}')\n"
        "try: time.sleep(60)\n"
        "finally: part.unlink()\n"
    )
    started = time.monotonic()
    with pytest.raises(process.CancelledError):
        ran(tmp_path, text, str(tmp_path), heard=Heard(cancelled_after_s=2.0), grace_s=1.0)
    assert time.monotonic() - started < 20
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    deadline = time.monotonic() + 5
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if alive(pid)]
    assert (tmp_path / "out.part").exists() is deaf


@posix
def test_a_run_that_is_cancelled_leaves_nothing(tmp_path: Path, pair: tuple[Path, Path], somareg_command: Path) -> None:
    """The real command, interrupted while it registers."""
    out = tmp_path / "out"
    heard = Heard()
    heard.listener.progress = lambda share, stage: setattr(heard, "until", 0.0)  # at the first step
    arguments = ["register", *process.TOLD, f"--out={out}", "--model=orientation", "--", *map(str, pair)]
    with pytest.raises(process.CancelledError):
        process.run([str(somareg_command)], arguments, heard.listener, 60.0)
    assert list(tmp_path.iterdir()) == []
