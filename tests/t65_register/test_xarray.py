"""DataArrays through `register`, `warp`, `Result.to_xarray` and the accessor."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import rasterio
import rioxarray
import xarray

import somareg
import somareg.xarray as accessor
from somareg.errors import ConfigError, EstimationError, UnsupportedError
from somareg.geometry import AffineTransform
from somareg.io.dataarray import to_dataarray
from somareg.types import Estimate, Grid, Raster, Result
from tests.synthetic import SyntheticPair
from tests.t65_register.conftest import REFERENCE, SIDE, UTM, Files, register


def opened(path: Path, **options: Any) -> xarray.DataArray:
    """A file as rioxarray reads it, in memory unless chunked."""
    array = rioxarray.open_rasterio(path, **options)
    assert isinstance(array, xarray.DataArray)
    return array


@pytest.fixture(scope="module")
def sar(files: Files) -> xarray.DataArray:
    return opened(files.moving)


@pytest.fixture(scope="module")
def optical(files: Files) -> xarray.DataArray:
    return opened(files.reference)


@pytest.fixture(scope="module")
def array_result(sar: xarray.DataArray, optical: xarray.DataArray) -> Result:
    return register(sar, optical, moving_bands=(1,))


# --- register ---------------------------------------------------------------------------------------------------------


def test_arrays_are_as_good_as_their_files(array_result: Result, file_result: Result) -> None:
    assert array_result.moving.grid == file_result.moving.grid
    assert array_result.reference.grid == file_result.reference.grid
    np.testing.assert_array_equal(array_result.moving.mask, file_result.moving.mask)
    np.testing.assert_array_equal(array_result.displacement.array, file_result.displacement.array)
    assert array_result.verdict == file_result.verdict


def test_rows_that_run_up(sar: xarray.DataArray, optical: xarray.DataArray, array_result: Result) -> None:
    """The same ground with ascending y: the same alignment, told on the rows as given."""
    result = register(sar, optical[:, ::-1], moving_bands=(1,))
    assert result.reference.grid.transform[4] == 10
    turned = result.displacement.array[:, ::-1] * np.array([1, -1], np.float32)[:, None, None]
    assert float(np.sqrt(((turned - array_result.displacement.array) ** 2).sum(0).mean())) < 0.25
    aligned, straight = result.to_xarray(), array_result.to_xarray()
    np.testing.assert_array_equal(aligned.y, optical.y[::-1])
    inner = slice(20, -20)
    ratio = aligned[0, ::-1].to_numpy()[inner, inner].astype(float) - straight[0].to_numpy()[inner, inner]
    assert np.median(np.abs(ratio)) < 0.1 * float(straight[0].std())


def test_arrays_without_georeference(pair: SyntheticPair, result: Result) -> None:
    moving = xarray.DataArray(pair.moving, dims=("band", "y", "x"))
    reference = xarray.DataArray(np.moveaxis(pair.reference, 0, -1), dims=("y", "x", "rgb"))
    found = register(moving, reference)
    np.testing.assert_array_equal(found.displacement.array, result.displacement.array)
    assert found.quality.metres_per_pixel is None


def test_an_array_and_a_file_go_together(sar: xarray.DataArray, files: Files, file_result: Result) -> None:
    mixed = register(sar, files.reference, moving_bands=(1,))
    np.testing.assert_array_equal(mixed.displacement.array, file_result.displacement.array)


def test_results_of_arrays_are_saved_like_others(array_result: Result, saved: Path, tmp_path: Path) -> None:
    out = array_result.save(tmp_path / "out", stac=True)
    with rasterio.open(out / "aligned.tif") as ours, rasterio.open(saved / "aligned.tif") as known:
        np.testing.assert_array_equal(ours.read(), known.read())
        assert (ours.transform, ours.crs, ours.nodata) == (known.transform, known.crs, known.nodata)
        assert ours.descriptions == known.descriptions


# --- to_xarray --------------------------------------------------------------------------------------------------------


def test_aligned_is_the_file_that_save_writes(array_result: Result, file_result: Result, saved: Path) -> None:
    with rasterio.open(saved / "aligned.tif") as file:
        data, crs = file.read(), file.crs
    for result in (array_result, file_result):
        aligned = result.to_xarray()
        np.testing.assert_array_equal(aligned.to_numpy(), data)
        assert aligned.dtype == np.uint16
        assert aligned.rio.crs == crs
        assert aligned.rio.nodata == 0
        assert tuple(aligned.rio.transform())[:6] == pytest.approx(REFERENCE.transform)
        assert aligned.attrs["long_name"] == ("VV", "VV upside down")
        assert aligned.attrs["somareg_verdict"] == "go"
        for name in ("probability", "predicted_rmse_px", "predicted_rmse_m"):
            assert aligned.attrs[f"somareg_{name}"] == pytest.approx(getattr(result.verdict, name), rel=1e-4)


def test_it_lies_on_the_reference_coordinate_by_coordinate(array_result: Result, optical: xarray.DataArray) -> None:
    aligned = array_result.to_xarray()
    both = xarray.align(aligned[0], optical[0], join="inner")
    assert both[0].shape == (SIDE, SIDE)
    assert (aligned[0] + optical[0]).shape == (SIDE, SIDE)


def test_displacement(array_result: Result) -> None:
    field = array_result.to_xarray("displacement")
    assert field.dtype == np.float32
    assert field.attrs["long_name"] == ("dx", "dy", "certainty", "sigma")
    assert "reference_xy + (dx, dy)" in field.attrs["convention"]
    np.testing.assert_array_equal(field[:2], array_result.displacement.array)
    np.testing.assert_array_equal(field[2], array_result.displacement.certainty)
    np.testing.assert_array_equal(field[3], array_result.displacement.sigma)
    assert field.rio.crs.to_epsg() == 32633


def test_a_no_go_is_not_handed_out_unasked(array_result: Result) -> None:
    failed = replace(array_result, verdict=replace(array_result.verdict, decision="no-go"))
    with pytest.raises(EstimationError, match=r"no-go .*force=True"):
        failed.to_xarray()
    attributes = failed.to_xarray(force=True).attrs
    assert attributes["somareg_verdict"] == "no-go"
    assert "somareg_probability" in attributes
    assert not [name for name in attributes if "predicted" in name]
    assert failed.to_xarray("displacement").shape == (4, SIDE, SIDE)


def test_an_unknown_output(array_result: Result) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'displacement'"):
        array_result.to_xarray("displacment")  # type: ignore[arg-type]


# --- warp -------------------------------------------------------------------------------------------------------------


def test_warp_gives_back_an_array(sar: xarray.DataArray, array_result: Result, saved: Path, tmp_path: Path) -> None:
    aligned = array_result.to_xarray()
    warped = somareg.warp(sar, array_result)
    np.testing.assert_array_equal(warped.to_numpy(), aligned.to_numpy())
    np.testing.assert_array_equal(warped.x, aligned.x)
    out = somareg.warp(sar, saved, tmp_path / "warped.tif")
    with rasterio.open(out) as file:
        np.testing.assert_array_equal(file.read(), aligned.to_numpy())
    coarse = somareg.warp(sar.coarsen(x=2, y=2, boundary="trim").mean(), saved, resolution="native")
    assert abs(coarse.rio.resolution()[0]) == pytest.approx(20, rel=0.01)
    assert coarse.rio.crs.to_epsg() == 32633


def test_warp_of_a_dask_array_computes_what_it_needs() -> None:
    """A reference that covers a corner of a large array needs the chunks under it and no others."""
    calls: list[tuple[int, int]] = []

    def chunk(block_info: Any = None) -> np.ndarray:
        where = block_info[None]["chunk-location"]
        calls.append((int(where[1]), int(where[2])))
        rows, columns = (np.arange(128) + 128 * n for n in where[1:])
        return (rows[:, None] * 1000.0 + columns)[None].astype(np.float32)

    grid = Grid(512, 512, (10.0, 0.0, 500000.0, 0.0, -10.0, 4650000.0), UTM)
    place = to_dataarray(Raster(np.zeros((1, 512, 512), np.float32), np.ones((512, 512), bool), grid))
    chunks = ((1,), (128,) * 4, (128,) * 4)
    data = dask.array.map_blocks(chunk, chunks=chunks, dtype=np.float32, meta=np.zeros((0, 0, 0), np.float32))
    large = place.copy(data=data)
    corner = Grid(100, 90, (10.0, 0.0, 501400.0, 0.0, -10.0, 4648600.0), UTM)  # from pixel (140, 140) on
    shift = AffineTransform.from_parameters(shift=(2.0, 3.0))
    warped = somareg.warp(large, Estimate(shift, corner, grid), resampling="bilinear")
    assert set(calls) == {(1, 1)}
    rows, columns = np.mgrid[140 + 3 : 140 + 3 + 90, 140 + 2 : 140 + 2 + 100]
    np.testing.assert_allclose(warped[0], rows * 1000 + columns, rtol=1e-6)


# --- the accessor and the extra ---------------------------------------------------------------------------------------


def test_the_accessor(sar: xarray.DataArray, optical: xarray.DataArray, array_result: Result) -> None:
    result = sar.somareg.register_to(optical, moving_bands=(1,), model="orientation")
    assert isinstance(result, Result)
    np.testing.assert_array_equal(result.displacement.array, array_result.displacement.array)
    np.testing.assert_array_equal(sar.somareg.warp(result), result.to_xarray())
    assert sar.somareg.assess(optical, moving_bands=(1,), model="orientation").verdict.decision == "review"
    assert isinstance(sar.somareg, accessor.SomaregAccessor)


def test_nothing_is_loaded_or_registered_until_asked() -> None:
    names = ("xarray", "rioxarray", "pystac", "dask", "pandas")
    code = f"""if True:
        import sys, somareg.register.api
        print([name for name in {names} if name in sys.modules])
        import xarray
        print(hasattr(xarray.DataArray, "somareg"))
        import somareg.xarray
        print(hasattr(xarray.DataArray, "somareg"))"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["[]", "False", "True"]


