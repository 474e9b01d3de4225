"""The algorithms in QGIS, on the demo pair. Skipped where there is no QGIS."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from somareg.report import load_report
from tests.t82_qgis.conftest import HERE, environment
from tests.t82_qgis.plugin_files import PLUGIN

pytestmark = pytest.mark.skipif(not PLUGIN.is_dir(), reason="not in a checkout")


@pytest.fixture(scope="session")
def variables(qgis_home: Path, somareg_command: Path) -> dict[str, str]:
    return {**environment(qgis_home), "SOMAREG_COMMAND": str(somareg_command)}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def told(qgis_python: str, variables: dict[str, str], pair: tuple[Path, Path], folder: Path) -> dict[str, Any]:
    """What run_algorithms.py says."""
    command = [qgis_python, str(HERE / "run_algorithms.py"), str(PLUGIN.parent), *map(str, pair), str(folder)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=900)
    assert (folder / "document.json").is_file(), done.stderr
    document: dict[str, Any] = json.loads((folder / "document.json").read_text())
    return document


def test_all_four_are_there(told: dict[str, Any]) -> None:
    assert told["algorithms"] == [f"somareg:{name}" for name in ("assess", "batch", "register", "warp")]


def test_register(told: dict[str, Any], folder: Path) -> None:
    run = told["register"]
    assert run["executable"][0] and run["done"], run
    results = run["results"]
    assert results["VERDICT"] == "go" and results["PREDICTED_RMSE_PX"] < 3
    record = load_report(folder / "out put" / "report.json")
    assert results["HEADLINE"] == record.headline
    assert (record.settings["preset"], record.settings["model"]) == ("fast", "orientation")
    for name in ("ALIGNED", "DISPLACEMENT", "TIE_POINTS", "PROJECT", "REPORT"):
        assert Path(results[name]).is_file()
    assert len(set(run["shares"])) > 3 and max(run["shares"]) <= 100


def test_results_are_loaded_with_styles(told: dict[str, Any], folder: Path) -> None:
    loaded = told["register"]["loaded"]
    kinds = {name.split(":")[0].split(",")[0].split(" (")[0]: facts for name, facts in loaded.items()}
    assert {name: facts[1] for name, facts in kinds.items()} == {
        "Aligned": "singlebandgray",
        "Expected error": "singlebandpseudocolor",
        "Tie points": "RuleRenderer",
    }
    assert all(valid and str(folder) in source for valid, _, source in loaded.values())


def test_cancel_leaves_nothing(told: dict[str, Any], folder: Path) -> None:
    run = told["cancelled"]
    assert "error" not in run and not run["loaded"] and run["results"].keys() <= {"OUTPUT"}
    assert any("cancelled" in line for line in run["said"])
    assert not list(folder.rglob("*.part"))
    assert not (folder / "cancelled").exists() or not any((folder / "cancelled").iterdir())


def test_errors_pass_through_as_one_line(told: dict[str, Any]) -> None:
    assert "is not empty" in told["again"]["error"] and "--overwrite" in told["again"]["error"]
    assert "9" in told["wrong"]["error"] and "\n" not in told["wrong"]["error"]
    assert told["both"]["error"].startswith("give a table of pairs")


def test_warp(told: dict[str, Any], folder: Path) -> None:
    results = told["warp"]["results"]
    assert results["VERDICT"] == "go"
    with rasterio.open(results["OUTPUT"]) as warped, rasterio.open(folder / "out put" / "aligned.tif") as aligned:
        assert warped.transform == aligned.transform
        both = warped.dataset_mask().astype(bool) & aligned.dataset_mask().astype(bool)
        assert np.corrcoef(warped.read(1)[both], aligned.read(1)[both])[0, 1] > 0.8


def test_assess(told: dict[str, Any]) -> None:
    """The demo pair lies some pixels apart."""
    results = told["assess"]["results"]
    assert 4 < results["MISALIGNMENT_PX"] < 9 and -9 < results["DX_PX"] < -3
    assert results["VERDICT"] in ("go", "review")


def test_without_the_command(told: dict[str, Any]) -> None:
    run = told["missing"]
    assert run["executable"][0] is False and "/nowhere/somareg" in run["executable"][1]
    assert "/nowhere/somareg" in run["error"]


def qgis_process() -> str | None:
    """Debian's wrapper adds an option that the program does not know; the program is beside it."""
    return shutil.which("qgis_process.bin") or shutil.which("qgis_process")


def test_qgis_process_runs_a_batch(
    variables: dict[str, str], qgis_python: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    program = qgis_process()
    if program is None:
        pytest.skip("no qgis_process here")
    plugins = Path(variables["HOME"]) / ".local/share/QGIS/QGIS3/profiles/default/python/plugins"
    if not (plugins / "somareg").exists():
        shutil.copytree(PLUGIN, plugins / "somareg", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pairs.csv").write_text(f"moving,reference,name\n{pair[0]},{pair[1]},one\n{pair[0]},gone.tif,two\n")
    out = tmp_path / "out"
    enabled = subprocess.run([program, "plugins", "enable", "somareg"], env=variables, capture_output=True, text=True)
    arguments = [f"PAIRS={tmp_path / 'pairs.csv'}", f"OUTPUT={out}", "MODEL=orientation", "PRESET=fast"]
    command = [program, "run", "somareg:batch", "--", *arguments]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=600)
    said = enabled.stdout + enabled.stderr + done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "WORST:\tfailed" in done.stdout and "GO:\t1" in done.stdout and "FAILED:\t1" in done.stdout, said
    assert (out / "one" / "aligned.qgz").is_file()
    assert os.environ.get("HOME") != variables["HOME"]
