"""Warping: identity is bit-identical, GDAL agrees, and everything that belongs to a raster is kept."""

import dataclasses
import warnings

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.warp import reproject

from somareg.errors import GeoreferenceError, InputError, NoOverlapError, OutputError, ReadError
from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.geometry.lattice import pixel_centres
from somareg.io import read_raster
from somareg.io.lonlat import lonlat_bounds
from somareg.types import Estimate, Grid, Raster
from somareg.warp import apply, apply_to_file, engine, plan

UTM = rasterio.CRS.from_epsg(32632).to_wkt()
GRID = Grid(260, 210, (10, 0, 500000, 0, -10, 5000000), UTM)
IDENTITY = AffineTransform.identity()
KERNELS = ("nearest", "bilinear", "cubic")
YY, XX = np.mgrid[0:210, 0:260].astype(float)


def pattern(x, y):
    """Smooth ground in map metres from the corner of GRID."""
    return 100 + 40 * np.sin(x / 130) + 40 * np.cos(y / 110) * np.sin((x + y) / 170)


def ground(grid, dtype=np.float32):
    """The pattern as a raster of any grid in the same CRS sees it."""
    y, x = np.mgrid[0 : grid.height, 0 : grid.width]
    east, north = grid.to_map(np.stack([x.ravel(), y.ravel()], -1).astype(float)).T
    data = pattern(east - 500000, 5000000 - north).reshape(1, *grid.shape).astype(dtype)
    return Raster(data, np.ones(grid.shape, bool), grid, name="ground")


def raster(data, mask=None, grid=GRID, **more):
    data = np.asarray(data)
    return Raster(data, np.ones(data.shape[1:], bool) if mask is None else mask, grid, **more)


def still(grid=GRID):
    return Estimate(IDENTITY, grid, grid)


def saved(path, data, *, mask=None, grid=GRID, **profile):
    with (
        warnings.catch_warnings(action="ignore"),
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=len(data),
            height=grid.height,
            width=grid.width,
            dtype=data.dtype,
            crs=grid.crs,
            transform=rasterio.Affine(*grid.transform),
            **profile,
        ) as dataset,
    ):
        dataset.write(data)
        if mask is not None:
            dataset.write_mask(mask)
    return path


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", "complex64"])
def test_identity_is_bit_identical(kernel, dtype, tmp_path):
    rng = np.random.default_rng(0)
    data = rng.normal(0, 50, (2, 210, 260))
    data = (data + 1j * data[::-1]).astype(dtype) if dtype == "complex64" else np.abs(data).astype(dtype)
    out = apply(raster(data), still(), resampling=kernel)
    assert out.data.dtype == dtype and out.mask.all() and out.grid == GRID
    np.testing.assert_array_equal(out.data, data)
    path = apply_to_file(saved(tmp_path / "a.tif", data), still(), tmp_path / "b.tif", resampling=kernel, block_size=64)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), data)
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


@pytest.mark.parametrize("kernel", ["bilinear", "cubic"])
def test_linear_ramp_at_a_sub_pixel_shift(kernel):
    ramp = (2.0 * XX - 3 * YY)[None]
    shift = AffineTransform.from_parameters(shift=(0.25, -0.375))
    out = apply(raster(ramp), Estimate(shift, GRID, GRID), resampling=kernel)
    expected = 2.0 * (XX + 0.25) - 3 * (YY - 0.375)
    np.testing.assert_allclose(out.data[0][1:, :-1], expected[1:, :-1], atol=1e-5)


def test_displacement_points_from_reference_to_moving():
    spot = np.zeros((1, 210, 260))
    spot[0, 100, 140] = 1
    shift = AffineTransform.from_parameters(shift=(40, -3))
    out = apply(raster(spot), Estimate(shift, GRID, GRID))
    assert np.argwhere(out.data[0] == 1).tolist() == [[103, 100]]


