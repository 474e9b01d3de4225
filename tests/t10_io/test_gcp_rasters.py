"""Rasters that only ground control points place: read, joined with others, written, warped."""

import dataclasses
import warnings

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from somareg.errors import GeoreferenceError
from somareg.geometry import AffineTransform
from somareg.io import check_overlap, georeference, lonlat_bounds, read_estimate, read_raster, write_displacement
from somareg.io.ground_control import gdal_points
from somareg.io.writer import write_geotiff
from somareg.types import Displacement, Estimate, Grid
from somareg.warp import apply

WIDTH, HEIGHT = 260, 200
UTM = rasterio.CRS.from_epsg(32632).to_wkt()
REFERENCE = Grid(220, 220, (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), UTM)


def truth(xy):
    """Radar geometry: rows run north, and the swath is bent by some pixels."""
    u, v = (xy[:, 0] - 130) / 130, (xy[:, 1] - 100) / 100
    east = 501100 + 1300 * u + 90 * v + 60 * u * u + 25 * np.sin(2 * u)
    north = 4998900 + 1000 * v - 80 * u + 40 * u * v
    return np.stack([east, north], -1)


def nodes(columns=9, rows=8):
    x, y = np.meshgrid(np.linspace(0, WIDTH, columns) - 0.5, np.linspace(0, HEIGHT, rows) - 0.5)
    return np.stack([x.ravel(), y.ravel()], -1)


def swath(path, data=None, *, heights=0.0, crs="EPSG:32632", xy=None, map_xy=None):
    xy = nodes() if xy is None else xy
    gcps = gdal_points(xy, truth(xy) if map_xy is None else map_xy)
    for i, point in enumerate(gcps):
        point.z = heights * i
    data = np.arange(WIDTH * HEIGHT, dtype=np.float32).reshape(1, HEIGHT, WIDTH) if data is None else data
    shape = {"count": len(data), "width": WIDTH, "height": HEIGHT, "dtype": data.dtype.name}
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.open(path, "w", driver="GTiff", gcps=gcps, crs=crs, **shape) as file,
    ):
        file.write(data)
    return path


def somewhere(n=200):
    return np.random.default_rng(0).uniform(0, (WIDTH - 1, HEIGHT - 1), (n, 2))


def test_pixels_lie_where_the_points_say(tmp_path):
    grid = read_raster(swath(tmp_path / "a.tif"), role="moving").grid
    assert grid.is_georeferenced and grid.control.method == "tps"
    np.testing.assert_allclose(grid.to_map(somewhere()), truth(somewhere()), atol=2.0)  # a fifth of a pixel
    np.testing.assert_allclose(grid.to_pixel(grid.to_map(somewhere())), somewhere(), atol=1e-6)
    straight = dataclasses.replace(grid, control=None)
    assert np.abs(straight.to_map(somewhere()) - truth(somewhere())).max() > 30  # what an affine alone would do


@pytest.mark.parametrize(("method", "metres"), [("polynomial", 12.0), ("tps", 2.0)])
def test_the_curve_can_be_chosen(tmp_path, method, metres):
    raster = read_raster(swath(tmp_path / "a.tif"), role="moving", gcp_method=method)
    assert raster.grid.control.method == method
    error = np.abs(raster.grid.to_map(somewhere()) - truth(somewhere())).max()
    assert metres / 3 < error < metres


def test_terrain_is_warned_of(tmp_path, caplog):
    raster = read_raster(swath(tmp_path / "a.tif", heights=10.0), role="moving")
    (note,) = raster.notes
    for words in ("72 ground control points", "thin-plate spline", "terrain", "0 to 710 m", "terrain-corrected"):
        assert words in note
    assert note in caplog.text
    flat = read_raster(swath(tmp_path / "b.tif"), role="moving")
    assert "heights" not in flat.notes[0] and "terrain" in flat.notes[0]


def test_joined_with_a_map(tmp_path):
    grid = read_raster(swath(tmp_path / "a.tif"), role="moving").grid
    to_moving = georeference(REFERENCE, grid)
    assert not to_moving.is_affine
    xy = np.random.default_rng(1).uniform(20, 199, (100, 2))
    np.testing.assert_allclose(grid.to_map(to_moving(xy)), REFERENCE.to_map(xy), atol=1e-4)
    np.testing.assert_allclose(to_moving.inverse(to_moving(xy)), xy, atol=1e-5)
    assert check_overlap(REFERENCE, grid) == pytest.approx(0.85, abs=0.1)
    west, south, east, north = lonlat_bounds(grid)
    assert 8.9 < west < east < 9.1 and 45.1 < south < north < 45.2


def test_points_in_degrees_join_with_a_projected_map(tmp_path):
    lonlat = np.stack(rasterio.warp.transform("EPSG:32632", "EPSG:4326", *truth(nodes()).T), -1)
    grid = read_raster(swath(tmp_path / "a.tif", crs="EPSG:4326", map_xy=lonlat), role="moving").grid
    same = read_raster(swath(tmp_path / "b.tif"), role="moving").grid
    xy = np.random.default_rng(1).uniform(20, 199, (100, 2))
    np.testing.assert_allclose(georeference(REFERENCE, grid)(xy), georeference(REFERENCE, same)(xy), atol=0.01)


