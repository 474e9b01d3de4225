"""`somareg --help` is for people in a hurry: no torch, no GDAL, half a second."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
