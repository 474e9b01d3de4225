"""What a command loads: help next to nothing, a registration nothing that it does not need."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

import somareg
from somareg.cli.main import COMMANDS
from somareg.cli.sample import sample_pair
from somareg.config import GROUPS
from somareg.runtime.startup import quick_imports
from tests.t80_cli.conftest import Cli

HEAVY = ("torch", "rasterio", "cv2", "matplotlib", "numpy", "rich", "jinja2", "safetensors")
OURS = (*HEAVY, "somareg.config", "somareg.types", "somareg.cli.register")
LIGHT = (*OURS, "pydantic")  # with which Typer checks what was typed
NEEDLESS = (
    *("scipy", "pandas", "skimage", "sympy", "torchvision", "torch._dynamo", "torch._inductor", "functorch"),
    *("onnx", "onnxruntime", "onnxscript", "transformers", "lightning", "tensorboard", "yaml"),
    *("dask", "distributed", "xarray", "rioxarray", "pystac", "starlette", "uvicorn", "IPython"),
    *("somareg.lab", "somareg.view", "somareg.batches"),
)

PROBE = """
import sys
from somareg.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    loaded = [name for name in {heavy!r} if name in sys.modules]
    print(f"code={{end.code}} loaded={{loaded}}", file=sys.stderr)
"""


def loaded_by(heavy: tuple[str, ...], *arguments: str, **environment: str) -> tuple[str, str]:
    """What the command prints, and its exit code with what it loaded of `heavy`."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=heavy), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, done.stderr.strip()


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "tie-points"])
def test_help_loads_nothing_heavy(name: str) -> None:
    out, told = loaded_by(HEAVY, name, "--help")
    assert told == "code=0 loaded=[]"
    assert out.startswith(f"Usage: somareg {name} ")


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], LIGHT),
        (["--version"], LIGHT),
        ([], OURS),
        (["tie-points", "--help"], HEAVY),
    ],
)
def test_what_needs_no_command_loads_none(arguments: list[str], heavy: tuple[str, ...]) -> None:
    out, told = loaded_by(heavy, *arguments)
    assert told == "code=0 loaded=[]"
    assert "somareg" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_their_help_begins_with(name: str) -> None:
    entry = COMMANDS[name]
    command = entry.load(name)
    assert command.name == name
    assert " ".join(command.help.split("\n\n")[0].split()) == entry.summary
    assert bool(entry.epilog) == bool(getattr(command, "epilog", None))


def test_help_stands_in_sections_on_whole_lines(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = cli("register", "--help").out.splitlines()
    heads = [line.rstrip(":") for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert heads == ["Arguments", "Options", *GROUPS]
    listed = cli("--help").out
    assert "..." not in listed.split("Commands:")[1]
    for name, entry in COMMANDS.items():
        assert f"{name} " in listed
        assert entry.summary in " ".join(listed.split()).replace("self- test", "self-test")
    assert cli("tie-points").out == cli("tie-points", "--help").out != ""


def test_registering_loads_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    images = [str(path) for path in sample_pair()]
    options = ("-o", str(tmp_path / "out"), "--quiet", "--preset", "fast", "--device", "cpu")
    _, told = loaded_by(NEEDLESS, "register", *images, *options)
    assert told == "code=0 loaded=[]"


def test_imports_are_quick_and_leave_the_collector_as_it_was() -> None:
    for switch, was in ((gc.enable, True), (gc.disable, False)):
        switch()
        try:
            with pytest.raises(ImportError), quick_imports():
                assert not gc.isenabled()
                raise ImportError
            assert gc.isenabled() == was
        finally:
            gc.unfreeze()
            gc.enable()


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, somareg; print([n for n in {LIGHT!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "somareg", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"somareg {somareg.__version__}\n" and done.stderr == ""
    wrong = subprocess.run([sys.executable, "-m", "somareg", "registr"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: unknown command 'registr'")


def test_a_pair_is_registered_and_told_of_without_any_extra(tmp_path: Path) -> None:
    blocked = ("matplotlib", "PIL", "pystac", "xarray", "rioxarray", "distributed", "starlette", "uvicorn")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
        f"from somareg.cli.main import main; main(['demo', '-q', '-o', {str(tmp_path / 'out')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Go: " in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "offered", "heavy"),
    [
        ("somareg ass", ["assess"], OURS),
        ("somareg ", list(COMMANDS), OURS),
        ("somareg register --moving-sc", ["--moving-scale"], HEAVY),
        ("somareg tie-points con", ["convert"], HEAVY),
    ],
)
def test_the_shell_completes_without_anything_heavy(line: str, offered: list[str], heavy: tuple[str, ...]) -> None:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    out, told = loaded_by(heavy, _SOMAREG_COMPLETE="complete_bash", **words)
    assert out.split() == offered
    assert told == "code=0 loaded=[]"