@pytest.mark.parametrize(
    ("kernel", "gdal", "worst"), [("bilinear", Resampling.bilinear, 1e-3), ("cubic", Resampling.cubic, 1e-3)]
)
def test_gdal_agrees_on_a_smooth_displacement(kernel, gdal, worst):
    """GDAL's geolocation warp, given the place of every moving pixel's top-left corner in the reference."""
    image = ground(GRID).data[0] / 50
    field = FieldTransform(np.stack([2.3 + 1.5 * np.sin(YY / 40), -1.2 + 1.2 * np.cos(XX / 50)]))
    pixels = Grid(260, 210)
    ours = apply(raster(image[None], grid=pixels), Estimate(field, pixels, pixels), resampling=kernel)
    corners = np.stack([XX.ravel(), YY.ravel()], -1) - 0.5
    places = (field.inverse(corners) + 0.5).T.reshape(2, 210, 260)
    theirs = np.full((210, 260), np.nan, np.float32)
    metres = rasterio.CRS.from_epsg(32632)
    reproject(
        image,
        theirs,
        src_geoloc_array=places,
        src_crs=metres,
        dst_crs=metres,
        dst_transform=rasterio.Affine.identity(),
        dst_nodata=np.nan,
        resampling=gdal,
    )
    inner = (slice(10, -10), slice(10, -10))
    difference = np.abs(theirs - ours.data[0])[inner]
    assert not np.isnan(difference).any()
    assert difference.max() < worst
    assert np.abs(image - ours.data[0])[inner].max() > 0.3  # the warp did something


@pytest.mark.parametrize("size", [20.0, 5.0, 30.0])
def test_another_pixel_size(size):
    n = 10 / size
    grid = Grid(round(260 * n), round(210 * n), (size, 0, 500000, 0, -size, 5000000), UTM)
    shift = AffineTransform.from_parameters(shift=(1.7, -2.2))
    out = apply(ground(grid), Estimate(shift, GRID, GRID), resampling="cubic")
    expected = pattern((XX + 1.7 + 0.5) * 10, (YY - 2.2 + 0.5) * 10)
    inner = (slice(12, -12), slice(12, -12))
    assert out.mask[inner].all()
    assert np.abs(out.data[0] - expected)[inner].max() < 0.5  # of 40; half a pixel off would be about 1.5
    assert np.abs(out.data[0] - expected)[inner].mean() < 0.1


def test_native_resolution_keeps_extent_and_pixel_size():
    grid = Grid(131, 106, (20, 0, 500000, 0, -20, 5000000), UTM)
    shift = AffineTransform.from_parameters(shift=(3.0, 1.0))
    out = apply(ground(grid), Estimate(shift, GRID, GRID), resolution="native")
    assert out.grid.pixel_size == pytest.approx((20, 20))
    assert out.grid.transform[2] == 500000 and out.grid.shape == (105, 130)
    y, x = np.mgrid[0:105, 0:130]
    expected = pattern((x + 0.5) * 20 + 30, (y + 0.5) * 20 + 10)
    assert np.abs(out.data[0] - expected)[4:-4, 4:-4].max() < 0.1
    same = apply(ground(grid), Estimate(IDENTITY, GRID, GRID), resolution="native")
    np.testing.assert_array_equal(same.data, ground(grid).data[:, :105, :130])


def lonlat_grid():
    west, south, east, north = lonlat_bounds(GRID)
    return Grid(300, 300, ((east - west) / 280, 0, west - 1e-3, 0, (south - north) / 280, north + 1e-3), "EPSG:4326")


def test_another_crs(tmp_path):
    grid = lonlat_grid()
    y, x = np.mgrid[0:300, 0:300]
    lon, lat = grid.to_map(np.stack([x.ravel(), y.ravel()], -1).astype(float)).T
    east, north = rasterio.warp.transform("EPSG:4326", "EPSG:32632", lon, lat)
    data = pattern(np.array(east) - 500000, 5000000 - np.array(north)).reshape(1, 300, 300)
    shift = AffineTransform.from_parameters(shift=(1.5, 2.5))
    out = apply(raster(data, grid=grid), Estimate(shift, GRID, grid))
    expected = pattern((XX + 2.0) * 10, (YY + 3.0) * 10)
    inner = (slice(4, -4), slice(4, -4))
    assert out.mask[inner].all()
    assert np.abs(out.data[0] - expected)[inner].max() < 0.05


