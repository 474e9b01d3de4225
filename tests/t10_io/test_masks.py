"""Masks in files of their own: any grid, nearest pixel, zero or a list of classes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.warp import Resampling, reproject

from somareg.config import make_config
from somareg.errors import ConfigError, InputError, NoOverlapError, ReadError, UnsupportedError
from somareg.io.inputs import open_image
from somareg.io.masks import open_mask
from somareg.io.source import Block
from somareg.types import Classes, Grid

UTM = rasterio.CRS.from_epsg(32632).to_wkt()
GRID = Grid(120, 90, (10, 0, 500000, 0, -10, 5000000), UTM)
WHOLE = Block(0, 0, 120, 90)
CLASSES = np.random.default_rng(0).integers(0, 12, (90, 120)).astype(np.uint8)


def save(path: Path, data: np.ndarray, grid: Grid = GRID, **profile: Any) -> str:
    data = data if data.ndim == 3 else data[None]
    shape = {"count": len(data), "height": data.shape[1], "width": data.shape[2], "dtype": data.dtype}
    place = {"crs": grid.crs, "transform": rasterio.Affine(*grid.transform)} if grid.crs else {}
    profile = {"driver": "GTiff", **shape, **place, **profile}
    with warnings.catch_warnings(action="ignore"), rasterio.open(path, "w", **profile) as file:
        file.write(data)
    return str(path)


def valid(path: str, values: str | None = None, grid: Grid = GRID, block: Block = WHOLE) -> np.ndarray:
    with open_mask(path, values, grid, "the image", "moving") as mask:
        return mask.valid(block)


# --- classes ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-300, 300) | st.tuples(st.integers(-300, 0), st.integers(0, 300)), min_size=1, max_size=5))
def test_values_and_ranges(parts: list[int | tuple[int, int]]) -> None:
    text = ",".join(str(part) if isinstance(part, int) else f"{part[0]}-{part[1]}" for part in parts)
    classes = Classes.parse(text)
    assert Classes.parse(str(classes)) == classes
    for dtype in ("int16", "uint8", "float32"):
        values = np.arange(-128 if dtype != "uint8" else 0, 256).astype(dtype)
        held = [any(v == p if isinstance(p, int) else p[0] <= v <= p[1] for p in parts) for v in values.tolist()]
        np.testing.assert_array_equal(classes.hold(values), held)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int64", "uint64", "float32"])
def test_bits(dtype: str) -> None:
    values = np.arange(0, 100).astype(dtype)
    np.testing.assert_array_equal(
        Classes.parse("bit3 bit5").hold(values), (values.astype(int) & 8 > 0) | (values.astype(int) & 32 > 0)
    )
    assert str(Classes.parse(["bit3", 7])) == "7,bit3"


def test_a_sign_is_a_bit_and_what_is_no_whole_number_is_no_class() -> None:
    assert Classes.parse("bit15").hold(np.array([-1, 1, -32768], np.int16)).tolist() == [True, False, True]
    odd = np.array([np.nan, np.inf, 0.5, 0.0, 1e30])
    assert Classes.parse("0,-5-5").hold(odd).tolist() == [False, False, False, True, False]
    assert not Classes.parse("bit0").hold(odd).any()


@pytest.mark.parametrize("given", ["", "clouds", "3-", "8-3", "bit64", "1.5", [], {"a": 1}, 1.5])
def test_what_is_no_list_of_classes(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"^moving_mask_values: .* is not a list of classes, such as 3,8-10 or bit3"):
        make_config({"moving_mask_values": given})


@pytest.mark.parametrize("given", ["3, 8-10", "3;8-10", [3, "8-10"], (3, "8-10")])
def test_classes_may_be_a_text_or_a_list(given: Any) -> None:
    assert make_config({"reference_mask_values": given}).reference_mask_values == "3,8-10"


# --- where it is invalid ----------------------------------------------------------------------------------------------


def test_zero_is_invalid_and_listed_classes_are(tmp_path: Path) -> None:
    path = save(tmp_path / "scl.tif", CLASSES)
    np.testing.assert_array_equal(valid(path), CLASSES != 0)
    np.testing.assert_array_equal(valid(path, "3,8-10"), ~np.isin(CLASSES, [3, 8, 9, 10]))
    np.testing.assert_array_equal(valid(path, "bit3"), CLASSES < 8)
    np.testing.assert_array_equal(valid(path, block=Block(7, 11, 50, 31)), CLASSES[11:42, 7:57] != 0)


def test_what_the_mask_itself_declares(tmp_path: Path) -> None:
    """Without classes it is the validity of GDAL; a list of classes asks for those classes and nothing else."""
    path = save(tmp_path / "scl.tif", CLASSES, nodata=7)
    np.testing.assert_array_equal(valid(path), (CLASSES != 0) & (CLASSES != 7))
    np.testing.assert_array_equal(valid(path, "3"), CLASSES != 3)
    real = np.where(CLASSES == 5, np.nan, CLASSES).astype(np.float32)
    np.testing.assert_array_equal(valid(save(tmp_path / "real.tif", real)), (CLASSES != 0) & (CLASSES != 5))


def test_all_bands_count(tmp_path: Path) -> None:
    """The masks of Sentinel-2's level 1C: opaque clouds, cirrus, snow."""
    bands = np.stack([CLASSES == 1, CLASSES == 2, CLASSES == 3]).astype(np.uint8)
    np.testing.assert_array_equal(valid(save(tmp_path / "msk.tif", bands), "1"), ~np.isin(CLASSES, [1, 2, 3]))


