"""What is valid in a file is valid in its output, with the values that it had, for any layout of bands."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp

from somareg.geometry import AffineTransform
from somareg.io import read_raster
from somareg.io.source import open_source
from somareg.types import Estimate, Grid, Reading
from somareg.warp import apply, apply_to_file
from tests import layouts
from tests.layouts import SIDE

GRID = Grid(SIDE, SIDE)
STILL = Estimate(AffineTransform.identity(), GRID, GRID)
SHIFT = Estimate(AffineTransform.from_parameters(shift=(0.4, -0.3)), GRID, GRID)


def opened(path: Path) -> rasterio.DatasetReader:
    with warnings.catch_warnings(action="ignore"):
        return rasterio.open(path)


def masks(path: Path, nodata: float | None = None) -> np.ndarray:
    with open_source(path, role="moving", nodata=nodata) as source:
        return source.read(bands=source.dataset.indexes)[1]


@settings(max_examples=100, deadline=None)
@given(layouts.layouts(), st.none() | st.sampled_from([0.0, 2.0, -1.0, 300.0]))
def test_nothing_is_lost_and_nothing_made_up(
    tmp_path_factory: pytest.TempPathFactory, layout: layouts.Layout, nodata: float | None
) -> None:
    folder = tmp_path_factory.mktemp("layout")
    data = layouts.write(folder / "a.img", layout)
    before = masks(folder / "a.img", nodata)
    out = apply_to_file(folder / "a.img", STILL, folder / "b.tif", reading=Reading(nodata=nodata))
    with opened(out) as file:
        after, kept = masks(out), file.read()
        gdal = file.read_masks() > 0
    own = [band for band in range(layout.count) if band != layout.alpha]
    np.testing.assert_array_equal(after[own], before[own])
    finite = np.isfinite(kept) if layout.is_float else np.ones(kept.shape, bool)
    np.testing.assert_array_equal((gdal & finite)[own], before[own])  # whoever reads it with GDAL sees the same
    np.testing.assert_array_equal(kept[before], data[before])
    whole = apply(folder / "a.img", STILL, reading=Reading(nodata=nodata))
    np.testing.assert_array_equal(whole.valid, before[own])


@settings(max_examples=40, deadline=None)
@given(layouts.layouts())
def test_no_invalid_value_enters_a_sample(tmp_path_factory: pytest.TempPathFactory, layout: layouts.Layout) -> None:
    """Valid pixels hold values between those of the valid pixels around them, whatever lies beside."""
    folder = tmp_path_factory.mktemp("layout")
    data = layouts.write(folder / "a.img", layout)
    before = masks(folder / "a.img")
    warped = apply(folder / "a.img", SHIFT, resampling="bilinear")
    own = [band for band in range(layout.count) if band != layout.alpha]
    for pixels, seen, values, valid in zip(warped.data, warped.valid, data[own], before[own], strict=True):
        assert np.isfinite(pixels[seen]).all()
        if valid.any():
            low, high = values[valid].astype(float).min(), values[valid].astype(float).max()
            room = 1.001 if not layout.is_float else 1e-5 * max(abs(low), abs(high), 1e-30)
            assert (pixels[seen].astype(float) >= low - room).all()
            assert (pixels[seen].astype(float) <= high + room).all()
        else:
            assert not seen.any()


def rgba(path: Path, alpha: np.ndarray, *, at: int = 3, count: int = 4, dtype: str = "uint8") -> np.ndarray:
    rng = np.random.default_rng(0)
    data = rng.integers(1, 200, (count, SIDE, SIDE)).astype(dtype)
    data[at] = alpha
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, *[ColorInterp.undefined] * count][:count]
    colours[at] = ColorInterp.alpha
    shape = {"count": count, "height": SIDE, "width": SIDE, "dtype": dtype}
    with warnings.catch_warnings(action="ignore"), rasterio.open(path, "w", driver="GTiff", **shape) as file:
        file.colorinterp = colours
        file.write(data)
    return data


SOFT = np.random.default_rng(3).integers(0, 149, (SIDE, SIDE))


@pytest.mark.parametrize(
    ("at", "count", "dtype"), [(3, 4, "uint8"), (1, 2, "uint16"), (4, 5, "uint8"), (0, 4, "uint8")]
)
def test_a_soft_alpha_stays_as_soft_as_it_was(tmp_path: Path, at: int, count: int, dtype: str) -> None:
    data = rgba(tmp_path / "a.tif", SOFT, at=at, count=count, dtype=dtype)
    out = apply_to_file(tmp_path / "a.tif", STILL, tmp_path / "b.tif")
    with opened(out) as file:
        assert file.colorinterp[at] == ColorInterp.alpha
        np.testing.assert_array_equal(file.read(at + 1), SOFT)
        followed = at == count - 1
        seen = np.broadcast_to(SOFT > 0, (count, SIDE, SIDE)) if followed else np.ones((count, SIDE, SIDE), bool)
        np.testing.assert_array_equal(np.where(seen, file.read(), 0), np.where(seen, data, 0))
    moved = apply_to_file(tmp_path / "a.tif", SHIFT, tmp_path / "c.tif")
    with opened(moved) as file:
        assert len(np.unique(file.read(at + 1))) > 100
        if followed:  # no pixel that is valid becomes invalid because alpha was rounded to nothing
            np.testing.assert_array_equal(file.read(at + 1) > 0, apply(tmp_path / "a.tif", SHIFT).mask)


def test_a_raster_in_memory_keeps_its_alpha(tmp_path: Path) -> None:
    rgba(tmp_path / "a.tif", SOFT, at=0)
    raster = read_raster(tmp_path / "a.tif", role="moving")
    by_memory, by_file = (
        apply_to_file(one, SHIFT, tmp_path / f"{i}.tif") for i, one in enumerate((raster, raster.path))
    )
    with opened(by_memory) as memory, opened(by_file) as file:
        np.testing.assert_array_equal(memory.read(), file.read())
        assert memory.colorinterp == file.colorinterp
    again = apply(apply(raster, STILL), STILL)
    np.testing.assert_array_equal(again.alpha, raster.alpha)
    assert again.colorinterp == raster.colorinterp


def test_near_infrared_that_is_flagged_alpha_is_written_as_what_it_is(tmp_path: Path) -> None:
    """Named among the bands it is imagery: its zeros make no hole, and it is sampled like any other band."""
    data = rgba(tmp_path / "a.tif", SOFT)
    named = Reading(bands=(1, 2, 3, 4))
    out = apply_to_file(tmp_path / "a.tif", STILL, tmp_path / "b.tif", reading=named)
    with opened(out) as file:
        np.testing.assert_array_equal(file.read(), data)
        assert file.colorinterp[3] == ColorInterp.undefined
        assert (file.read_masks() > 0).all()


def test_some_bands(tmp_path: Path) -> None:
    data = rgba(tmp_path / "a.tif", np.where(SOFT > 70, 255, 0))
    out = apply_to_file(tmp_path / "a.tif", STILL, tmp_path / "b.tif", bands=(3, 1))
    with opened(out) as file:
        assert file.count == 2
        assert [each.name for each in file.colorinterp] == ["blue", "red"]
        np.testing.assert_array_equal(file.read_masks(1) > 0, SOFT > 70)  # the alpha band left a mask
        np.testing.assert_array_equal(file.read(1)[SOFT > 70], data[2][SOFT > 70])


# --- one nodata value for several -------------------------------------------------------------------------------------


def per_band(path: Path, data: np.ndarray, nodata: list[float]) -> Path:
    shape = {"count": len(data), "height": SIDE, "width": SIDE, "dtype": data.dtype}
    with warnings.catch_warnings(action="ignore"), rasterio.open(path, "w", driver="HFA", **shape) as file:
        file.write(data)
        file._set_nodatavals(nodata)
    return path


def test_bands_with_nodata_values_of_their_own_get_one_that_no_pixel_holds(tmp_path: Path) -> None:
    """-1 is no data in the first band and a value in the second, and so on round."""
    data = np.random.default_rng(0).integers(5, 90, (3, SIDE, SIDE)).astype(np.int16)
    own = [-1, -2000, -3000]
    for band in range(3):
        data[band, band * 10 : band * 10 + 10] = own[band]
        data[band, 40:50] = own[(band + 1) % 3]
    expected = data != np.array(own)[:, None, None]
    path = per_band(tmp_path / "a.img", data, own)
    for estimate in (STILL, SHIFT):
        out = apply_to_file(path, estimate, tmp_path / "b.tif", resampling="nearest", overwrite=True)
        with opened(out) as file:
            assert file.nodata not in own
            np.testing.assert_array_equal(file.read_masks() > 0, expected)
            np.testing.assert_array_equal(file.read()[expected], data[expected])
    moved = apply(path, SHIFT, resampling="bilinear")
    assert moved.data[moved.valid].min() >= -3000


def test_real_numbers_get_nan_and_bytes_a_value_that_is_left(tmp_path: Path) -> None:
    real = np.random.default_rng(0).normal(size=(2, SIDE, SIDE)).astype(np.float32)
    real[0, :9], real[1, 9:20] = -9999, -1
    with opened(apply_to_file(per_band(tmp_path / "a.img", real, [-9999, -1]), STILL, tmp_path / "a.tif")) as file:
        assert np.isnan(file.nodata)
        assert (file.read_masks() == 0).sum() == 20 * SIDE
    data = np.random.default_rng(0).integers(0, 255, (2, SIDE, SIDE)).astype(np.uint8)
    data[data == 77] = 78
    with opened(apply_to_file(per_band(tmp_path / "b.img", data, [0, 3]), STILL, tmp_path / "b.tif")) as file:
        assert file.nodata in (77, 255)
        valid = data != np.array([0, 3])[:, None, None]
        np.testing.assert_array_equal(file.read_masks() > 0, valid)
        np.testing.assert_array_equal(file.read()[valid], data[valid])


def test_a_sampled_value_is_kept_off_all_that_gdal_takes_for_nodata(tmp_path: Path) -> None:
    """GDAL compares floats to some of their last digits; a neighbour of the nodata value is nodata for it."""
    data = np.where(np.arange(SIDE) % 2, -9998.5, -9999.5).astype(np.float32)
    data = np.broadcast_to(data, (1, SIDE, SIDE))
    shape = {"count": 1, "height": SIDE, "width": SIDE, "dtype": "float32", "nodata": -9999.0}
    with warnings.catch_warnings(action="ignore"), rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **shape) as f:
        f.write(data)
    half = Estimate(AffineTransform.from_parameters(shift=(0.5, 0)), GRID, GRID)
    with opened(apply_to_file(tmp_path / "a.tif", half, tmp_path / "b.tif", resampling="bilinear")) as file:
        assert (file.read_masks(1)[:, :-1] > 0).all()
        np.testing.assert_allclose(file.read(1)[:, :-1], -9999, atol=0.1)


def test_a_mask_band_beside_a_nodata_value_still_decides(tmp_path: Path) -> None:
    """GDAL looks at the mask; a valid pixel may hold the nodata value, and keeps it."""
    data = np.random.default_rng(0).integers(0, 4, (1, SIDE, SIDE)).astype(np.uint8)
    shape = {"count": 1, "height": SIDE, "width": SIDE, "dtype": "uint8", "nodata": 0}
    shown = np.where(SOFT > 60, 255, 0).astype(np.uint8)
    with (
        warnings.catch_warnings(action="ignore"),
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **shape) as file,
    ):
        file.write(data)
        file.write_mask(shown)
    with opened(apply_to_file(tmp_path / "a.tif", STILL, tmp_path / "b.tif")) as file:
        np.testing.assert_array_equal(file.read_masks(1), shown)
        np.testing.assert_array_equal(file.read(1)[shown > 0], data[0][shown > 0])
        assert file.nodata == 0