def test_nodes_in_blocks_are_as_good_as_proj_everywhere():
    warped = plan.make_plan(still(), lonlat_grid(), "x")
    block = engine.Block(13, 27, 200, 150)
    fast = np.stack(warped.coordinates(block), axis=-1).reshape(-1, 2)
    slow = compose(warped.to_raster, warped.correction, warped.to_reference)(pixel_centres(*block))
    assert 0 < np.abs(fast - slow).max() < 1e-3


@pytest.mark.parametrize("factor", [0.5, 2])
def test_pixel_mode_scales_by_size(factor):
    moving = Grid(240, 200)
    reference = Grid(200, 180)
    correction = AffineTransform.from_parameters(shift=(10, 5))
    small = Grid(round(240 * factor), round(200 * factor))
    y, x = np.mgrid[0 : small.height, 0 : small.width]
    data = pattern((x + 0.5) / factor * 10, (y + 0.5) / factor * 10)[None]
    out = apply(raster(data, grid=small), Estimate(correction, reference, moving))
    yy, xx = np.mgrid[0:180, 0:200]
    expected = pattern((xx + 10.5) * 10, (yy + 5.5) * 10)
    assert np.abs(out.data[0] - expected)[3:-3, 3:-3].max() < 0.5
    native = apply(raster(data, grid=small), Estimate(correction, reference, moving), resolution="native")
    assert native.grid == Grid(round(200 * factor), round(180 * factor))
    with pytest.raises(InputError, match="not in proportion"):
        apply(raster(np.ones((1, 100, 240)), grid=Grid(240, 100)), Estimate(correction, reference, moving))


def test_plain_raster_stands_in_for_a_georeferenced_moving_image():
    plain = dataclasses.replace(ground(GRID), grid=Grid(260, 210))
    np.testing.assert_array_equal(apply(plain, still()).data, ground(GRID).data)
    named = dataclasses.replace(ground(GRID), grid=dataclasses.replace(GRID, crs=None))
    np.testing.assert_array_equal(apply(named, still()).data, ground(GRID).data)
    with pytest.raises(GeoreferenceError, match="no CRS"):
        apply(raster(np.ones((1, 70, 200)), grid=Grid(200, 70)), still())


def test_raster_elsewhere_is_refused(tmp_path):
    far = dataclasses.replace(GRID, transform=(10, 0, 600000, 0, -10, 5000000))
    with pytest.raises(NoOverlapError, match="E, "):
        apply_to_file(raster(np.ones((1, 210, 260)), grid=far), still(), tmp_path / "o.tif")
    assert not list(tmp_path.iterdir())


def decorated(path, data, **options):
    saved(path, data, **options)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = tuple(f"band {i}" for i in dataset.indexes)
        dataset.update_tags(PRODUCT="S1A", TIFFTAG_SOFTWARE="x")
        dataset.update_tags(1, wavelength="5.6 cm", STATISTICS_MEAN="3")
        dataset.units = ("dB",) * dataset.count
        dataset.scales = (0.5,) * dataset.count
        dataset.offsets = (-3.0,) * dataset.count
    return path


SHIFT = Estimate(AffineTransform.from_parameters(shift=(30.3, 0.2)), GRID, GRID)


