"""Reading: every accepted file becomes a Raster with the right mask; every other gets one clear line."""

import contextlib
import gzip
import hashlib
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from somareg.errors import InputError, NoDataError, ReadError, SomaregError, UnsupportedError
from somareg.io import from_array, read_raster
from somareg.io import source as source_module
from somareg.io.source import Block, open_source

N = 96
PLACE = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5000000)}


def write(path, data, *, mask=None, driver="GTiff", place=PLACE, **profile):
    data = np.asarray(data)
    shape = {"count": data.shape[0], "height": data.shape[1], "width": data.shape[2], "dtype": data.dtype}
    with (
        warnings.catch_warnings(action="ignore"),
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver=driver, **{**shape, **place, **profile}) as dataset,
    ):
        dataset.write(data)
        if mask is not None:
            dataset.write_mask(mask)
    return path


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(1, 200, (2, N, N + 8)).astype(np.uint16)


def test_plain_geotiff(tmp_path, picture):
    path = write(tmp_path / "a.tif", picture)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("VV", "VH")
        dataset.update_tags(PRODUCT="S1A")
    raster = read_raster(path, role="moving")
    np.testing.assert_array_equal(raster.data, picture)
    assert raster.data.dtype == np.uint16
    assert raster.mask.all() and raster.mask.shape == (N, N + 8)
    assert raster.grid.transform == (10, 0, 500000, 0, -10, 5000000)
    assert rasterio.CRS.from_wkt(raster.grid.crs) == rasterio.CRS.from_epsg(32632)
    assert raster.descriptions == ("VV", "VH")
    assert raster.tags["PRODUCT"] == "S1A"
    assert raster.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert raster.path == path and raster.nodata is None


def test_zero_is_not_nodata_unless_declared(tmp_path, picture):
    picture[:, 10:20, 10:20] = 0
    assert read_raster(write(tmp_path / "a.tif", picture), role="moving").mask.all()
    declared = read_raster(write(tmp_path / "b.tif", picture, nodata=0), role="moving")
    assert (~declared.mask).sum() == 100 and declared.nodata == 0
    given = read_raster(tmp_path / "a.tif", role="moving", nodata=0)
    np.testing.assert_array_equal(given.mask, declared.mask)
    other = read_raster(tmp_path / "b.tif", role="moving", nodata=9999)
    assert other.mask.all()


def test_nodata_in_one_band_masks_the_pixel_but_blocks_keep_bands_apart(tmp_path, picture):
    picture[1, 5, 5] = 0
    path = write(tmp_path / "a.tif", picture, nodata=0)
    assert not read_raster(path, role="moving").mask[5, 5]
    with open_source(path, role="moving") as source:
        data, mask = source.read(Block(4, 3, 10, 6))
    np.testing.assert_array_equal(data, picture[:, 3:9, 4:14])
    assert mask[0].all() and not mask[1, 2, 1] and mask[1].sum() == 59


@pytest.mark.parametrize("nodata", [np.nan, -9999.0, -3.4028234663852886e38])
def test_float_nodata_and_not_finite_pixels(tmp_path, nodata):
    data = np.random.default_rng(0).normal(size=(1, N, N)).astype(np.float32)
    data[0, :4] = nodata
    data[0, 10, 10], data[0, 11, 11] = np.inf, np.nan
    raster = read_raster(write(tmp_path / "a.tif", data, nodata=nodata), role="moving")
    assert (~raster.mask).sum() == 4 * N + 2
    assert any("NaN or infinite" in note for note in raster.notes)


def test_complex_nodata_needs_both_parts(tmp_path):
    data = np.ones((1, N, N), np.complex64)
    data[0, 0], data[0, 1] = 0, 1j
    raster = read_raster(write(tmp_path / "a.tif", data, nodata=0), role="moving")
    assert raster.data.dtype == np.complex64
    assert not raster.mask[0].any() and raster.mask[1].all()


