"""Which pixels are valid is what GDAL says, for any layout of bands; only what a user says instead is computed."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from rasterio.enums import ColorInterp

from somareg.errors import NoDataError
from somareg.io import from_array, read_raster
from somareg.io.source import Block, open_source
from somareg.io.validity import differs
from tests import layouts

SIDE, LOWEST = layouts.SIDE, layouts.LOWEST


@settings(max_examples=150, deadline=None)
@given(layouts.layouts())
def test_masks_equal_those_of_gdal(tmp_path_factory: pytest.TempPathFactory, layout: layouts.Layout) -> None:
    path = tmp_path_factory.mktemp("layout") / "a.img"
    data = layouts.write(path, layout)
    expected = layouts.gdal_says(path)
    if layout.is_float:
        expected &= np.isfinite(data)
    with warnings.catch_warnings(action="ignore"), open_source(path, role="moving") as source:
        every = source.dataset.indexes
        np.testing.assert_array_equal(source.read(bands=every)[1], expected)
        part = source.read(Block(5, 9, 40, 33))[1]
    own = [band - 1 for band in source.bands]
    np.testing.assert_array_equal(part, expected[own, 9:42, 5:45])
    matched = source.bands[:1]
    if expected[own].any():
        raster = read_raster(path, role="moving", matched=matched)
        np.testing.assert_array_equal(raster.valid, expected[own])
        np.testing.assert_array_equal(raster.mask, expected[own[0]])


# --- alpha ------------------------------------------------------------------------------------------------------------


def alpha_file(path: Path, values: np.ndarray, dtype: str = "uint8", at: int = 3, count: int = 4) -> Path:
    data = np.full((count, *values.shape), 7, dtype)
    data[at] = values
    shape = {"count": count, "height": values.shape[0], "width": values.shape[1], "dtype": dtype}
    with warnings.catch_warnings(action="ignore"), rasterio.open(path, "w", driver="GTiff", **shape) as file:
        colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, *[ColorInterp.undefined] * count][:count]
        colours[at] = ColorInterp.alpha
        file.colorinterp = colours
        file.write(data)
    return path


def ramp() -> np.ndarray:
    """149 values, 0 in the first column."""
    return np.broadcast_to(np.arange(149), (SIDE, 149))


@pytest.mark.parametrize(("dtype", "count"), [("uint8", 4), ("uint16", 2), ("float32", 2), ("uint8", 5), ("int16", 4)])
def test_a_soft_alpha_is_valid_above_zero(tmp_path: Path, dtype: str, count: int) -> None:
    path = alpha_file(tmp_path / "a.tif", ramp(), dtype, count - 1, count)
    raster = read_raster(path, role="moving")
    assert raster.count == count - 1
    np.testing.assert_array_equal(raster.mask, ramp() > 0)
    assert raster.alpha is not None
    np.testing.assert_array_equal(raster.alpha[0], ramp())
    assert raster.colorinterp[-1] == "alpha"
    assert any("flagged alpha and holds" in note for note in raster.notes)


def test_a_hard_alpha_needs_no_word(tmp_path: Path) -> None:
    path = alpha_file(tmp_path / "a.tif", np.where(ramp() > 40, 255, 0))
    assert not read_raster(path, role="moving").notes


def test_an_alpha_band_that_is_not_the_last_masks_nothing(tmp_path: Path) -> None:
    path = alpha_file(tmp_path / "a.tif", ramp(), at=0)
    raster = read_raster(path, role="moving")
    assert raster.mask.all()
    assert raster.colorinterp == ("alpha", "green", "blue", "undefined")
    assert any("flagged alpha and masks nothing" in note for note in raster.notes)


def test_a_band_that_is_named_is_imagery_although_it_is_flagged_alpha(tmp_path: Path) -> None:
    path = alpha_file(tmp_path / "a.tif", ramp())
    raster = read_raster(path, role="moving", bands=(4, 1))
    assert raster.count == 4
    assert raster.mask.all()
    assert raster.alpha is None
    np.testing.assert_array_equal(raster.data[3], ramp())


def test_a_nodata_value_that_is_given_is_none_of_alpha(tmp_path: Path) -> None:
    path = alpha_file(tmp_path / "a.tif", np.where(ramp() > 40, 255, 0))
    with open_source(path, role="moving", nodata=255) as source:
        _, mask = source.read(bands=(1, 4))
    np.testing.assert_array_equal(mask, np.broadcast_to(ramp() > 40, mask.shape))


# --- nodata values ----------------------------------------------------------------------------------------------------


def test_a_rounded_text_means_the_value_that_was_rounded(tmp_path: Path) -> None:
    """Whoever wrote the file wrote -3.40282e+38, and the pixels hold every digit."""
    data = np.ones((1, SIDE, SIDE), np.float32)
    data[0, :9] = LOWEST
    shape = {"count": 1, "height": SIDE, "width": SIDE, "dtype": "float32"}
    path = tmp_path / "a.tif"
    with (
        warnings.catch_warnings(action="ignore"),
        rasterio.open(path, "w", driver="GTiff", **shape, nodata=LOWEST) as f,
    ):
        f.write(data)
    whole = b"-3.4028234663852886e+38"
    content = path.read_bytes()
    assert whole in content
    path.write_bytes(content.replace(whole, b"-3.40282e+38".ljust(len(whole))))
    assert (~read_raster(path, role="moving").mask).sum() == 9 * SIDE
    # The same by hand: the option, and the nodata value of an array.
    for raster in (
        read_raster(path, role="moving", nodata=-3.40282e38),
        from_array(data, role="moving", nodata=-3.40282e38),
    ):
        assert (~raster.mask).sum() == 9 * SIDE


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8", "complex64"])
@pytest.mark.parametrize("nodata", [0.0, -9999.0, 255.0, 0.1, 1e20, None])
def test_values_differ_as_for_gdal(dtype: str, nodata: float | None) -> None:
    with np.errstate(all="ignore"):
        values = np.array([0, 255, -9999, 0.1, 1e20, 5]).astype(dtype)
        same = np.array([v == nodata for v in (0, 255, -9999, 0.1, 1e20, 5)])
    if np.dtype(dtype).kind in "iu":
        same = values == (nodata if nodata is not None else -1.5)
    np.testing.assert_array_equal(differs(values, nodata), ~same)


def test_a_value_that_is_given_stands_for_the_declared_one_but_not_for_a_mask_band(tmp_path: Path) -> None:
    layout = layouts.Layout("GTiff", "uint8", 2, (1.0, 1.0), None, "internal", 3)
    data = layouts.write(tmp_path / "a.tif", layout)
    with rasterio.open(tmp_path / "a.tif") as file:
        hidden = file.read_masks(1) == 0
    raster = read_raster(tmp_path / "a.tif", role="moving", nodata=2)
    np.testing.assert_array_equal(raster.valid, (data != 2) & ~hidden)
    plain = layouts.write(tmp_path / "b.tif", layouts.Layout("GTiff", "uint8", 2, (1.0, 1.0), None, "none", 3))
    np.testing.assert_array_equal(read_raster(tmp_path / "b.tif", role="moving", nodata=2).valid, plain != 2)


# --- bands that are matched -------------------------------------------------------------------------------------------


def test_bands_of_arrays_have_their_own_masks() -> None:
    data = np.ones((3, SIDE, SIDE), np.float32)
    data[1, :20], data[2] = np.nan, 0
    raster = from_array(data, role="moving", nodata=0)
    np.testing.assert_array_equal(raster.valid, np.isfinite(data) & (data != 0))
    assert not raster.mask.any()
    hidden = np.ma.masked_array(np.ones((2, SIDE, SIDE)), np.zeros((2, SIDE, SIDE), bool))
    hidden[1, 3] = np.ma.masked
    masked: Any = from_array(hidden, role="moving").band_masks
    assert masked[0].all()
    assert not masked[1, 3].any()
    with pytest.raises(NoDataError):
        from_array(np.full((2, SIDE, SIDE), np.nan), role="moving")


def test_what_is_decided_while_opening_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = alpha_file(tmp_path / "a.tif", ramp())
    with caplog.at_level(logging.INFO, "somareg.io"), open_source(path, role="moving"):
        pass
    assert sum("flagged alpha" in record.message for record in caplog.records) == 1