def test_points_across_the_antimeridian(tmp_path):
    xy = nodes()
    lonlat = np.stack([179.9 + xy[:, 0] * 1e-3 + 1e-6 * xy[:, 1] ** 2, 10 - xy[:, 1] * 1e-3], -1)
    turned = np.where(lonlat > 180, lonlat - 360, lonlat)
    grid = read_raster(swath(tmp_path / "a.tif", crs="EPSG:4326", map_xy=turned), role="moving").grid
    np.testing.assert_allclose(grid.to_map(xy), lonlat, atol=1e-5)


def test_points_that_a_geotransform_can_say_stay_exact(tmp_path):
    straight = (nodes() + 0.5) @ np.array([[10.0, 1.0], [2.0, -10.0]]).T + (500000, 5000000)
    grid = read_raster(swath(tmp_path / "a.tif", map_xy=straight), role="moving").grid
    np.testing.assert_allclose(grid.transform, (10, 1, 500000, 2, -10, 5000000), atol=1e-6)
    assert isinstance(georeference(REFERENCE, grid), AffineTransform)


def test_points_that_place_nothing_are_named(tmp_path):
    line = np.stack([np.arange(9.0), np.arange(9.0)], -1)
    with pytest.raises(GeoreferenceError, match=r"a\.tif: .*on a line"):
        read_raster(swath(tmp_path / "a.tif", xy=line, map_xy=line), role="moving")
    two = read_raster(swath(tmp_path / "b.tif", xy=nodes()[:2]), role="moving")
    assert not two.grid.is_georeferenced and "too few" in two.notes[0]


@pytest.mark.parametrize("cog", [True, False])
def test_written_and_read_again(tmp_path, cog):
    raster = read_raster(swath(tmp_path / "a.tif"), role="moving")
    path = write_geotiff(tmp_path / "b.tif", raster.data, raster.grid, cog=cog)
    again = read_raster(path, role="moving")
    np.testing.assert_allclose(again.grid.to_map(somewhere()), raster.grid.to_map(somewhere()), atol=1e-3)
    assert rasterio.CRS.from_wkt(again.grid.crs) == rasterio.CRS.from_epsg(32632)


def test_an_estimate_remembers_the_curve(tmp_path):
    """The estimate corrects what its curve says; applied to another band of the swath it must use the same one."""
    path = swath(tmp_path / "a.tif")
    moving = read_raster(path, role="moving", gcp_method="polynomial")
    shift = AffineTransform.from_parameters(shift=(3, -2))
    array = np.broadcast_to(np.array([3.0, -2.0], np.float32)[:, None, None], (2, 220, 220)).copy()
    estimate = Estimate(shift, REFERENCE, moving.grid)
    displacement = Displacement(array, array[0] * 0, array[0] * 0, REFERENCE)
    file = write_displacement(tmp_path / "displacement.tif", displacement, estimate, shift.matrix)
    again = read_estimate(file)
    assert again.moving == moving.grid and again.moving.control.method == "polynomial"
    by_memory, by_file = apply(moving, estimate), apply(path, again)
    np.testing.assert_allclose(by_file.data, by_memory.data, atol=1e-3)
    spline = read_raster(path, role="moving")
    other = apply(spline, dataclasses.replace(estimate, moving=spline.grid))
    assert np.nanmax(np.abs(other.data - by_memory.data)) > 10  # the curves do differ


def test_warped_as_gdal_warps_it(tmp_path):
    """GDAL's own warp through the points (gdalwarp -tps) puts the same ground on the same pixels."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    data = (100 + 40 * np.sin(x / 9) * np.cos(y / 7))[None].astype(np.float32)
    path = swath(tmp_path / "a.tif", data)
    raster = read_raster(path, role="moving")
    ours = apply(raster, Estimate(AffineTransform.identity(), REFERENCE, raster.grid), resampling="bilinear")
    theirs = np.zeros(REFERENCE.shape, np.float32)
    with rasterio.open(path) as source:
        gcps, crs = source.gcps
        rasterio.warp.reproject(
            source.read(1),
            theirs,
            gcps=gcps,
            src_crs=crs,
            dst_crs=UTM,
            dst_transform=rasterio.Affine(*REFERENCE.transform),
            resampling=rasterio.warp.Resampling.bilinear,
            MAX_GCP_ORDER=-1,
        )
    inside = ours.mask & (theirs > 0)
    assert inside.mean() > 0.7
    assert np.abs(ours.data[0] - theirs)[inside].mean() < 0.6  # slopes reach 6 per pixel


def test_native_resolution_of_a_reference_with_points(tmp_path):
    """The finer grid covers the same ground."""
    grid = read_raster(swath(tmp_path / "a.tif"), role="reference").grid
    fine = Grid(800, 800, (5.0, 0.0, 499700.0, 0.0, -5.0, 5000100.0), UTM)
    y, x = np.mgrid[0:800, 0:800].astype(np.float32)
    raster = dataclasses.replace(
        read_raster(write_geotiff(tmp_path / "b.tif", np.stack([x, y]), fine), role="moving"), path=None
    )
    out = apply(raster, Estimate(AffineTransform.identity(), grid, fine), resolution="native")
    assert out.grid.width > 1.5 * grid.width
    row, column = 150, 200
    np.testing.assert_allclose(
        out.data[:, row, column], fine.to_pixel(out.grid.to_map(np.array([[column, row]], float)))[0], atol=0.1
    )
    corner, whole = out.grid.to_map(np.array([[-0.5, -0.5]])), grid.to_map(np.array([[-0.5, -0.5]]))
    np.testing.assert_allclose(corner, whole, atol=1.0)
