"""Where DataArrays are whose coordinates, transform and CRS were written by others than rioxarray."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rioxarray  # noqa: F401  (gives arrays their `.rio`)
import xarray
from affine import Affine
from rasterio.crs import CRS

from somareg.io.dataarray import from_dataarray, to_dataarray
from somareg.types import Raster

T = Affine(10.0, 0.0, 400000.0, 0.0, -10.0, 3800000.0)
SIDE = 80


def stacked(shift: float = 0.0, transform: Any = T, **more: Any) -> xarray.DataArray:
    """An item of a stack as stackstac makes it: x and y of corners (`shift` 0) or of centres (0.5), the rest aside."""
    x = T.c + T.a * (np.arange(SIDE) + shift)
    y = T.f + T.e * (np.arange(SIDE) + shift)
    coordinates = {"band": ["vv"], "y": y, "x": x, "epsg": 32611, "id": "S1"}
    attrs = {"transform": transform, "crs": "epsg:32611", "resolution": 10.0} | more
    data = np.arange(SIDE * SIDE, dtype="float32").reshape(1, SIDE, SIDE)
    return xarray.DataArray(
        data, coordinates, ("band", "y", "x"), attrs={k: v for k, v in attrs.items() if v is not None}
    )


def read(array: xarray.DataArray) -> Raster:
    return from_dataarray(array, role="moving")


@pytest.mark.parametrize("transform", [T, tuple(T), tuple(T)[:6], list(T), np.array(tuple(T))])
def test_corners_are_seen_by_the_transform_that_stackstac_writes(transform: Any) -> None:
    raster = read(stacked(0.0, transform))
    assert raster.grid.transform == pytest.approx(tuple(T)[:6])
    assert any("corners" in note for note in raster.notes)
    centres = read(stacked(0.5, transform))
    assert centres.grid.transform == pytest.approx(tuple(T)[:6])
    assert not any("corners" in note for note in centres.notes)


def test_crops_and_turned_rows_keep_their_place() -> None:
    whole = stacked(0.0)
    for part, corner in (
        (whole[:, 5:75, 3:], (400030.0, 3799950.0)),
        (whole.isel(y=slice(None, None, -1)), (400000.0, 3800000.0 - 10 * SIDE)),
    ):
        raster = read(part)
        a, _, c, _, e, f = raster.grid.transform
        assert (c, f) == pytest.approx(corner)
        # The first pixel's centre lies half a pixel from its corner, whichever way rows run.
        assert raster.grid.to_map(np.zeros((1, 2)))[0] == pytest.approx((c + a / 2, f + e / 2))
        assert float(part.y[0]) == pytest.approx(f + e / 2 + 5)


def test_without_a_transform_coordinates_are_centres() -> None:
    raster = read(stacked(0.0, None))
    assert raster.grid.transform == pytest.approx((10, 0, 399995, 0, -10, 3800005))


def test_a_transform_of_something_else_is_told_and_not_used() -> None:
    for other in (T @ Affine.translation(0.3, 0.0), T @ Affine.scale(2)):
        raster = read(stacked(0.5, other))
        assert raster.grid.transform == pytest.approx(tuple(T)[:6])
        assert any("disagrees" in note for note in raster.notes)
    for nonsense in ("text", 7, [1, 2], [np.nan] * 6, {"a": 1}):
        assert read(stacked(0.5, nonsense)).grid.transform == pytest.approx(tuple(T)[:6])


@pytest.mark.parametrize(("key", "value"), [("epsg", 32611), ("proj:epsg", 32611.0), ("proj:code", "EPSG:32611")])
def test_the_crs_may_be_a_coordinate(key: str, value: Any) -> None:
    array = stacked(0.5, crs=None).drop_vars("epsg").assign_coords({key: value})
    raster = read(array)
    assert raster.grid.crs is not None
    assert CRS.from_wkt(raster.grid.crs) == CRS.from_epsg(32611)
    assert any(key in note for note in raster.notes)
    nonsense = read(array.assign_coords({key: "nonsense"}))
    assert nonsense.grid.crs is None
    assert any("no CRS" in note for note in nonsense.notes)


def test_out_and_in_again_is_the_same_place() -> None:
    array = stacked(0.0)
    raster = read(array)
    again = read(to_dataarray(raster, like=array))
    assert again.grid.transform == pytest.approx(raster.grid.transform)
