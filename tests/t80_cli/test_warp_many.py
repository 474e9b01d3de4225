"""`somareg warp` with several rasters, `--estimate` and tie points, on real files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

import somareg
from somareg.geometry import AffineTransform
from somareg.io.displacement import write_displacement
from somareg.types import Displacement, Estimate, Grid, TiePoints
from tests.t80_cli.conftest import Cli

GRID = Grid(80, 70, (10.0, 0.0, 500000.0, 0.0, -10.0, 4000000.0), "EPSG:32633")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """a.tif, b.tif and mask.tif on one grid, and `aligned`, which shifts by 3 columns and -2 rows."""
    rng = np.random.default_rng(0)
    for name, top in (("a", 60000), ("b", 200), ("mask", 4)):
        profile = {"width": 80, "height": 70, "count": 1, "dtype": "uint16", "crs": GRID.crs}
        with rasterio.open(tmp_path / f"{name}.tif", "w", transform=rasterio.Affine(*GRID.transform), **profile) as f:
            f.write(rng.integers(1, top, (1, 70, 80)).astype(np.uint16))
    shift = np.broadcast_to(np.float32([3, -2]).reshape(2, 1, 1), (2, 70, 80))
    affine = AffineTransform.from_parameters(shift=(3, -2))
    field = Displacement(shift.copy(), np.ones((70, 80), np.float32), np.ones((70, 80), np.float32), GRID)
    (tmp_path / "aligned").mkdir()
    write_displacement(tmp_path / "aligned" / "displacement.tif", field, Estimate(affine, GRID, GRID), affine.matrix)
    (tmp_path / "aligned" / "report.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def is_shifted(place: Path, name: str, out: Path) -> bool:
    with rasterio.open(place / f"{name}.tif") as before, rasterio.open(out) as after:
        return np.array_equal(after.read(1)[2:, :-3], before.read(1)[:-2, 3:])


@pytest.mark.parametrize("estimate", ["aligned", "aligned/report.json", "aligned/displacement.tif"])
@pytest.mark.parametrize("by_option", [False, True])
def test_several_rasters_go_into_a_folder(cli: Cli, place: Path, estimate: str, by_option: bool) -> None:
    last = ["--estimate", estimate] if by_option else [estimate]
    done = cli("warp", "a.tif", "b.tif", *last, "--nearest", "mask.tif", "-o", "out")
    assert (done.code, done.err) == (0, "")
    written = [Path(line) for line in done.out.splitlines()]
    assert [path.name for path in written] == ["a.tif", "b.tif", "mask.tif"]
    assert all(is_shifted(place, path.stem, path) for path in written)


def test_one_raster_goes_into_a_file_or_a_folder(cli: Cli, place: Path) -> None:
    assert cli("warp", "a.tif", "aligned", "-o", "one.tif").code == 0
    assert is_shifted(place, "a", place / "one.tif")
    (place / "there").mkdir()
    for out in ("there", "new/"):
        done = cli("warp", "a.tif", "aligned", "-o", out, "--json")
        assert json.loads(done.out)["outputs"][0]["output"] == str(place / out / "a.tif")
        assert is_shifted(place, "a", place / out / "a.tif")
    assert cli("warp", "aligned", "--nearest", "mask.tif", "-o", "masks").code == 0
    assert is_shifted(place, "mask", place / "masks" / "mask.tif")


def test_tie_points_are_an_estimate(cli: Cli, place: Path) -> None:
    here = np.array([[5.0, 5], [70, 8], [40, 30], [8, 60], [66, 64]])
    unknown = np.full(5, np.nan)
    ties = TiePoints(here, here + np.array([3, -2]), here * 0, unknown, unknown, np.ones(5, bool), unknown)
    somareg.write_tie_points("ties.csv", ties)
    shutil.copy("ties.csv", "aligned/ties.csv")
    images = ["--reference", "b.tif", "--moving", "a.tif"]
    assert cli("warp", "a.tif", "b.tif", "ties.csv", *images, "--resampling", "nearest", "-o", "out").code == 0
    assert is_shifted(place, "b", place / "out" / "b.tif")
    done = cli("warp", "a.tif", "--estimate", "ties.csv", "-o", "x.tif")
    assert done.code == 2
    assert "--reference and --moving" in done.err


def test_a_bad_raster_is_told_and_the_others_are_written(cli: Cli, place: Path) -> None:
    done = cli("warp", "nowhere.tif", "b.tif", "aligned", "-o", "out")
    assert done.code == 1
    assert done.err.splitlines() == ["error: input image nowhere.tif does not exist; check the path"]
    assert is_shifted(place, "b", place / "out" / "b.tif")
    told = json.loads(cli("warp", "nowhere.tif", "a.tif", "aligned", "-o", "out", "--json").out)
    assert told["outputs"][0]["error"]["type"] == "ReadError"
    assert told["outputs"][1]["bytes"] == (place / "out" / "a.tif").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["a.tif", "-o", "x.tif"], 2, "name the raster and the estimate"),
        (["a.tif", "b.tif", "-o", "x"], 1, "b.tif is not a displacement file"),
        (["a.tif", "b.tif", "nowhere", "-o", "x"], 1, "no estimate at nowhere"),
    ],
)
def test_failures_are_one_line(cli: Cli, place: Path, arguments: list[str], code: int, words: str) -> None:
    done = cli("warp", *arguments)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert len(done.err.splitlines()) == 1
