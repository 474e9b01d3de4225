"""The moving image on the reference grid, for matching."""

import dataclasses

import numpy as np
import pytest
import rasterio

from somareg.errors import ConfigError
from somareg.io import georeference
from somareg.preprocess.grid import to_reference_grid
from somareg.types import Grid, Raster

UTM = rasterio.CRS.from_epsg(32632).to_wkt()
REF = Grid(120, 100, (10, 0, 500000, 0, -10, 5000000), UTM)


def ramp(grid, dtype=np.float32):
    """East and south metres from the corner of REF: linear, so every exact sampler reproduces it."""
    y, x = np.mgrid[0 : grid.height, 0 : grid.width]
    map_xy = grid.to_map(np.stack([x.ravel(), y.ravel()], -1).astype(float))
    data = np.stack([map_xy[:, 0] - 500000, 5000000 - map_xy[:, 1]]).reshape(2, *grid.shape)
    return Raster(data.astype(dtype), np.ones(grid.shape, bool), grid)


def moving_grid(size):
    n = round(1600 / size)
    return Grid(n, n, (size, 0, 499800, 0, -size, 5000200), UTM)


@pytest.mark.parametrize("size", [10.0, 7.0, 25.0, 4.0])
@pytest.mark.parametrize("pad", [0, 16])
def test_ground_stays_in_place(size, pad):
    grid = moving_grid(size)
    data, mask = to_reference_grid(ramp(grid), REF, georeference(REF, grid), pad=pad)
    assert data.shape == (2, 100 + 2 * pad, 120 + 2 * pad) and data.dtype == np.float32
    y, x = np.mgrid[-pad : 100 + pad, -pad : 120 + pad]
    inner = (x >= -15) & (x < 135) & (y >= -15) & (y < 115)
    assert mask[inner].all()
    np.testing.assert_allclose(data[0][inner], ((x + 0.5) * 10)[inner], atol=0.02)
    np.testing.assert_allclose(data[1][inner], ((y + 0.5) * 10)[inner], atol=0.02)


def test_outside_is_masked_and_zero():
    grid = dataclasses.replace(moving_grid(10.0), width=60)
    raster = ramp(grid)
    data, mask = to_reference_grid(raster, REF, georeference(REF, grid), pad=0)
    assert mask[:, :40].all() and not mask[:, 41:].any() and not data[:, ~mask].any()


def test_bands_and_complex_amplitude():
    grid = moving_grid(10.0)
    raster = ramp(grid)
    data, _ = to_reference_grid(raster, REF, georeference(REF, grid), pad=0, bands=[2])
    np.testing.assert_allclose(data[0, :, 0], (np.arange(100) + 0.5) * 10, atol=0.02)
    turned = dataclasses.replace(
        raster, data=raster.data * np.exp(1j * np.random.default_rng(0).random(grid.shape) * 6)
    )
    amplitude, _ = to_reference_grid(turned, REF, georeference(REF, grid), pad=0, bands=[2])
    np.testing.assert_allclose(amplitude, data, atol=1e-3)
    with pytest.raises(ConfigError, match="no band 3; choose from 1 to 2"):
        to_reference_grid(raster, REF, georeference(REF, grid), pad=0, bands=[3])


def test_masked_pixels_do_not_bleed():
    grid = moving_grid(7.0)
    mask = np.random.default_rng(0).random(grid.shape) > 0.2
    data = np.where(mask, 2.0, np.nan)[None]
    out, valid = to_reference_grid(Raster(data, mask, grid), REF, georeference(REF, grid), pad=4)
    np.testing.assert_allclose(out[0][valid], 2.0, rtol=1e-6)
    assert 0.5 < valid.mean() < 0.99


def test_through_another_crs_agrees_with_a_direct_evaluation():
    lon, lat = rasterio.warp.transform("EPSG:32632", "EPSG:4326", [500000], [5000000])
    grid = Grid(300, 300, (8e-5, 0, lon[0] - 2e-3, 0, -6e-5, lat[0] + 2e-3), "EPSG:4326")
    y, x = np.mgrid[0:300, 0:300].astype(float)
    to_moving = georeference(REF, grid)
    data, mask = to_reference_grid(Raster(np.stack([x, y]), np.ones((300, 300), bool), grid), REF, to_moving, pad=0)
    assert mask.all()
    yy, xx = np.mgrid[0:100, 0:120]
    expected = to_moving(np.stack([xx.ravel(), yy.ravel()], -1).astype(float)).T.reshape(2, 100, 120)
    np.testing.assert_allclose(data, expected, atol=2e-3)
