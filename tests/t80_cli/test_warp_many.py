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
from somareg.types import Displacement, Estimate, Grid, TiePoints, Verdict
from tests.t80_cli.conftest import Cli

GRID = Grid(80, 70, (10.0, 0.0, 500000.0, 0.0, -10.0, 4000000.0), "EPSG:32633")

GO = Verdict("go", (), 0.97, 0.61, 6.1)
REVIEW = Verdict("review", (), 0.71, 1.5, 15.0)
NO_GO = Verdict("no-go", (), 0.03)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """a.tif, b.tif and mask.tif on one grid, and `aligned`, which shifts by 3 columns and -2 rows."""
    rng = np.random.default_rng(0)
    for name, top in (("a", 60000), ("b", 200), ("mask", 4)):
        profile = {"width": 80, "height": 70, "count": 1, "dtype": "uint16", "crs": GRID.crs}
        with rasterio.open(tmp_path / f"{name}.tif", "w", transform=rasterio.Affine(*GRID.transform), **profile) as f:
            f.write(rng.integers(1, top, (1, 70, 80)).astype(np.uint16))
    save_estimate(tmp_path / "aligned", GO)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save_estimate(folder: Path, verdict: Verdict | None) -> None:
    """A shift by 3 columns and -2 rows."""
    shift = np.broadcast_to(np.float32([3, -2]).reshape(2, 1, 1), (2, 70, 80))
    affine = AffineTransform.from_parameters(shift=(3, -2))
    field = Displacement(shift.copy(), np.ones((70, 80), np.float32), np.ones((70, 80), np.float32), GRID)
    estimate = Estimate(affine, GRID, GRID, verdict=verdict)
    folder.mkdir()
    write_displacement(folder / "displacement.tif", field, estimate, affine.matrix)
    (folder / "report.json").write_text("{}")


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


@pytest.mark.parametrize("several", [False, True])
def test_no_go_is_refused_with_the_way_out(cli: Cli, place: Path, several: bool) -> None:
    save_estimate(place / "failed", NO_GO)
    rasters = ["a.tif", "b.tif"] if several else ["a.tif"]
    out = place / ("out" if several else "out.tif")
    done = cli("warp", *rasters, "failed", "-o", out)
    assert (done.code, done.out) == (1, "")
    (line,) = done.err.splitlines()
    assert "the verdict on this estimate is no-go" in line
    assert "3 % chance of an error below 2 px" in line
    assert "--force" in line
    assert not out.exists()
    forced = cli("warp", *rasters, "failed", "-o", out, "--force")
    assert forced.code == 0
    assert forced.err.count("WARNING") == 1
    written = out / "a.tif" if several else out
    with rasterio.open(written) as file:
        tags = file.tags()
    assert (tags["SOMAREG_VERDICT"], tags["SOMAREG_PROBABILITY"]) == ("no-go", "0.03")
    assert "SOMAREG_PREDICTED_RMSE_PX" not in tags


def test_no_go_is_told_in_the_document_too(cli: Cli, place: Path) -> None:
    save_estimate(place / "failed", NO_GO)
    told = json.loads(cli("warp", "a.tif", "failed", "-o", "x.tif", "--json").out)["error"]
    assert (told["type"], told["exit_code"]) == ("EstimationError", 1)
    forced = json.loads(cli("warp", "a.tif", "failed", "-o", "x.tif", "--json", "--force").out)["verdict"]
    assert (forced["decision"], forced["predicted_rmse_px"], forced["predicted_rmse_m"]) == ("no-go", None, None)


def test_review_is_applied_with_a_word(cli: Cli, place: Path) -> None:
    save_estimate(place / "perhaps", REVIEW)
    for rasters, out in ((["a.tif"], "one.tif"), (["a.tif", "b.tif"], "many")):
        done = cli("warp", *rasters, "perhaps", "-o", out)
        assert done.code == 0
        assert done.err.count("WARNING") == 1
        words = " ".join(done.err.split())
        assert "Review: 71 % chance of an error below 2 px; expected error 15.0 m (1.50 px)." in words
        assert cli("warp", *rasters, "perhaps", "-o", out, "--overwrite", "-q").err == ""
    with rasterio.open(place / "many" / "b.tif") as file:
        assert file.tags()["SOMAREG_PREDICTED_RMSE_M"] == "15"
    told = json.loads(cli("warp", "a.tif", "b.tif", "perhaps", "-o", "again", "--json").out)["outputs"]
    assert [each["verdict"]["decision"] for each in told] == ["review", "review"]


def test_what_nobody_judged_is_applied_with_a_note(cli: Cli, place: Path) -> None:
    save_estimate(place / "found", None)
    done = cli("warp", "a.tif", "b.tif", "found", "-o", "out")
    assert done.code == 0
    (line,) = done.err.splitlines()  # one for all rasters
    assert "this estimate has no verdict" in line
    with rasterio.open(place / "out" / "a.tif") as file:
        assert not [tag for tag in file.tags() if tag in ("SOMAREG_VERDICT", "SOMAREG_PROBABILITY")]
    assert json.loads(cli("warp", "a.tif", "found", "-o", "x.tif", "--json").out)["verdict"] is None