def test_metadata_dtype_and_nodata_are_kept(tmp_path):
    data = np.random.default_rng(0).integers(-5, 6, (3, 210, 260)).astype(np.int16)
    path = decorated(tmp_path / "a.tif", data, nodata=-5)
    seen = []
    apply_to_file(path, SHIFT, tmp_path / "b.tif", block_size=100, progress=lambda *step: seen.append(step))
    assert seen[-1] == ("warping", 1.0) and len(seen) == 9
    with rasterio.open(tmp_path / "b.tif") as dataset:
        assert dataset.dtypes == ("int16",) * 3 and dataset.nodata == -5
        assert dataset.descriptions == ("band 1", "band 2", "band 3") and dataset.units == ("dB",) * 3
        assert dataset.scales == (0.5,) * 3 and dataset.offsets == (-3.0,) * 3
        tags = dataset.tags()
        assert tags["PRODUCT"] == "S1A" and tags["SOMAREG_RESAMPLING"] == "cubic" and tags["SOMAREG_SOURCE"] == "a.tif"
        assert dataset.tags(1)["wavelength"] == "5.6 cm" and dataset.tags(1).get("STATISTICS_MEAN") != "3"
        out = dataset.read()
    assert (out[:, :, -30:] == -5).all()
    # Bands keep their own holes, and cubic never makes a valid pixel equal to nodata.
    for band in range(3):
        nearest = np.full((210, 260), False)
        nearest[:, :230] = data[band, :, 30:] != -5
        np.testing.assert_array_equal(out[band] != -5, nearest)
    in_memory = apply(path, SHIFT)
    np.testing.assert_array_equal(in_memory.data, out)
    assert in_memory.nodata == -5 and in_memory.descriptions == ("band 1", "band 2", "band 3")


def test_blocks_do_not_show(tmp_path):
    data = np.random.default_rng(0).normal(size=(1, 210, 260)).astype(np.float32)
    turn = AffineTransform.from_parameters(rotation_deg=20, scale=0.7, shift=(10, 5), centre=(130, 100))
    field = FieldTransform(np.random.default_rng(1).normal(size=(2, 30, 30)), step=(9.0, 9.0))
    estimate = Estimate(turn @ field, GRID, GRID)
    whole = apply(raster(data), estimate)
    for size in (37, 512):
        path = apply_to_file(
            saved(tmp_path / f"{size}.tif", data), estimate, tmp_path / f"o{size}.tif", block_size=size
        )
        with rasterio.open(path) as dataset:
            np.testing.assert_array_equal(dataset.read(), whole.data)
            np.testing.assert_array_equal(dataset.dataset_mask() > 0, whole.mask)


def test_large_windows_are_split_without_a_trace(monkeypatch):
    data = np.random.default_rng(0).normal(size=(2, 210, 260)).astype(np.float32)
    shrink = Estimate(AffineTransform.from_parameters(scale=2.5), Grid(104, 84), GRID)
    shrink = dataclasses.replace(shrink, reference=dataclasses.replace(GRID, width=104, height=84))
    before = apply(raster(data), shrink)
    monkeypatch.setattr(engine, "_MAX_WINDOW_VALUES", 9000)
    after = apply(raster(data), shrink)
    np.testing.assert_array_equal(before.data, after.data)


def test_without_nodata_the_outside_is_masked(tmp_path):
    hole = np.full((210, 260), 255, np.uint8)
    hole[50:60, 100:120] = 0
    data = np.full((2, 210, 260), 7, np.uint8)
    for name, mask in (("plain", None), ("masked", hole)):
        path = saved(tmp_path / f"{name}.tif", data, mask=mask)
        with rasterio.open(apply_to_file(path, SHIFT, tmp_path / f"{name}_out.tif")) as dataset:
            assert dataset.nodata is None and dataset.mask_flag_enums[0] == [MaskFlags.per_dataset]
            valid = dataset.dataset_mask() > 0
            expected = np.zeros((210, 260), bool)
            expected[:, :230] = (hole if mask is not None else np.full_like(hole, 255))[:, 30:] > 0
            np.testing.assert_array_equal(valid, expected)
            assert set(np.unique(dataset.read()[:, valid])) == {7} and not dataset.read()[:, ~valid].any()
    assert {p.name for p in tmp_path.iterdir()} == {"plain.tif", "masked.tif", "plain_out.tif", "masked_out.tif"}