def test_a_palette_is_its_classes(tmp_path: Path) -> None:
    path = save(tmp_path / "scl.tif", CLASSES, photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {i: (i, 2 * i, 3 * i, 255) for i in range(12)})
    np.testing.assert_array_equal(valid(path, "4"), CLASSES != 4)


def test_complex_is_no_mask(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="complex"):
        valid(save(tmp_path / "a.tif", CLASSES.astype(np.complex64)))


# --- grids ------------------------------------------------------------------------------------------------------------


def turned(metres: float) -> Grid:
    """Around GRID, and turned by 20 degrees."""
    place = (
        rasterio.Affine.translation(499900, 4999500)
        @ rasterio.Affine.rotation(20)
        @ rasterio.Affine.scale(metres, -metres)
        @ rasterio.Affine.translation(0, -900 / metres)
    )
    a, b, c, d, e, f = place[:6]
    return Grid(round(1300 / metres), round(1000 / metres), (a, b, c, d, e, f), UTM)


LONLAT = Grid(200, 150, (1e-4, 0, 9.0005, 0, -8e-5, 45.1545), "EPSG:4326")


@pytest.mark.parametrize("grid", [turned(3.0), turned(10.0), turned(37.0), LONLAT], ids=["3", "10", "37", "degrees"])
@pytest.mark.parametrize("values", [None, "3,8-10"])
def test_the_nearest_pixel_as_gdal_takes_it(tmp_path: Path, grid: Grid, values: str | None) -> None:
    classes = np.random.default_rng(1).integers(1, 12, grid.shape).astype(np.uint8)
    seen = np.zeros((90, 120), np.uint8)
    place = {"src_crs": grid.crs, "src_transform": rasterio.Affine(*grid.transform)}
    place |= {"dst_crs": UTM, "dst_transform": rasterio.Affine(*GRID.transform)}
    reproject(classes, seen, **place, resampling=Resampling.nearest)
    assert (seen > 0).mean() > 0.3
    expected = seen != 0 if values is None else ~np.isin(seen, [3, 8, 9, 10])
    found = valid(save(tmp_path / "mask.tif", classes, grid), values)
    assert (found != expected).mean() < (0.02 if grid is LONLAT else 0.001)  # GDAL approximates to an eighth of a pixel


def test_a_mask_that_covers_a_part_says_so(tmp_path: Path) -> None:
    path = save(tmp_path / "part.tif", np.full((90, 30), 5, np.uint8), Grid(30, 90, GRID.transform, UTM))
    expected = np.zeros((90, 120), bool)
    expected[:, :30] = True
    np.testing.assert_array_equal(valid(path), expected)
    np.testing.assert_array_equal(valid(path, "5"), ~expected)
    np.testing.assert_array_equal(valid(path, block=Block(60, 0, 40, 90)), np.zeros((90, 40), bool))
    with open_mask(path, "5", GRID, "the image", "moving") as mask:
        assert any("covers 25% of the moving image; elsewhere" in note for note in mask.notes)


def test_a_mask_elsewhere_is_refused(tmp_path: Path) -> None:
    far = Grid(120, 90, (10, 0, 600000, 0, -10, 5000000), UTM)
    with pytest.raises(NoOverlapError, match="share no ground"):
        valid(save(tmp_path / "far.tif", CLASSES, far))


def test_without_a_place_it_shows_the_same_frame_at_any_size(tmp_path: Path) -> None:
    path = save(tmp_path / "mask.png", CLASSES, Grid(120, 90), driver="PNG")
    for grid in (GRID, Grid(120, 90)):
        np.testing.assert_array_equal(valid(path, grid=grid), CLASSES != 0)
    twice = Grid(240, 180, (5, 0, 500000, 0, -5, 5000000), UTM)
    expected = np.kron(CLASSES != 0, np.ones((2, 2), bool))
    np.testing.assert_array_equal(valid(path, grid=twice, block=Block(0, 0, 240, 180)), expected)
    with pytest.raises(InputError, match=r"120 x 90 px, not in proportion to the image \(100 x 100 px\)"):
        valid(path, grid=Grid(100, 100), block=Block(0, 0, 100, 100))


