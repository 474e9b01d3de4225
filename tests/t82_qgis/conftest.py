"""QGIS, where there is one, and results for it to open."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from somareg.cli.sample import sample_pair
from somareg.register import api
from somareg.types import Result
from tests.t82_qgis.plugin_files import ROOT

HERE = Path(__file__).parent
_PYTHONS = ("/usr/bin/python3", "python3")


def environment(home: Path) -> dict[str, str]:
    """For programs of QGIS: a home of their own, no display, nothing of the Python that runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "QT_"))}
    return {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": str(home), "QT_QPA_PLATFORM": "offscreen"}


@pytest.fixture(scope="session")
def qgis_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("qgis")


@pytest.fixture(scope="session")
def qgis_python(qgis_home: Path) -> str:
    """A Python that has QGIS in it."""
    for name in (os.environ.get("SOMAREG_QGIS_PYTHON"), *_PYTHONS):
        found = name and shutil.which(name)
        if found:
            done = subprocess.run([found, "-c", "import qgis.core"], env=environment(qgis_home), capture_output=True)
            if done.returncode == 0:
                return found
    pytest.skip("no Python with QGIS here (Debian: python3-qgis; elsewhere name one in SOMAREG_QGIS_PYTHON)")


@pytest.fixture(scope="session")
def somareg_command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of the code under test."""
    file = tmp_path_factory.mktemp("bin") / "somareg"
    file.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT / 'src')!r})\n"
        "from somareg.cli.main import main\nmain()\n"
    )
    file.chmod(0o755)
    return file


Look = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def look(qgis_python: str, qgis_home: Path) -> Look:
    """What QGIS makes of a project: `look(project, picture, theme)`, see look.py."""

    def looked(project: Path, picture: Path, theme: str = "") -> dict[str, Any]:
        command = [qgis_python, str(HERE / "look.py"), str(project), str(picture), theme]
        done = subprocess.run(command, env=environment(qgis_home), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    return looked


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Copies of the demo pair in a folder of their own."""
    folder = tmp_path_factory.mktemp("images")
    moving, reference = (Path(shutil.copy(path, folder)) for path in sample_pair())
    return moving, reference


@pytest.fixture(scope="session")
def result(pair: tuple[Path, Path]) -> Result:
    return api.register(*pair, model="orientation")


@pytest.fixture(scope="session")
def saved(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result.save(tmp_path_factory.mktemp("result") / "out", reports="none")


def layers(document: Mapping[str, Any]) -> dict[str, Any]:
    """The layers that QGIS could open."""
    return {key: layer for key, layer in document["layers"].items() if layer["valid"]}


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Children can be interrupted, also where these tests run in the background, whose children ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