def test_alpha_is_made_again(tmp_path):
    alpha = np.full((210, 260), 255, np.uint8)
    alpha[:20] = 0
    rgba = np.stack([np.full((210, 260), v, np.uint8) for v in (10, 20, 30)] + [alpha])
    path = saved(tmp_path / "a.tif", rgba, photometric="RGB", alpha="yes")
    with rasterio.open(apply_to_file(path, SHIFT, tmp_path / "o.tif")) as dataset:
        assert dataset.count == 4 and dataset.colorinterp[3] == ColorInterp.alpha
        assert [c.name for c in dataset.colorinterp[:3]] == ["red", "green", "blue"]
        expected = np.zeros((210, 260), np.uint8)
        expected[:, :230] = alpha[:, 30:]
        np.testing.assert_array_equal(dataset.read(4), expected)
    whole = apply(read_raster(path, role="moving"), SHIFT)
    with rasterio.open(apply_to_file(read_raster(path, role="moving"), SHIFT, tmp_path / "p.tif")) as dataset:
        np.testing.assert_array_equal(dataset.read(4) > 0, whole.mask)


def test_nan_and_inf_do_not_spread(tmp_path):
    data = np.full((1, 210, 260), 3.0, np.float32)
    data[0, 50, 60], data[0, 90, 90] = np.nan, np.inf
    out = apply(
        saved(tmp_path / "a.tif", data), Estimate(AffineTransform.from_parameters(shift=(0.4, 0.4)), GRID, GRID)
    )
    assert (~np.isfinite(out.data)).sum() == 2
    np.testing.assert_allclose(out.data[0][out.mask], 3.0, rtol=1e-6)


def test_classes_are_never_mixed(tmp_path):
    index = np.random.default_rng(0).integers(0, 3, (1, 210, 260)).astype(np.uint8) * 2
    path = saved(tmp_path / "a.tif", index, photometric="palette")
    colours = {0: (10, 20, 30, 255), 2: (200, 100, 50, 255), 4: (1, 2, 3, 255)}
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, colours)
    with rasterio.open(apply_to_file(path, SHIFT, tmp_path / "o.tif", resampling="cubic")) as dataset:
        assert set(np.unique(dataset.read())) <= {0, 2, 4}
        assert dataset.colorinterp[0] == ColorInterp.palette and dataset.colormap(1)[2] == (200, 100, 50, 255)
    mask = raster(index > 2)
    out = apply(mask, SHIFT, resampling="cubic")
    assert out.data.dtype == bool
    np.testing.assert_array_equal(out.data[0, :, :230], mask.data[0, :, 30:])


def test_finer_raster_does_not_alias():
    fine = Grid(1040, 840, (2.5, 0, 500000, 0, -2.5, 5000000), UTM)
    checks = (np.indices(fine.shape).sum(0) % 2 * 200).astype(np.uint8)[None]
    out = apply(raster(checks, grid=fine), still())
    assert np.abs(out.data[0].astype(int) - 100).max() <= 1


def test_output_rules(tmp_path):
    path = saved(tmp_path / "a.tif", np.ones((1, 210, 260), np.uint8))
    with pytest.raises(OutputError, match="input itself"):
        apply_to_file(path, still(), path, overwrite=True)
    apply_to_file(path, still(), tmp_path / "o.tif")
    with pytest.raises(OutputError, match="exists"):
        apply_to_file(path, still(), tmp_path / "o.tif")
    apply_to_file(path, still(), tmp_path / "o.tif", overwrite=True)


def test_damaged_input_half_way_leaves_nothing(tmp_path):
    rng = np.random.default_rng(0)
    path = saved(
        tmp_path / "a.tif",
        rng.integers(0, 255, (1, 210, 260)).astype(np.uint8),
        tiled=True,
        blockxsize=64,
        blockysize=64,
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ReadError, match="truncated"):
        apply_to_file(path, still(), tmp_path / "o.tif", block_size=64)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]
