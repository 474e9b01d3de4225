"""The wheel holds all that the package needs, and works without the checkout. `make smoke` does the same in earnest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from somareg import __version__

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "somareg"
BESIDE = ("pyproject.toml", "README.md", "LICENSE", ".gitignore")

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="not in a checkout")


def build(root: Path, out: Path) -> Path:
    return Path(next(WheelBuilder(str(root)).build(directory=str(out), versions=["standard"])))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_is_the_package_and_nothing_else(wheel: Path) -> None:
    files = {f"somareg/{path.relative_to(SOURCE).as_posix()}": path for path in SOURCE.rglob("*") if path.is_file()}
    wanted = {name: path for name, path in files.items() if "__pycache__" not in name}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert held == set(wanted)
        assert all(archive.read(name) == path.read_bytes() for name, path in wanted.items())


@pytest.mark.parametrize(
    "name",
    [
        "soma/weights/compact.safetensors",
        "soma/weights/compact.json",
        "data/demo/sar.tif",
        "data/demo/optical.tif",
        "data/demo/ATTRIBUTION.txt",
        "quality/calibration-learned.json",
        "quality/calibration-orientation.json",
        "report/templates/report.html.j2",
        "report/templates/report.css",
        "report/templates/report.js",
        "report/templates/qgis/aligned.qgs.j2",
        "report/templates/qgis/styles.j2",
        "lab/evaluate/lists/sih-test.json",
        "py.typed",
    ],
)
def test_what_is_needed_at_run_time_is_inside(wheel: Path, name: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.getinfo(f"somareg/{name}").file_size == (SOURCE / name).stat().st_size


def test_what_the_wheel_says_of_itself(wheel: Path) -> None:
    info = f"somareg-{__version__}.dist-info"
    assert wheel.name == f"somareg-{__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < 20e6
    with zipfile.ZipFile(wheel) as archive:
        said = {name: archive.read(f"{info}/{name}").decode() for name in ("METADATA", "entry_points.txt")}
        licences = [name for name in archive.namelist() if name.startswith(f"{info}/licenses/")]
    assert "somareg = somareg.cli.main:main" in said["entry_points.txt"]
    assert "[rasterio.rio_plugins]\nsomareg = somareg.cli.rio:somareg" in said["entry_points.txt"]
    assert f"Version: {__version__}\n" in said["METADATA"]
    assert "License-Expression: Apache-2.0" in said["METADATA"]
    assert {Path(name).name for name in licences} == {"LICENSE", "ATTRIBUTION.txt", "LICENSE.md", "THIRD-PARTY.txt"}


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """And it holds what a packager needs beside the code."""
    sdist = Path(next(SdistBuilder(str(ROOT)).build(directory=str(tmp_path / "sdist"))))
    assert sdist.name == f"somareg-{__version__}.tar.gz" and sdist.stat().st_size < 20e6
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    root = tmp_path / f"somareg-{__version__}"
    for name in (
        "constraints.txt",
        "requirements.lock",
        "recipe/meta.yaml",
        "LICENSE",
        "tests/conftest.py",
        "Makefile",
    ):
        assert (root / name).is_file(), name
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(build(root, tmp_path / "wheel")) as second:
        crcs = [{info.filename: info.CRC for info in archive.infolist()} for archive in (first, second)]
    assert crcs[0] == crcs[1]


def test_assets_of_the_viewer_are_not_ignored(tmp_path: Path) -> None:
    """A JavaScript library comes in folders such as `dist`, which .gitignore keeps out elsewhere."""
    for name in BESIDE:
        shutil.copy(ROOT / name, tmp_path / name)
    for name in (
        "src/somareg/__init__.py",
        "src/somareg/runtime/version.py",
        "src/somareg/data/demo/ATTRIBUTION.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    script = tmp_path / "src" / "somareg" / "view" / "assets" / "map" / "dist" / "map.js"
    script.parent.mkdir(parents=True)
    script.write_text("// a map")
    elsewhere = tmp_path / "src" / "somareg" / "dist" / "left.js"
    elsewhere.parent.mkdir()
    elsewhere.write_text("// built by hand and forgotten")
    with zipfile.ZipFile(build(tmp_path, tmp_path / "out")) as archive:
        assert "somareg/view/assets/map/dist/map.js" in archive.namelist()
        assert "somareg/dist/left.js" not in archive.namelist()


def test_the_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Unpacked alone on the path, it finds its weights and its sample."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "alone")
    program = (
        "from pathlib import Path\n"
        "import somareg\n"
        "from somareg.cli.main import main\n"
        "from somareg.cli.sample import sample_pair\n"
        "home = Path('alone').resolve()\n"
        "assert home in Path(somareg.__file__).parents, somareg.__file__\n"
        "assert all(home in path.parents for path in sample_pair())\n"
        "assert somareg.load_model('compact') is not None\n"
        "main(['--version'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "alone"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"somareg {__version__}"
