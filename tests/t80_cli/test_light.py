"""`somareg --help` is for people in a hurry: no torch, no GDAL, half a second."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import somareg

HEAVY = ("torch", "rasterio", "cv2", "matplotlib", "numpy", "pydantic.main")

PROBE = """
import sys
from somareg.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    loaded = [name for name in {heavy!r} if name in sys.modules]
    print(f"code={{end.code}} loaded={{loaded}}", file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["register", "--help"], ["demo", "--help"], ["doctor", "--help"], []]
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    heavy = HEAVY[:4]
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=heavy), *arguments], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "code=0 loaded=[]"
    assert "somareg" in done.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, somareg; print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "somareg", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"somareg {somareg.__version__}\n" and done.stderr == ""
    wrong = subprocess.run([sys.executable, "-m", "somareg", "registr"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: unknown command 'registr'")


def test_a_pair_is_registered_and_told_of_without_any_extra(tmp_path: Path) -> None:
    blocked = ("matplotlib", "PIL", "pystac", "xarray", "rioxarray", "distributed", "rio_tiler", "starlette", "uvicorn")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
        f"from somareg.cli.main import main; main(['demo', '-q', '-o', {str(tmp_path / 'out')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Go: " in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "offered"), [("somareg ass", ["assess"]), ("somareg register --moving-sc", ["--moving-scale"])]
)
def test_the_shell_completes_without_anything_heavy(line: str, offered: list[str]) -> None:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    environment = {**os.environ, "_SOMAREG_COMPLETE": "complete_bash", **words}
    probe = PROBE.format(heavy=HEAVY[:4])
    done = subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == offered
    assert done.stderr.strip() == "code=0 loaded=[]"
