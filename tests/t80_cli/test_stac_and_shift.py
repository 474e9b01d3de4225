"""`--stac`, modalities that an Item may tell, and `export-shift`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from somareg.geometry import AffineTransform
from somareg.io import read_estimate, write_displacement
from somareg.types import Displacement, Estimate, Grid
from tests.t80_cli.conftest import Cli, FakeApi

GRID = Grid(70, 66, (10.0, 0.0, 500000.0, 0.0, -10.0, 4000000.0), "EPSG:32633")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder as `register` leaves it, as far as these commands look: a shift of (2.5, -1)."""
    folder = tmp_path / "out"
    folder.mkdir()
    field = np.zeros((2, *GRID.shape), np.float32) + np.array([2.5, -1.0], np.float32)[:, None, None]
    estimate = Estimate(AffineTransform.from_parameters(shift=(2.5, -1.0)), GRID, GRID)
    certain = np.ones(GRID.shape, np.float32)
    write_displacement(folder / "displacement.tif", Displacement(field, certain, certain, GRID), estimate)
    return folder


def test_stac_is_passed_on_and_told(cli: Cli, fake_api: FakeApi, tmp_path: Path) -> None:
    done = cli("register", "a.json#vv", "b.tif", "-o", tmp_path / "out", "--stac")
    assert done.code == 0
    assert fake_api.calls[0][1]["args"] == ("a.json#vv", "b.tif", tmp_path / "out")
    assert (tmp_path / "out" / "item.json").is_file()
    assert "STAC Item" in done.out
    plain = cli("register", "a.tif", "b.tif", "-o", tmp_path / "plain")
    assert not (tmp_path / "plain" / "item.json").exists()
    assert "STAC Item" not in plain.out


def test_without_pystac_no_work_is_done(
    cli: Cli, fake_api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pystac", None)
    done = cli("register", "a.tif", "b.tif", "-o", tmp_path / "out", "--stac")
    assert done.code == 1
    assert "pip install 'somareg[stac]'" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["register", "assess"])
def test_modalities_are_left_open_unless_said(cli: Cli, fake_api: FakeApi, tmp_path: Path, command: str) -> None:
    more = ["-o", tmp_path / "out", "--overwrite"] if command == "register" else []
    cli(command, "a.tif", "b.tif", *more)
    assert not {"moving_modality", "reference_modality"} & set(fake_api.calls[0][1])
    cli(command, "a.tif", "b.tif", *more, "--moving-modality", "other")
    assert fake_api.calls[1][1]["moving_modality"] == "other"
    assert "reference_modality" not in fake_api.calls[1][1]


def test_export_shift(cli: Cli, out: Path, tmp_path: Path) -> None:
    target = tmp_path / "shifts.tif"
    done = cli("export-shift", out, "-o", target)
    assert (done.code, done.out.strip(), done.err) == (0, str(target), "")
    with rasterio.open(target) as file:
        assert (file.count, file.shape) == (2, GRID.shape)
        np.testing.assert_array_equal(np.unique(file.read(1)), [2.5])
        np.testing.assert_array_equal(np.unique(file.read(2)), [-1.0])
    again = cli("export-shift", out, "-o", target)
    assert again.code == 1
    assert "--overwrite" in again.err
    document = json.loads(cli("export-shift", out / "displacement.tif", "-o", target, "--overwrite", "--json").out)
    assert document == {"output": str(target), "bytes": target.stat().st_size}


def test_a_shift_raster_is_an_estimate_for_warp(cli: Cli, out: Path, tmp_path: Path) -> None:
    shifts = tmp_path / "shifts.tif"
    cli("export-shift", out, "-o", shifts)
    points = np.array([[3.0, 4.0], [-20.0, 90.0]])
    np.testing.assert_allclose(read_estimate(shifts).correction(points), points + np.array([2.5, -1.0]), atol=1e-5)
    for number, estimate in enumerate((out, shifts)):
        done = cli("warp", out / "displacement.tif", estimate, "-o", tmp_path / f"{number}.tif", "-q")
        assert done.code == 0
    with rasterio.open(tmp_path / "0.tif") as first, rasterio.open(tmp_path / "1.tif") as second:
        np.testing.assert_array_equal(first.read(), second.read())


def test_export_shift_of_nothing(cli: Cli, tmp_path: Path) -> None:
    done = cli("export-shift", tmp_path / "none", "-o", tmp_path / "shifts.tif")
    assert done.code == 1
    assert "no estimate" in done.err
    assert list(tmp_path.iterdir()) == []
