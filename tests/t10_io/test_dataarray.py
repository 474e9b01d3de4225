"""DataArrays in and out: dimensions, CRS, rows either way, nodata, and no pixel computed too early."""

from __future__ import annotations

import warnings
from typing import Any

import dask.array
import numpy as np
import pytest
import rasterio
import rioxarray
import xarray
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from somareg.errors import InputError, NoDataError
from somareg.geometry.ground_control import GroundControl
from somareg.io import read_raster, write_geotiff
from somareg.io.dataarray import from_dataarray, kept_attributes, read_header, to_dataarray
from somareg.types import Grid, Raster

UTM = "EPSG:32633"
TRANSFORM = Affine(10.0, 0.0, 500000.0, 0.0, -10.0, 4650000.0)
HEIGHT, WIDTH = 70, 80


def pixels(bands: int = 2, dtype: str = "uint16") -> np.ndarray:
    return (np.arange(bands * HEIGHT * WIDTH).reshape(bands, HEIGHT, WIDTH) % 251).astype(dtype)


def make(data: np.ndarray | None = None, transform: Affine = TRANSFORM, crs: str | None = UTM) -> xarray.DataArray:
    """(band, y, x) as rioxarray opens a file."""
    data = pixels() if data is None else data
    coordinates: dict[str, Any] = {"band": np.arange(len(data)) + 1}
    if not (transform.b or transform.d):
        coordinates["x"] = transform.c + transform.a * (np.arange(data.shape[2]) + 0.5)
        coordinates["y"] = transform.f + transform.e * (np.arange(data.shape[1]) + 0.5)
    array = xarray.DataArray(data, coordinates, ("band", "y", "x"))
    return array.rio.write_crs(crs).rio.write_transform(transform) if crs else array.rio.write_transform(transform)


def read(array: xarray.DataArray, **options: Any) -> Raster:
    return from_dataarray(array, role="moving", **options)


# --- in ---------------------------------------------------------------------------------------------------------------


def test_a_file_opened_by_rioxarray_is_what_the_file_is(tmp_path: Any) -> None:
    data = pixels()
    data[:, :9, :7] = 3
    grid = Grid(WIDTH, HEIGHT, tuple(TRANSFORM)[:6], UTM)  # type: ignore[arg-type]
    path = write_geotiff(tmp_path / "a.tif", data, grid, nodata=3, descriptions=("VV", "VH"))
    expected = read_raster(path, role="moving")
    for options in ({}, {"masked": True}, {"chunks": {"x": 30}}):
        with rioxarray.open_rasterio(path, **options) as array:
            raster = read(array)
        assert raster.grid == expected.grid
        assert raster.descriptions == ("VV", "VH")
        np.testing.assert_array_equal(raster.mask, expected.mask)
        np.testing.assert_array_equal(raster.data[:, raster.mask], expected.data[:, raster.mask])
        assert raster.nodata == 3 or (np.isnan(raster.nodata) and options.get("masked"))


def test_dimensions_in_any_order_and_of_length_one() -> None:
    array = make()
    for turned in (array.transpose("y", "x", "band"), array.transpose("x", "band", "y"), array.expand_dims(time=[7])):
        raster = read(turned)
        np.testing.assert_array_equal(raster.data, array.to_numpy())
        assert raster.grid.transform == tuple(TRANSFORM)[:6]
    flat = read(array.isel(band=1, drop=True))
    np.testing.assert_array_equal(flat.data, array.to_numpy()[1:])
    named = array.rename(x="longitude", y="latitude").rio.write_crs("EPSG:4326")
    np.testing.assert_array_equal(read(named).data, array.to_numpy())
    odd = array.rename(x="col", y="row")
    with pytest.raises(InputError, match="set_spatial_dims"):
        read(odd)
    np.testing.assert_array_equal(read(odd.rio.set_spatial_dims(x_dim="col", y_dim="row")).data, array.to_numpy())


def test_two_more_dimensions_are_one_too_many() -> None:
    array = make().expand_dims(time=[1, 2])
    with pytest.raises(InputError, match=r"isel\(time=0\)"):
        read(array)
    assert read(array.isel(time=0)).data.shape == (2, HEIGHT, WIDTH)


def test_bands_by_any_other_name() -> None:
    array = make().rename(band="polarization").assign_coords(polarization=["VV", "VH"])
    assert read(array).descriptions == ("VV", "VH")


