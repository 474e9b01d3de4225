"""Shift rasters: the numbers that SpaceNet 9's scorer expects, and a road back to an estimate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform as reproject_points

from somareg.errors import InputError, OutputError, ReadError
from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.io import read_estimate, write_displacement, write_geotiff
from somareg.io.shifts import export_shifts, read_shifts
from somareg.types import Displacement, Estimate, Grid
from tests.synthetic import pixel_points

UTM = "EPSG:32633"
REFERENCE = Grid(90, 70, (10.0, 0.0, 500000.0, 0.0, -10.0, 4650000.0), UTM)


def make_estimate(reference: Grid = REFERENCE, moving: Grid = REFERENCE) -> Estimate:
    """A small rotation and a smooth wave of 2 px."""
    y, x = np.mgrid[:70, :90] / 12.0
    wave = FieldTransform(2 * np.stack([np.sin(x + y), np.cos(y - 0.5 * x)]))
    affine = AffineTransform.from_parameters(rotation_deg=0.6, scale=1.01, shift=(6.3, -4.2), centre=(45.0, 35.0))
    return Estimate(compose(affine, wave), reference, moving)


def field_of(estimate: Estimate) -> Displacement:
    shape = estimate.reference.shape
    points = pixel_points(shape)
    array = (estimate.correction(points) - points).T.reshape(2, *shape).astype(np.float32)
    return Displacement(array, np.ones(shape, np.float32), np.ones(shape, np.float32), estimate.reference)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    estimate = make_estimate()
    out = tmp_path / "out"
    out.mkdir()
    write_displacement(out / "displacement.tif", field_of(estimate), estimate, tags={"SOMAREG_VERDICT": "go"})
    return out


def score(shifts: Path, optical: Grid, sar: Grid, optical_xy: np.ndarray, sar_xy: np.ndarray) -> np.ndarray:
    """Errors as the problem statement of SpaceNet 9 defines them, at whole optical pixels, on pixel centres.

    Both tie points go to the ground by their own image's georeference; the difference is told in optical pixels.
    """
    a, _, c, _, e, f = optical.transform
    on_ground = sar.to_map(sar_xy)
    on_ground = np.stack(reproject_points(sar.crs, optical.crs, *on_ground.T), axis=-1)
    x, y = ((on_ground - (c, f)) / (a, e)).T - (optical_xy.T + 0.5)
    with rasterio.open(shifts) as file:
        predicted = file.read()
    column, row = optical_xy.T.astype(int)
    return np.hypot(predicted[0][row, column] - x, predicted[1][row, column] - y)


SAR = {
    "same pixels": Grid(110, 90, (10.0, 0.0, 499870.0, 0.0, -10.0, 4650130.0), UTM),
    "4 m": Grid(260, 210, (4.0, 0.0, 499931.0, 0.0, -4.0, 4650083.0), UTM),
    "degrees": Grid(150, 120, (1e-4, 0.0, 14.9985, 0.0, -1e-4, 42.0020), "EPSG:4326"),
}


@pytest.mark.parametrize("name", SAR)
def test_a_true_estimate_scores_zero(name: str, tmp_path: Path) -> None:
    sar = SAR[name]
    estimate = make_estimate(moving=sar)
    optical_xy = np.random.default_rng(0).integers(0, (90, 70), (60, 2)).astype(float)
    on_ground = REFERENCE.to_map(estimate.correction(optical_xy))  # where the SAR image claims to show the same
    sar_xy = sar.to_pixel(np.stack(reproject_points(UTM, sar.crs, *on_ground.T), axis=-1))
    write_displacement(tmp_path / "displacement.tif", field_of(estimate), estimate)
    shifts = export_shifts(tmp_path, tmp_path / "shifts.tif")
    assert score(shifts, REFERENCE, sar, optical_xy, sar_xy).max() < 1e-3
    there = (estimate.correction(optical_xy) - optical_xy)[:, 0]
    with rasterio.open(shifts) as file:
        x_shift = file.read(1)[tuple(optical_xy.T.astype(int)[::-1])]
    assert np.abs(there).min() > 1  # so that a wrong sign would not pass
    np.testing.assert_allclose(x_shift, there, atol=1e-3)


def test_two_float32_bands_on_the_reference_grid(folder: Path, tmp_path: Path) -> None:
    out = export_shifts(folder, tmp_path / "shifts.tif")
    with rasterio.open(out) as shifts, rasterio.open(folder / "displacement.tif") as whole:
        assert (shifts.count, shifts.dtypes, shifts.nodata) == (2, ("float32", "float32"), None)
        assert (shifts.shape, shifts.transform, shifts.crs) == (whole.shape, whole.transform, whole.crs)
        assert shifts.descriptions == ("x shift", "y shift")
        np.testing.assert_array_equal(shifts.read(), whole.read()[:2])
        assert shifts.tags()["SOMAREG_VERDICT"] == "go"


def test_blocks_fit_together(tmp_path: Path) -> None:
    grid = Grid(65, 1100)
    rng = np.random.default_rng(0)
    field = Displacement(rng.normal(size=(2, 1100, 65)).astype(np.float32), *np.ones((2, 1100, 65), np.float32), grid)
    estimate = Estimate(AffineTransform.identity(), grid, grid)
    write_displacement(tmp_path / "displacement.tif", field, estimate)
    with rasterio.open(export_shifts(tmp_path / "displacement.tif", tmp_path / "s.tif")) as file:
        np.testing.assert_array_equal(file.read(), field.array)


def test_it_is_an_estimate_like_the_file_it_came_from(folder: Path, tmp_path: Path) -> None:
    out = export_shifts(folder, tmp_path / "shifts.tif")
    points = np.random.default_rng(0).uniform(-40, 130, (300, 2))  # beyond the grid too
    known, again = read_estimate(folder), read_estimate(out)
    np.testing.assert_array_equal(again.correction(points), known.correction(points))
    assert (again.reference, again.moving) == (known.reference, known.moving)
    assert export_shifts(out, tmp_path / "twice.tif").is_file()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_the_raster_of_another_program(dtype: str, tmp_path: Path) -> None:
    field = field_of(make_estimate()).array.astype(dtype)
    path = write_geotiff(tmp_path / "solution.tif", field, REFERENCE)
    estimate = read_shifts(path)
    points = pixel_points((70, 90))
    moved = (estimate.correction(points) - points).T.reshape(2, 70, 90)
    np.testing.assert_allclose(moved, field, atol=1e-4)
    assert estimate.reference.transform == REFERENCE.transform
    edge = estimate.correction(np.array([[-30.0, 20.0]])) - [[-30.0, 20.0]]
    np.testing.assert_allclose(edge[0], field[:, 20, 0], atol=1e-4)
    with pytest.raises(InputError, match="not a displacement file"):
        read_estimate(path)  # two bands could be anything, such as VV and VH: it must be asked for


def test_what_is_no_shift_raster(tmp_path: Path) -> None:
    def bad(data: Any) -> Path:
        return write_geotiff(tmp_path / "bad.tif", data, REFERENCE, overwrite=True)

    with pytest.raises(InputError, match="has 1 bands of float32"):
        read_shifts(bad(np.zeros((1, 70, 90), np.float32)))
    with pytest.raises(InputError, match="uint8"):
        read_shifts(bad(np.zeros((2, 70, 90), np.uint8)))
    with pytest.raises(InputError, match="not finite"):
        read_shifts(bad(np.full((2, 70, 90), np.nan, np.float32)))
    with pytest.raises(InputError, match="not a displacement file"):
        export_shifts(bad(np.zeros((2, 70, 90), np.float32)), tmp_path / "out.tif")
    with pytest.raises(ReadError, match="no estimate"):
        export_shifts(tmp_path, tmp_path / "out.tif")
    assert not (tmp_path / "out.tif").exists()


def test_an_existing_file_is_kept(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "shifts.tif"
    out.write_text("precious")
    with pytest.raises(OutputError, match="exists"):
        export_shifts(folder, out)
    assert out.read_text() == "precious"
    export_shifts(folder, out, overwrite=True)
    assert read_estimate(out).reference == REFERENCE