def test_without_rioxarray_the_message_names_the_extra(
    sar: xarray.DataArray, optical: xarray.DataArray, file_result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rioxarray", None)
    extra = r"rioxarray, which is not installed; pip install 'somareg\[xarray\]'"
    with pytest.raises(UnsupportedError, match=extra):
        register(sar, optical)
    with pytest.raises(UnsupportedError, match=extra):
        file_result.to_xarray()


# --- what a DataArray says of itself ----------------------------------------------------------------------------------


def test_scale_offset_units_and_attributes_are_kept_everywhere(
    sar: xarray.DataArray, optical: xarray.DataArray, tmp_path: Path
) -> None:
    told = {"scale_factor": 0.01, "add_offset": 5.0, "units": "dB"}
    array = sar.assign_attrs(told | {"looks": 4, "angles": np.array([30.0, 45.0])})
    result = register(array, optical, moving_bands=(1,))
    out = result.save(tmp_path / "out")
    outputs = [
        out / "aligned.tif",
        somareg.warp(array, result, tmp_path / "w1.tif"),
        somareg.warp(array, out, tmp_path / "w2.tif"),
    ]
    for path in outputs:
        with rasterio.open(path) as file:
            assert (file.scales, file.offsets, file.units) == ((0.01,) * 2, (5.0,) * 2, ("dB",) * 2)
            assert file.tags()["looks"] == "4"
            assert file.tags()["angles"] == "[30.0, 45.0]"
            assert file.tags()["MISSION"] == "synthetic"
    for made in (result.to_xarray(), somareg.warp(array, result), array.somareg.warp(out)):
        assert {key: made.attrs[key] for key in told} == told
        assert made.attrs["looks"] == 4
        np.testing.assert_array_equal(made.attrs["angles"], [30.0, 45.0])
        np.testing.assert_array_equal(made, outputs_of(outputs[0]))


def outputs_of(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def test_a_file_says_the_same_as_its_array(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "sar.tif"
    path.write_bytes(files.moving.read_bytes())
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets, file.units = (0.5, 0.5), (1.0, 1.0), ("dB", "dB")
    by_file, by_array = (register(image, files.reference, moving_bands=(1,)) for image in (path, opened(path)))
    for made in (by_file.to_xarray(), by_array.to_xarray()):
        assert (made.attrs["scale_factor"], made.attrs["add_offset"], made.attrs["units"]) == (0.5, 1.0, "dB")


def test_warp_of_an_array_takes_a_nodata_value_and_a_mask(sar: xarray.DataArray, array_result: Result) -> None:
    bare = sar.copy()
    bare.attrs.pop("_FillValue")
    zero = somareg.warp(bare, array_result, nodata=0)
    assert zero.rio.nodata == 0
    np.testing.assert_array_equal(zero, somareg.warp(sar, array_result))
    shown = np.ones(sar.shape[1:], np.uint8)
    shown[:, :90] = 0
    masked = bare.somareg.warp(array_result, nodata=0, mask=shown)
    assert (masked == 0).mean() > (zero == 0).mean() + 0.2
    same = bare.somareg.warp(array_result, nodata=0, mask=9 * (1 - shown), mask_values="9", bands=(2, 1))
    np.testing.assert_array_equal(same, masked[::-1])