def test_a_crop_lies_where_its_coordinates_say() -> None:
    """rioxarray's written transform outlives a crop, a stride and a flip; the coordinates have the word."""
    array = make(pixels(1))
    cropped = read(array[:, 4:, 10:])
    assert cropped.grid.transform == pytest.approx((10, 0, 500100, 0, -10, 4649960))
    strided = read(make(np.zeros((1, 140, 160), np.uint8))[:, ::2, ::2])
    assert strided.grid.transform == pytest.approx((20, 0, 499995, 0, -20, 4650005))  # centres stay where they were
    flipped = array[:, ::-1]
    raster = read(flipped)
    assert raster.grid.transform == pytest.approx((10, 0, 500000, 0, 10, 4650000 - 10 * HEIGHT))
    np.testing.assert_allclose(
        raster.grid.to_map(np.array([[0.0, 0.0], [3.0, HEIGHT - 1.0]])),
        [[500005, 4650000 - 10 * HEIGHT + 5], [500035, 4649995]],
    )


@settings(max_examples=40, deadline=None)
@given(
    a=st.floats(1e-4, 500),
    e=st.floats(1e-4, 500),
    c=st.floats(-1e6, 1e6),
    f=st.floats(-1e6, 1e6),
    down=st.booleans(),
    written=st.booleans(),
)
def test_grids_survive_out_and_in(a: float, e: float, c: float, f: float, down: bool, written: bool) -> None:
    grid = Grid(WIDTH, HEIGHT, (a, 0.0, c, 0.0, -e if down else e, f), UTM)
    array = to_dataarray(Raster(pixels(1), np.ones((HEIGHT, WIDTH), bool), grid))
    if not written:
        del array.coords["spatial_ref"].attrs["GeoTransform"]
    back = read(array).grid
    assert (back.width, back.height) == (WIDTH, HEIGHT)
    corners = np.array([[-0.5, -0.5], [WIDTH - 0.5, HEIGHT - 0.5]])
    np.testing.assert_allclose(grid.to_pixel(back.to_map(corners)), corners, atol=2e-3 if written else 1e-3)
    if written:
        assert back.transform == grid.transform  # to the last digit


def test_a_rotated_grid_has_a_transform_and_no_coordinates() -> None:
    turn = np.deg2rad(20)
    rotated = Affine(
        *(10 * np.array([np.cos(turn), np.sin(turn)])), 500000.0, 10 * np.sin(turn), -10 * np.cos(turn), 4e6
    )
    array = make(pixels(1), rotated)
    assert "x" not in array.coords
    raster = read(array)
    assert raster.grid.transform == pytest.approx(tuple(rotated)[:6])
    again = to_dataarray(raster)
    assert "x" not in again.coords
    assert read(again).grid == raster.grid


def test_no_georeference_is_pixels() -> None:
    bare = xarray.DataArray(pixels(1)[0], dims=("y", "x"))
    assert read(bare).grid == Grid(WIDTH, HEIGHT)
    raster = read(bare.rio.write_crs(UTM))
    assert raster.grid == Grid(WIDTH, HEIGHT)
    assert "ignored" in raster.notes[0]
    back = read(to_dataarray(raster)).grid
    assert back == Grid(WIDTH, HEIGHT)


def test_uneven_coordinates_are_refused() -> None:
    array = make()
    x = array.x.to_numpy().copy()
    x[40:] += 10
    with pytest.raises(InputError, match="'x' of moving DataArray are not evenly spaced"):
        read(array.assign_coords(x=x))
    single = array.assign_coords(x=array.x.astype("float32"), y=array.y.astype("float32"))
    assert read(single).grid.transform == pytest.approx(tuple(TRANSFORM)[:6], abs=0.3)


def test_nodata_and_mask() -> None:
    data = pixels(2, "float32")
    data[0, :5] = -9
    data[1, 8] = np.nan
    array = make(data).rio.write_nodata(-9)
    raster = read(array)
    expected = np.ones((HEIGHT, WIDTH), bool)
    expected[:5] = expected[8] = False
    np.testing.assert_array_equal(raster.mask, expected)
    assert raster.nodata == -9
    mask = np.ones((HEIGHT, WIDTH), bool)
    mask[30:] = False
    np.testing.assert_array_equal(read(array, mask=mask).mask, expected & mask)
    assert read(array, nodata=-5).mask[:5].all()
    with pytest.raises(NoDataError):
        read(make(np.full((1, HEIGHT, WIDTH), np.nan)))


