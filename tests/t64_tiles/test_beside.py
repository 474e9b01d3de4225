"""Beside the scene: nodes in displacement.tif, the command line's choice, and what small pairs do not pay for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from somareg.cli.main import app
from somareg.errors import ConfigError, InputError, OutputError, ReadError
from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.io import read_estimate, write_displacement
from somareg.io.displacement import coarser_grid
from somareg.io.shifts import export_shifts
from somareg.register.api import plan, register_into
from somareg.types import Displacement, Estimate, Grid
from tests.t64_tiles.conftest import Pair, make_pair

UTM = (10.0, 0.0, 500000.0, 0.0, -10.0, 4650000.0)


def nodes(folder: Path, grid: Grid, step: int = 16) -> tuple[Path, Estimate]:
    """A displacement file with nodes, and the estimate that it holds."""
    coarse = coarser_grid(grid, step)
    origin = (step - 1) / 2
    array = np.random.default_rng(0).normal(0, 1.5, (2, *coarse.shape))
    affine = AffineTransform.from_parameters(rotation_deg=0.7, scale=1.01, shift=(30.0, -12.0))
    correction = compose(affine, FieldTransform(array, (origin, origin), (step, step)))
    y, x = np.mgrid[: coarse.height, : coarse.width]
    points = np.stack([x.ravel(), y.ravel()], axis=-1) * float(step) + origin
    values = (correction(points) - points).T.reshape(2, *coarse.shape).astype(np.float32)
    displacement = Displacement(values, *np.ones((2, *coarse.shape), np.float32), coarse)
    estimate = Estimate(correction, grid, Grid(*grid.shape[::-1]))
    write_displacement(folder / "displacement.tif", displacement, estimate, affine.matrix, step=step)
    return folder / "displacement.tif", estimate


@pytest.mark.parametrize("grid", [Grid(333, 250), Grid(333, 250, UTM, "EPSG:32633")])
def test_nodes_are_read_back_inside_and_outside(tmp_path: Path, grid: Grid) -> None:
    path, estimate = nodes(tmp_path, grid)
    points = np.random.default_rng(1).uniform(-80, 420, (800, 2))
    again = read_estimate(path)
    np.testing.assert_allclose(again.correction(points), estimate.correction(points), atol=1e-4)
    assert again.reference == grid
    if grid.crs:
        with rasterio.open(path) as file:
            assert file.res == (160.0, 160.0)
            assert (file.bounds.left, file.bounds.top) == (500000.0, 4650000.0)


def test_shift_raster_of_nodes_has_every_pixel(tmp_path: Path) -> None:
    path, estimate = nodes(tmp_path, Grid(333, 250))
    with rasterio.open(export_shifts(path, tmp_path / "shift.tif")) as file:
        shifts = file.read()
    assert shifts.shape == (2, 250, 333)
    y, x = np.mgrid[:250, :333]
    points = np.stack([x.ravel(), y.ravel()], axis=-1).astype(float)
    expected = (estimate.correction(points) - points).T.reshape(2, 250, 333)
    np.testing.assert_allclose(shifts, expected, atol=1e-4)
    np.testing.assert_allclose(
        read_estimate(tmp_path / "shift.tif").correction(points), estimate.correction(points), atol=1e-4
    )


def test_malformed_step(tmp_path: Path) -> None:
    path, _ = nodes(tmp_path, Grid(333, 250))
    for value in ("0", "16.5", "99999", "8"):
        with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
            file.update_tags(SOMAREG_STEP=value)
        with pytest.raises(InputError, match=r"SOMAREG_STEP|another size"):
            read_estimate(path)


def sparse(path: Path, side: int, height: int = 300) -> Path:
    """A file of one band that takes no room."""
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=height, count=1, dtype="uint8", tiled=True, SPARSE_OK="TRUE"
    ):
        return path


def test_a_plan_chooses_by_size(tmp_path: Path) -> None:
    large, small = str(sparse(tmp_path / "l.tif", 4097)), str(sparse(tmp_path / "s.tif", 4096))
    assert "scene" in plan(large, large)
    assert "scene" not in plan(small, small)
    assert "scene" in plan(small, small, scene="always")
    assert "scene" not in plan(large, large, scene="never")
    assert "scene" not in plan(large, large, tie_points="points.csv", tie_points_use="replace")
    with pytest.raises(ConfigError, match="always"):
        plan(small, small, scene="allways")  # type: ignore[arg-type]


def test_dry_run_tells_the_tiles(tmp_path: Path) -> None:
    large = str(sparse(tmp_path / "l.tif", 6000))
    shown = CliRunner().invoke(app, ["register", large, large, "--dry-run", "--json", "--model", "orientation"])
    assert shown.exit_code == 0, shown.output
    assert '"tiles": "14 of 512 px' in shown.output  # too few to leave any out
    square = sparse(tmp_path / "s.tif", 6000, 6000)
    assert plan(square, square, model="orientation")["scene"]["tiles"] == "64 to 196 of 512 px, 422 px apart"


def test_small_pairs_import_nothing_of_it(tmp_path: Path, small: Pair) -> None:
    files = f"{str(small.moving)!r}, {str(small.reference)!r}"
    code = (
        "import sys; from somareg.register.api import plan; "
        f"assert 'scene' not in plan({files}); "
        "found = [m for m in sys.modules if m.startswith(('somareg.jobs.dask', 'distributed'))]; "
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_failure_leaves_no_folder(tmp_path: Path, small: Pair) -> None:
    """A folder is made when there is something to keep in it."""
    with pytest.raises(ReadError):
        register_into(small.moving, tmp_path / "missing.tif", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_resume_of_a_pair_matched_whole_is_a_run(tmp_path: Path, small: Pair) -> None:
    arguments = ["register", str(small.moving), str(small.reference), "-o", str(tmp_path / "out"), "--resume"]
    shown = CliRunner().invoke(app, [*arguments, "--model", "orientation"])
    assert shown.exit_code in (0, 3), shown.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")) == []


def test_workers_with_nothing_to_share_out_are_told(tmp_path: Path, small: Pair) -> None:
    arguments = ["register", str(small.moving), str(small.reference), "-o", str(tmp_path / "out"), "--workers", "2"]
    shown = CliRunner().invoke(app, [*arguments, "--model", "orientation"])
    assert shown.exit_code in (0, 3), shown.output
    assert "matched whole: there are no tiles for other processes" in " ".join(shown.output.split())


def test_command_line_registers_a_scene(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, 1040, seed=5)  # four tiles of 512 px side by side, nine that overlap
    arguments = ["register", str(pair.moving), str(pair.reference), "-o", str(tmp_path / "out"), "--scene", "always"]
    shown = CliRunner().invoke(app, [*arguments, "--model", "orientation"])
    assert shown.exit_code in (0, 3), shown.output
    assert re.search(r"matched as a scene: \d+ tiles", " ".join(shown.output.split())), shown.output
    assert (tmp_path / "out" / "aligned.tif").is_file()


def test_outputs_that_appeared_meanwhile_are_not_replaced(tmp_path: Path, small: Pair) -> None:
    out = tmp_path / "out"

    def somebody_else(stage: str, share: float) -> None:
        if stage == "judging" and not out.exists():
            out.mkdir()
            (out / "report.json").write_text("{}")

    with pytest.raises(OutputError, match="overwrite"):
        register_into(small.moving, small.reference, out, model="orientation", progress=somebody_else)
    assert [path.name for path in out.iterdir()] == ["report.json"]
