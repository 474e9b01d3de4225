"""`somareg --help` is for people in a hurry: no torch, no GDAL, half a second."""

from __future__ import annotations

import os
import subprocess
import sys

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