def test_internal_mask_and_alpha(tmp_path, picture):
    hole = np.full(picture.shape[1:], 255, np.uint8)
    hole[:, :7] = 0
    masked = read_raster(write(tmp_path / "a.tif", picture, mask=hole), role="moving")
    np.testing.assert_array_equal(masked.mask, hole > 0)
    rgba = np.concatenate([np.repeat(hole[None], 3, 0) // 2 + 1, hole[None]]).astype(np.uint8)
    path = write(tmp_path / "b.tif", rgba, photometric="RGB", alpha="yes")
    with rasterio.open(path) as dataset:
        assert dataset.colorinterp[3] == ColorInterp.alpha
    alpha = read_raster(path, role="moving")
    assert alpha.data.shape[0] == 3
    np.testing.assert_array_equal(alpha.mask, hole > 0)
    assert alpha.colorinterp == ("red", "green", "blue", "alpha")


def test_palette_becomes_rgb(tmp_path):
    index = np.random.default_rng(0).integers(0, 3, (1, N, N)).astype(np.uint8)
    path = write(tmp_path / "a.tif", index, photometric="palette")
    colours = {0: (10, 20, 30, 255), 1: (200, 100, 50, 255), 2: (1, 2, 3, 255)}
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, colours)
    raster = read_raster(path, role="reference")
    table = np.array([colours[i][:3] for i in range(3)], np.uint8)
    np.testing.assert_array_equal(np.moveaxis(raster.data, 0, -1), table[index[0]])
    with open_source(path, role="reference") as source:
        assert source.count == 1 and source.colormap[1] == (200, 100, 50, 255)


def test_scale_and_offset_are_kept_not_applied(tmp_path, picture):
    path = write(tmp_path / "a.tif", picture)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.1, 0.1), (-5.0, -5.0)
    raster = read_raster(path, role="moving")
    np.testing.assert_array_equal(raster.data, picture)
    assert any("scale" in note for note in raster.notes)


def test_gcps_give_an_affine(tmp_path, picture):
    path = write(tmp_path / "a.tif", picture, place={})
    points = [
        GroundControlPoint(row=r, col=c, x=9 + c * 1e-4, y=45 - r * 1e-4) for r in (0, 50, 96) for c in (0, 60, 104)
    ]
    with warnings.catch_warnings(action="ignore"), rasterio.open(path, "r+") as dataset:
        dataset.gcps = (points, rasterio.CRS.from_epsg(4326))
    raster = read_raster(path, role="moving")
    assert raster.grid.is_georeferenced
    np.testing.assert_allclose(raster.grid.to_map(np.array([[-0.5, -0.5]]))[0], (9, 45), atol=1e-9)
    assert any("control points" in note for note in raster.notes)


def test_no_warning_escapes_for_plain_pictures(tmp_path, picture):
    path = write(tmp_path / "a.png", picture[:1].astype(np.uint8), driver="PNG", place={})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raster = read_raster(path, role="moving")
    assert raster.grid.crs is None


def bad_files(folder: Path):
    good = write(folder / "good.tif", np.random.default_rng(0).integers(0, 9, (1, 300, 300)).astype(np.uint8))
    body = good.read_bytes()
    (folder / "empty.tif").touch()
    (folder / "text.tif").write_text("hello")
    secret = folder / "secret.bin"
    secret.write_bytes(b"\x07" * 10000)
    (folder / "vrt.tif").write_text(
        '<VRTDataset rasterXSize="96" rasterYSize="96"><VRTRasterBand dataType="Byte" band="1" '
        f'subClass="VRTRawRasterBand"><SourceFilename relativetoVRT="0">{secret}</SourceFilename>'
        "</VRTRasterBand></VRTDataset>"
    )
    for name, keep in (("cut_header", 6), ("cut_early", len(body) // 50), ("cut_late", len(body) * 9 // 10)):
        (folder / f"{name}.tif").write_bytes(body[:keep])
    write(folder / "small.tif", np.ones((1, 63, 500), np.uint8))
    write(folder / "hollow.tif", np.zeros((1, N, N), np.uint8), nodata=0)
    (folder / "dir.tif").mkdir()


BAD = {
    "missing.tif": (ReadError, "does not exist"),
    "empty.tif": (ReadError, "empty file"),
    "dir.tif": (ReadError, "is a folder"),
    "text.tif": (ReadError, "cannot be opened as one of GTiff"),
    "vrt.tif": (ReadError, "cannot be opened as one of GTiff"),
    "cut_header.tif": (ReadError, "cannot be opened|truncated"),
    "cut_early.tif": (ReadError, "truncated or damaged: .+"),
    "cut_late.tif": (ReadError, "truncated or damaged: .+"),
    "small.tif": (InputError, "500 x 63 px; at least 64"),
    "hollow.tif": (NoDataError, r"no valid pixel \(nodata value 0\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_get_one_clear_line(tmp_path, name):
    bad_files(tmp_path)
    kind, words = BAD[name]
    with pytest.raises(kind, match=words) as caught:
        read_raster(tmp_path / name, role="moving")
    message = str(caught.value)
    assert name in message and "moving" in message and "\n" not in message


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("share", [0.95, 0.6])
def test_a_png_that_breaks_off_is_refused_in_every_thread(tmp_path, bands, share):
    """GDAL decodes a whole 8-bit PNG by a short cut, which fills up what is missing and says nothing."""
    picture = np.random.default_rng(0).integers(0, 255, (bands, 300, 300)).astype(np.uint8)
    path = write(tmp_path / "a.png", picture, driver="PNG", place={})
    with open_source(path, role="moving") as source:
        np.testing.assert_array_equal(source.read(bands=range(1, bands + 1))[0], picture)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ReadError, match="truncated or damaged"):
        read_raster(path, role="moving")
    with (
        pytest.raises(ReadError, match="truncated or damaged"),
        ThreadPoolExecutor(1) as other,
        open_source(path, role="moving") as source,
    ):
        other.submit(source.read).result()


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "complex64"])
def test_raw_pixels_that_are_missing_are_no_zeros(tmp_path, interleave, dtype):
    path, header = tmp_path / "a.img", tmp_path / "a.hdr"
    data = np.random.default_rng(0).integers(1, 99, (2, N, N)).astype(dtype)
    write(path, data, driver="ENVI", interleave=interleave)
    body = path.read_bytes()

    plain = header.read_text()

    def check(stored, words, offset=0, more=""):
        header.write_text(plain.replace("header offset = 0", f"header offset = {offset}") + more)
        path.write_bytes(stored)
        with pytest.raises(ReadError, match=words) if words else contextlib.nullcontext():
            np.testing.assert_array_equal(read_raster(path, role="moving").data, data)

    check(body + b"more", "")
    check(body[:-1], f"holds {len(body) - 1} bytes, and {len(body)} belong to 96 x 96 px")
    check(b"#" * 70 + body, "", 70)
    check(body, "truncated or damaged", 70)
    check(gzip.compress(body), "", more="file compression = 1\n")


@pytest.mark.parametrize(
    "place",
    [
        "http://example.com/a.tif",
        "s3://bucket/a.tif",
        "/vsicurl/http://example.com/a.tif",
        "/vsizip/a.zip/a.tif",
        "zip+file://a.zip!a.tif",
        Path("https://example.com/a.tif"),
    ],
)
def test_remote_and_virtual_paths_are_refused_unopened(place, monkeypatch):
    monkeypatch.setattr(source_module, "DatasetReader", lambda *a, **k: pytest.fail("GDAL saw the path"))
    with pytest.raises(UnsupportedError, match="not a local file"):
        read_raster(place, role="moving")


def test_bomb_is_refused_before_reading(tmp_path):
    path = tmp_path / "bomb.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=200000,
        height=200000,
        count=1,
        dtype="uint8",
        tiled=True,
        sparse_ok=True,
        **PLACE,
    ):
        pass
    with pytest.raises(InputError, match=r"4e\+10 pixel values.*max_pixels"):
        read_raster(path, role="moving")