def test_scale_is_kept_and_told() -> None:
    array = make()
    array.attrs |= {"scale_factor": 0.01, "add_offset": 3.0, "MISSION": "S1", "rows": 7}
    raster = read(array)
    assert "raw values" in raster.notes[0]
    assert raster.tags == {"MISSION": "S1"}


@pytest.mark.parametrize("scales", [(0.01, 0.01), (0.01, 0.02)])
def test_scale_offset_and_units_go_in_and_out_as_rioxarray_has_them(tmp_path: Any, scales: tuple[float, float]) -> None:
    path = write_geotiff(tmp_path / "a.tif", pixels(), Grid(WIDTH, HEIGHT, tuple(TRANSFORM)[:6], UTM))  # type: ignore[arg-type]
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.scales, file.offsets, file.units = scales, (5.0, -2.0), ("dB", "degree")
    with warnings.catch_warnings(action="ignore"), rioxarray.open_rasterio(path) as array:
        raster = read(array)
        known = read_raster(path, role="moving")
        for each in (raster, known):
            assert (each.scales, each.offsets, each.units) == (scales, (5.0, -2.0), ("dB", "degree"))
        made = to_dataarray(raster)
        for key in ("scale_factor", "scales", "add_offset", "offsets"):
            assert made.attrs.get(key) == array.attrs.get(key)
        assert made.attrs["units"] == ("dB", "degree")
        assert read(made).scales == scales


def test_one_scale_and_unit_hold_for_all_bands() -> None:
    array = make()
    array.attrs |= {"scale_factor": np.float32(0.5), "add_offset": 1, "units": "dB"}
    raster = read(array)
    assert (raster.scales, raster.offsets, raster.units) == ((0.5, 0.5), (1.0, 1.0), ("dB", "dB"))
    assert {k: to_dataarray(raster).attrs[k] for k in ("scale_factor", "add_offset", "units")} == {
        "scale_factor": 0.5,
        "add_offset": 1.0,
        "units": "dB",
    }
    assert "scale_factor" not in to_dataarray(read(make())).attrs


@pytest.mark.parametrize("bad", ["much", (1.0, 2.0, 3.0), None, {"a": 1}])
def test_a_scale_that_is_no_number_is_told(bad: Any) -> None:
    array = make()
    array.attrs["scale_factor"] = bad
    raster = read(array)
    assert raster.scales == ()
    assert any("attribute scale_factor is no number" in note for note in raster.notes)


def test_a_rounded_nodata_value_is_the_one_that_was_rounded() -> None:
    data = np.ones((1, HEIGHT, WIDTH), np.float32)
    data[0, :9] = np.finfo(np.float32).min
    array = make(data)
    array.attrs["_FillValue"] = -3.40282e38
    assert (~read(array).mask).sum() == 9 * WIDTH
    assert (~read_header(array, "moving").read(0, 0, WIDTH, HEIGHT)[1]).sum() == 9 * WIDTH


def test_attributes_that_hold_on_any_grid() -> None:
    array = make()
    array.attrs |= {
        "MISSION": "S1",
        "rows": 7,
        "looks": [1, 5],
        "transform": (1,),
        "_FillValue": 3,
        "STATISTICS_MEAN": 2,
    }
    assert kept_attributes(array) == {"MISSION": "S1", "rows": 7, "looks": [1, 5]}
    assert kept_attributes(read(array)) == {}
    made = to_dataarray(read(array), kept=kept_attributes(array))
    assert (made.attrs["rows"], made.attrs["looks"]) == (7, [1, 5])


@pytest.mark.parametrize("dtype", ["datetime64[ns]", "U3", "object"])
def test_what_is_no_number(dtype: str) -> None:
    with pytest.raises(InputError, match="dtype"):
        read(make(np.zeros((1, HEIGHT, WIDTH), dtype)))


# --- Dask -------------------------------------------------------------------------------------------------------------


class Counted:
    """A (bands, 128, 192) Dask array in chunks of 64 px that counts how often each chunk is computed."""

    def __init__(self, bands: int = 1) -> None:
        self.calls: list[tuple[int, ...]] = []
        chunks = ((1,) * bands, (64, 64), (64, 64, 64))

        def chunk(block_info: Any = None) -> np.ndarray:
            where = tuple(block_info[None]["chunk-location"])
            self.calls.append(where)
            return np.full((1, 64, 64), 1.0 + sum(where), np.float32)

        data = dask.array.map_blocks(chunk, chunks=chunks, dtype=np.float32, meta=np.zeros((0, 0, 0), np.float32))
        self.array = make(np.zeros((bands, 128, 192), np.float32)).copy(data=data)


