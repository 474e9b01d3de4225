"""Validity on its way through `register`: matched bands, masks in files, holes, and out again in every output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray

import somareg
from somareg.errors import ConfigError, NoDataError
from somareg.io import read_estimate, read_raster
from somareg.register.api import plan
from somareg.types import IN_MEMORY, Result
from tests.synthetic import SyntheticPair
from tests.t65_register.conftest import REFERENCE, SIDE, UTM, Files, moving_grid, register, write, write_pair


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """One band of amplitude, valid everywhere."""

    def convert(power: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(np.sqrt(power) * 2000), 1, 65535).astype(np.uint16)

    return write_pair(tmp_path_factory.mktemp("clean"), moving_grid(UTM, 10.0), convert=convert)


@pytest.fixture(scope="module")
def expected(clean: Files) -> Result:
    return register(clean.moving, clean.reference)


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def assert_same(result: Result, expected: Result) -> None:
    np.testing.assert_array_equal(result.displacement.array, expected.displacement.array)
    assert result.verdict == expected.verdict


# --- bands that are matched -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["file", "array", "DataArray", "reference"])
def test_a_band_that_is_not_matched_makes_no_pixel_invalid(
    clean: Files, expected: Result, tmp_path: Path, door: str
) -> None:
    """A flag of layover, 0 for none, in a file whose nodata value is 0; an edge that the second band does not reach."""
    (amplitude,) = pixels(clean.moving)
    flag, half = np.zeros_like(amplitude), amplitude.copy()
    flag[50:60, 50:60] = 1
    half[:, :150] = 0
    stack = np.stack([amplitude, half, flag])
    path = write(tmp_path / "stack.tif", stack, clean.moving_grid, nodata=0)
    options: dict[str, Any] = {"moving_bands": "1"}
    if door == "file":
        result = register(path, clean.reference, **options)
        assert result.moving.count == 3
        aligned = result.save(tmp_path / "out") / "aligned.tif"
        with rasterio.open(aligned) as file:
            first, second, third = (float((file.read_masks(band) > 0).mean()) for band in (1, 2, 3))
        assert first > 0.95  # each band keeps what is its own
        assert 0.2 < second < 0.6
        assert 0 < third < 0.01
    elif door == "DataArray":
        import rioxarray

        array = rioxarray.open_rasterio(path)
        assert isinstance(array, xarray.DataArray)
        result = register(array, clean.reference, **options)
    elif door == "array":
        expected = register(amplitude, pixels(clean.reference), moving_nodata=0)
        result = register(stack, pixels(clean.reference), moving_nodata=0, **options)
    else:
        swapped = {"moving_modality": "optical", "reference_modality": "sar"}
        expected = register(clean.reference, clean.moving, **swapped)
        result = register(clean.reference, path, reference_bands="1", **swapped)
        assert result.reference.mask.all()
        assert_same(result, expected)
        return
    assert result.moving.mask.all()
    assert_same(result, expected)


def test_bands_that_leave_nothing_together_are_named(clean: Files, tmp_path: Path) -> None:
    (amplitude,) = pixels(clean.moving)
    flag, half = np.zeros_like(amplitude), amplitude.copy()
    half[:, :150] = 0
    path = write(tmp_path / "flag.tif", np.stack([amplitude, amplitude, flag]), clean.moving_grid, nodata=0)
    with pytest.raises(
        NoDataError, match=r"in each band: 1 \(100%\), 2 \(100%\), 3 \(0%\); name fewer bands, for example 1,2"
    ):
        register(path, clean.reference)
    path = write(tmp_path / "half.tif", np.stack([amplitude, half]), clean.moving_grid, nodata=0)
    result = register(path, clean.reference)
    assert any("name fewer bands, for example 1" in note for note in result.notes)


def test_bands_have_the_numbers_of_the_file(clean: Files, expected: Result, tmp_path: Path) -> None:
    """Alpha in the first place: the image is band 2 for GDAL, and so it is here."""
    (amplitude,) = pixels(clean.moving)
    noise = np.random.default_rng(0).integers(1, 9000, amplitude.shape).astype(np.uint16)
    path = write(tmp_path / "a.tif", np.stack([np.full_like(amplitude, 65535), amplitude, noise]), clean.moving_grid)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [rasterio.enums.ColorInterp[name] for name in ("alpha", "gray", "undefined")]
    assert_same(register(path, clean.reference, moving_bands="2"), expected)
    in_memory = read_raster(path, role="moving")  # as a batch keeps the reference of a series
    assert_same(register(in_memory, clean.reference, moving_bands="2"), expected)
    with pytest.raises(ConfigError, match=r"band 1 of .* is its alpha band"):
        register(in_memory, clean.reference, moving_bands="1")
    with pytest.raises(ConfigError, match="no band 4; choose from 1 to 3"):
        register(path, clean.reference, moving_bands="4")


def test_near_infrared_that_is_flagged_alpha(clean: Files, tmp_path: Path) -> None:
    """Scattered zeros of water in it are holes for GDAL, and pixels like others for who names the band."""
    red = pixels(clean.reference)[0]
    infrared = red.copy()
    infrared[np.random.default_rng(0).random(red.shape) < 0.02] = 0
    path = write(tmp_path / "rgbn.tif", np.stack([red, red, red, infrared]), REFERENCE, photometric="RGB", alpha="yes")
    by_gdal = register(clean.moving, path)
    assert by_gdal.reference.mask.sum() == (infrared > 0).sum()
    assert clean.rmse(by_gdal) < 0.5
    assert any("flagged alpha" in note and "1,2,3,4" in note for note in by_gdal.notes)
    named = register(clean.moving, path, reference_bands="1,2,3,4")
    assert named.reference.mask.all()
    assert named.reference.count == 4
    assert clean.rmse(named) < 0.5


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_scattered_holes_do_not_blind(clean: Files, expected: Result, tmp_path: Path, share: float) -> None:
    holes = np.random.default_rng(0).random(clean.moving_grid.shape) < share
    path = write(tmp_path / "a.tif", np.where(holes, 0, pixels(clean.moving)), clean.moving_grid, nodata=0)
    result = register(path, clean.reference)
    assert result.verdict.decision == expected.verdict.decision
    apart = result.displacement.array - expected.displacement.array
    assert np.sqrt((apart**2).sum(0).mean()) < 0.3
    assert any("small holes, bridged for matching only" in note for note in result.notes)
    assert result.moving.mask.mean() == pytest.approx(1 - share, abs=0.02)  # and nowhere else


# --- masks in files ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scl(clean: Files) -> Path:
    """Classes on pixels of 20 m: clouds (8, 9) over a third, 4 elsewhere."""
    grid = moving_grid(UTM, 20.0)
    classes = np.full((1, *grid.shape), 4, np.uint8)
    classes[0, : grid.height // 3] = np.where(np.arange(grid.width) % 2, 8, 9)
    return write(clean.moving.parent / "scl.tif", classes, grid)


CLOUDS: dict[str, Any] = {"moving_mask_values": "3,8-10"}


@pytest.fixture(scope="module")
def masked(clean: Files, scl: Path) -> Result:
    """A strong lure under the clouds: the picture itself, elsewhere."""
    data = pixels(clean.moving)
    third = 2 * (moving_grid(UTM, 20.0).height // 3)
    lure = np.roll(data, 9, axis=2)
    lure[:, third:] = data[:, third:]
    path = write(clean.moving.parent / "lure.tif", lure, clean.moving_grid)
    return register(path, clean.reference, moving_mask=scl, **CLOUDS)


def test_clouds_have_no_say(clean: Files, masked: Result, scl: Path) -> None:
    third = 2 * (moving_grid(UTM, 20.0).height // 3)
    mask = np.ones(clean.moving_grid.shape, bool)
    mask[:third] = False
    np.testing.assert_array_equal(masked.moving.mask, mask)
    assert clean.rmse(masked) < 0.8
    by_hand = pixels(Path(str(masked.moving.path))).astype(np.float32)
    by_hand[:, ~mask] = np.nan
    path = write(clean.moving.parent / "by_hand.tif", by_hand, clean.moving_grid)
    np.testing.assert_allclose(masked.displacement.array, register(path, clean.reference).displacement.array, atol=1e-3)
    assert masked.settings["moving_mask"] == str(scl)
    assert masked.settings["moving_mask_values"] == "3,8-10"
    assert any("invalid by moving mask image" in note and "3,8-10" in note for note in masked.notes)


def test_the_mask_is_in_every_output_and_warp_remembers_it(masked: Result, tmp_path: Path) -> None:
    out = masked.save(tmp_path / "out")
    report = json.loads((out / "report.json").read_text())
    assert report["settings"]["moving_mask_values"] == "3,8-10"
    with rasterio.open(out / "aligned.tif") as file:
        aligned, seen = file.read(), file.read_masks(1) > 0
    assert 0.5 < seen.mean() < 0.75
    for estimate in (masked, out, out / "report.json", read_estimate(out)):
        warped = somareg.warp(masked.moving.path, estimate)
        np.testing.assert_array_equal(warped.mask, seen)
        np.testing.assert_array_equal(warped.data[:, seen], aligned[:, seen])
    assert somareg.warp(masked.moving.path, out, mask="none").mask.mean() > 0.95
    points = somareg.estimate_from_points(out / "tie_points.geojson", reference=REFERENCE, moving=masked.moving.path)
    assert 0.5 < somareg.warp(masked.moving.path, points).mask.mean() < 0.75


def test_warp_takes_a_mask_for_any_raster(masked: Result, clean: Files, scl: Path, tmp_path: Path) -> None:
    band = write(tmp_path / "b.tif", np.full((1, *clean.moving_grid.shape), 7, np.uint8), clean.moving_grid)
    assert somareg.warp(band, masked).mask.mean() > 0.95  # not of its date
    own = somareg.warp(band, masked, mask=scl, mask_values=[8, 9])
    assert 0.5 < own.mask.mean() < 0.75
    (done,) = somareg.warp_many([band], masked, tmp_path / "many", mask=scl, mask_values="8,9")
    assert done.failure is None
    with rasterio.open(done.output) as file:
        np.testing.assert_array_equal(file.read_masks(1) > 0, own.mask)


def test_assess_and_plan_take_it(clean: Files, scl: Path) -> None:
    options: dict[str, Any] = {"reference_mask": scl, "reference_mask_values": "8,9", "model": "orientation"}
    found = somareg.assess(clean.moving, clean.reference, **options)
    share = found.result.reference.mask.mean()
    assert 0.6 < share < 0.75
    assert plan(clean.moving, clean.reference, **options)["moving"]["bands"] == 1
    with pytest.raises(ConfigError, match="reference_mask_values lists classes of a mask"):
        register(clean.moving, clean.reference, reference_mask_values="3")


def test_classes_in_memory(pair: SyntheticPair) -> None:
    classes = np.zeros((192, 192), np.uint8)
    classes[:, :70] = 9
    by_bool = register(pair.moving, pair.reference, moving_mask=classes == 0)
    by_class = register(pair.moving, pair.reference, moving_mask=classes, moving_mask_values="8-10")
    assert_same(by_class, by_bool)
    assert (by_class.settings["moving_mask"], by_class.settings["moving_mask_values"]) == (IN_MEMORY, "8-10")
    np.testing.assert_array_equal(somareg.warp(pair.moving, by_class).mask, somareg.warp(pair.moving, by_bool).mask)
    assert somareg.warp(pair.moving, by_class).mask.mean() < 0.7  # the image that was registered, and its mask
    assert somareg.warp(pair.moving.copy(), by_class).mask.mean() > 0.9
    explicit = somareg.warp(pair.moving.copy(), by_class, mask=classes, mask_values="8-10")
    np.testing.assert_array_equal(explicit.mask, somareg.warp(pair.moving, by_class).mask)


def test_a_mask_file_goes_with_arrays(pair: SyntheticPair, tmp_path: Path) -> None:
    classes = np.ones((1, 192, 192), np.uint8)
    classes[:, :, :70] = 0
    grid = REFERENCE.part(0, 0, 192, 192)
    path = write(tmp_path / "mask.tif", classes, grid)
    by_file = register(pair.moving, pair.reference, moving_mask=path)
    assert_same(by_file, register(pair.moving, pair.reference, moving_mask=classes[0]))


# --- nodata -----------------------------------------------------------------------------------------------------------


def test_warp_remembers_a_nodata_value_that_was_only_said(clean: Files, tmp_path: Path) -> None:
    data = pixels(clean.moving)
    data[:, :, :60] = 0
    path = write(tmp_path / "a.tif", data, clean.moving_grid)
    result = register(path, clean.reference, moving_nodata=0)
    out = result.save(tmp_path / "out")
    with rasterio.open(out / "aligned.tif") as file:
        aligned = file.read()
        assert file.nodata == 0
    for estimate in (result, out):
        with rasterio.open(somareg.warp(path, estimate, tmp_path / "w.tif", overwrite=True)) as file:
            np.testing.assert_array_equal(file.read(), aligned)
            assert file.nodata == 0
    (done,) = somareg.warp_many([path], out, tmp_path / "many")
    assert done.failure is None
    np.testing.assert_array_equal(pixels(done.output), aligned)
    assert result.displacement.array.shape == (2, SIDE, SIDE)