def test_flipped_bytes_never_escape_as_another_error(tmp_path):
    body = bytearray(write(tmp_path / "good.tif", np.ones((1, N, N), np.uint8), compress="deflate").read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(60):
        hurt = bytearray(body)
        for at in rng.integers(0, len(body), 5):
            hurt[at] = rng.integers(0, 256)
        (tmp_path / "hurt.tif").write_bytes(hurt)
        with contextlib.suppress(SomaregError):
            read_raster(tmp_path / "hurt.tif", role="moving", max_pixels=1e6)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float64", "complex64"])
@pytest.mark.parametrize("shape", [(N, N + 3), (2, N, N + 3)])
def test_arrays(dtype, shape):
    raster = from_array(np.ones(shape, dtype), role="moving")
    assert raster.data.shape == (shape if len(shape) == 3 else (1, *shape))
    assert raster.data.dtype == dtype and raster.mask.all()
    assert raster.grid.crs is None and raster.grid.shape == (N, N + 3)


def test_array_masks():
    data = np.ones((N, N))
    data[0, 0], data[1, 1] = np.nan, -5
    given = np.ones((N, N), bool)
    given[2, 2] = False
    raster = from_array(data, mask=given, role="moving", nodata=-5)
    assert np.argwhere(~raster.mask).tolist() == [[0, 0], [1, 1], [2, 2]]
    hidden = from_array(np.ma.masked_equal(np.nan_to_num(data), -5), role="moving")
    assert np.argwhere(~hidden.mask).tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((N, N, 3), np.uint8), "transpose"),
        (np.ones((N, N, 4), np.uint8), "transpose"),
        (np.ones(N), "dimensions"),
        (np.ones((1, 1, N, N)), "dimensions"),
        (np.ones((N, 20)), "at least 64"),
        (np.full((N, N), "a"), "dtype"),
        (np.full((N, N), None), "dtype"),
    ],
)
def test_bad_arrays(array, words):
    with pytest.raises(InputError, match=words):
        from_array(array, role="moving")


def test_bad_array_masks():
    with pytest.raises(InputError, match="does not fit"):
        from_array(np.ones((N, N)), mask=np.ones((N, N + 1)), role="moving")
    with pytest.raises(NoDataError, match="moving array"):
        from_array(np.full((N, N), np.nan), role="moving")


def test_constant_image_is_not_an_error_here():
    assert from_array(np.zeros((N, N)), role="moving").mask.all()


def test_messages_name_the_role(tmp_path):
    with pytest.raises(ReadError, match=re.escape("reference image")):
        read_raster(tmp_path / "x.tif", role="reference")