def test_nothing_is_computed_before_everything_was_checked() -> None:
    counted = Counted()
    with pytest.raises(InputError, match="max_pixels"):
        read(counted.array, max_pixels=1000)
    with pytest.raises(InputError, match="isel"):
        read(xarray.concat([counted.array] * 2, "time").expand_dims(member=[1, 2]))
    header = read_header(counted.array, "moving")
    assert header.grid.width == 192
    assert counted.calls == []
    raster = read(counted.array)
    assert sorted(counted.calls) == [(0, row, column) for row in range(2) for column in range(3)]  # each once
    assert raster.data.shape == (1, 128, 192)


def test_a_block_computes_its_chunks_only() -> None:
    counted = Counted()
    data, mask = read_header(counted.array, "moving").read(70, 10, 40, 30)
    assert counted.calls == [(0, 0, 1)]
    assert data.shape == mask.shape == (1, 30, 40)
    assert (data == 2).all()
    assert mask.all()


# --- out --------------------------------------------------------------------------------------------------------------


def test_out_to_rioxarray_and_to_a_file(tmp_path: Any) -> None:
    grid = Grid(WIDTH, HEIGHT, tuple(TRANSFORM)[:6], UTM)  # type: ignore[arg-type]
    raster = Raster(
        pixels(), np.ones((HEIGHT, WIDTH), bool), grid, nodata=7, descriptions=("VV", "VH"), tags={"A": "b"}
    )
    array = to_dataarray(raster, name="aligned", extra=1.5)
    assert array.dims == ("band", "y", "x")
    assert array.rio.crs.to_epsg() == 32633
    assert array.rio.nodata == 7
    assert tuple(array.rio.transform())[:6] == tuple(array.rio.transform(recalc=True))[:6] == grid.transform
    assert (array.name, array.attrs["A"], array.attrs["extra"]) == ("aligned", "b", 1.5)
    array.rio.to_raster(tmp_path / "a.tif")
    with rioxarray.open_rasterio(tmp_path / "a.tif") as again:
        np.testing.assert_array_equal(again.to_numpy(), raster.data)
        assert again.attrs["long_name"] == ("VV", "VH")
        np.testing.assert_array_equal(again.x, array.x)
        np.testing.assert_array_equal(again.y, array.y)


def test_coordinates_of_another_array_are_taken_exactly() -> None:
    """xarray aligns by equality of coordinates: those of the reference must come back bit by bit."""
    reference = make().rename(x="lon", y="lat")
    reference = reference.assign_coords(lon=reference.lon + 1e-7 * np.sin(np.arange(WIDTH)))
    reference = reference.rio.set_spatial_dims(x_dim="lon", y_dim="lat")
    raster = read(reference)
    array = to_dataarray(raster, like=reference)
    assert (array - reference).shape == reference.shape
    np.testing.assert_array_equal((array - reference).to_numpy(), 0)
    assert array.rio.crs == reference.rio.crs
    assert to_dataarray(raster, like=make()[:, 1:]).dims == ("band", "y", "x")  # another grid: not taken
    assert to_dataarray(raster, like="no array").sizes == {"band": 2, "y": HEIGHT, "x": WIDTH}


def test_invalid_integers_without_nodata_are_told_by_a_coordinate() -> None:
    mask = np.ones((HEIGHT, WIDTH), bool)
    mask[:3] = False
    array = to_dataarray(Raster(pixels(), mask, Grid(WIDTH, HEIGHT)))
    np.testing.assert_array_equal(array.valid, mask)
    assert "valid" not in to_dataarray(Raster(pixels(), mask, Grid(WIDTH, HEIGHT), nodata=0)).coords
    assert "valid" not in to_dataarray(Raster(pixels(), mask | True, Grid(WIDTH, HEIGHT))).coords


def test_ground_control_points_are_no_transform() -> None:
    points = ((0.0, 0.0, 5e5, 46e5), (79.0, 0.0, 501000.0, 46e5), (0.0, 69.0, 5e5, 4599000.0))
    control = GroundControl(points, "polynomial", (0.0, 0.0, 79.0, 69.0))
    grid = Grid(WIDTH, HEIGHT, control.transform, UTM, control)
    array = to_dataarray(Raster(pixels(), np.ones((HEIGHT, WIDTH), bool), grid))
    assert array.rio.crs is None
    assert set(array.coords) == {"band"}