@pytest.mark.parametrize("which", ["image", "mask", "both"])
def test_a_geotransform_without_a_crs_places_it(tmp_path: Path, which: str) -> None:
    grid = turned(10.0)
    classes = np.random.default_rng(1).integers(0, 12, grid.shape).astype(np.uint8)
    expected = valid(save(tmp_path / "a.tif", classes, grid))
    bare = Grid(120, 90, GRID.transform)
    path = tmp_path / "b.tif"
    save(path, classes, grid)
    if which != "image":
        path.unlink()
        shape = {"count": 1, "height": grid.height, "width": grid.width, "dtype": "uint8"}
        with rasterio.open(path, "w", driver="GTiff", **shape, transform=rasterio.Affine(*grid.transform)) as file:
            file.write(classes[None])
    found = valid(str(path), grid=GRID if which == "mask" else bare)
    np.testing.assert_array_equal(found, expected)


def test_a_much_finer_mask_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from somareg.io import masks

    fine = Grid(1200, 900, (1, 0, 500000, 0, -1, 5000000), UTM)
    classes = np.random.default_rng(1).integers(0, 3, fine.shape).astype(np.uint8)
    path = save(tmp_path / "fine.tif", classes, fine)
    whole = valid(path)
    monkeypatch.setattr(masks, "_WINDOW_VALUES", 20_000)
    np.testing.assert_array_equal(valid(path), whole)


# --- with the image ---------------------------------------------------------------------------------------------------


def test_an_image_in_a_file_is_masked_in_windows_and_as_a_whole(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(1, 200, (2, 90, 120)).astype(np.uint8)
    data[1, :30] = 0
    image = save(tmp_path / "image.tif", data, nodata=0)
    mask = save(tmp_path / "mask.tif", CLASSES)
    cfg = make_config({"moving_mask": mask, "moving_mask_values": "8-11"})
    seen = CLASSES < 8
    with open_image(image, "moving", None, cfg) as opened:
        np.testing.assert_array_equal(opened.window(WHOLE)[1], seen & (data[1] != 0))
        first = opened.matched_on((1,))
        np.testing.assert_array_equal(first.window(Block(3, 4, 50, 60))[1], seen[4:64, 3:53])
        np.testing.assert_array_equal(first.facts.mask, seen)
        np.testing.assert_array_equal(opened.facts.mask, seen & (data[1] != 0))
        assert any("invalid by moving mask image" in note for note in opened.facts.notes)
        assert opened.facts.data.shape == (2, 90, 120)


def test_an_image_in_memory_takes_the_file_of_a_mask(tmp_path: Path) -> None:
    data = np.ones((2, 90, 120), np.float32)
    data[1, :30] = np.nan
    cfg = make_config({"moving_mask": save(tmp_path / "mask.tif", CLASSES, Grid(120, 90))})
    with open_image(data, "moving", None, cfg) as opened:
        np.testing.assert_array_equal(opened.facts.valid, (CLASSES != 0) & np.isfinite(data))
        np.testing.assert_array_equal(opened.matched_on((1,)).facts.mask, CLASSES != 0)


def test_an_asset_of_a_stac_item_is_a_mask(tmp_path: Path) -> None:
    save(tmp_path / "scl.tif", CLASSES)
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "a", "properties": {}, "links": []}
    item["assets"] = {"scl": {"href": "scl.tif", "type": "image/tiff"}}
    (tmp_path / "item.json").write_text(json.dumps(item))
    np.testing.assert_array_equal(valid(f"{tmp_path}/item.json#scl", "4"), CLASSES != 4)


def test_a_mask_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"moving mask image .*clouds\.tif does not exist"):
        valid(str(tmp_path / "clouds.tif"))


def test_a_mask_is_opened_as_carefully_as_an_image(tmp_path: Path) -> None:
    save(tmp_path / "secret.tif", CLASSES)
    (tmp_path / "mask.tif").write_text(
        '<VRTDataset rasterXSize="120" rasterYSize="90"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativetoVRT="0">{tmp_path}/secret.tif</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(ReadError, match="cannot be opened as one of GTiff"):
        valid(str(tmp_path / "mask.tif"))
    with pytest.raises(UnsupportedError, match="not a local file"):
        valid("https://example.com/mask.tif")


def test_classes_without_a_mask_are_refused(tmp_path: Path) -> None:
    image = save(tmp_path / "image.tif", CLASSES)
    with (
        pytest.raises(ConfigError, match="reference_mask_values lists classes of a mask"),
        open_image(image, "reference", None, make_config({"reference_mask_values": "3"})),
    ):
        pass
