"""A small image and a large one: all is sized by the ground that both show, as if it had been cropped by hand."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

import somareg
from somareg.cli.sample import sample_pair
from somareg.io import georeference
from somareg.io.source import Block, RasterSource
from somareg.preprocess.prepare import reduce_blocks
from somareg.register.plan import plan
from somareg.types import Grid, Result
from tests.t65_register.conftest import UTM, write

Array = NDArray[Any]
register = partial(somareg.register, model="orientation")
PLACE = (10.0, 0.0, 400000.0, 0.0, -10.0, 3800000.0)
WHOLE = Grid(1500, 1500, PLACE, UTM)
CORNER = (414, 414)  # of the real pair in the large image
ROLES = ("moving", "reference")


def grid_of(block: Block) -> Grid:
    return WHOLE.part(*block)


@dataclass(frozen=True)
class Pairs:
    """Real images as parts of a ground of 1500 px, made by mirroring.

    Attributes:
        sar, optical: (C, 1500, 1500); they lie some pixels apart.
        folder: for files.
    """

    sar: Array
    optical: Array
    folder: Path

    def file(self, name: str, image: Array, block: Block, *, placed: bool = True) -> Path:
        part = image[:, block.y : block.y + block.height, block.x : block.x + block.width]
        grid = grid_of(block) if placed else Grid(block.width, block.height)
        return write(self.folder / f"{name}.tif", part, grid, tiled=True, blockxsize=256, blockysize=256)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    images = []
    for path in sample_pair():
        with rasterio.open(path) as file:
            data = file.read()
        images.append(np.pad(data, ((0, 0), (414, 414), (414, 414)), mode="symmetric"))
    # Mirrored ground is no other ground. The same noise in both images would be found as something drawn into both.
    noise = np.random.default_rng(0).normal(0, 5, (2, 1, 1500, 1500))
    noise[..., 400:1100, 400:1100] = 0
    sar, optical = (np.clip(image + own, 1, 255).astype(np.uint8) for image, own in zip(images, noise, strict=True))
    return Pairs(sar, optical, tmp_path_factory.mktemp("pairs"))


SMALL = Block(560, 570, 400, 380)
LARGE = Block(0, 0, 1500, 1500)
CROP = Block(SMALL.x - 51, SMALL.y - 38, SMALL.width + 90, SMALL.height + 77)  # the search radius is 32 px


def both(pairs: Pairs, small: str, large: Block, *, placed: bool = True) -> tuple[Path, Path]:
    """Files of moving and reference; `small` is the role of the small image, which is SAR."""
    name = f"{small}{large.x}{placed}"
    little = pairs.file(f"little{name}", pairs.sar, SMALL, placed=placed)
    much = pairs.file(f"much{name}", pairs.optical, large, placed=placed)
    return (little, much) if small == "moving" else (much, little)


def modalities(small: str) -> dict[str, str]:
    return {} if small == "moving" else {"moving_modality": "optical", "reference_modality": "sar"}


def shifts(result: Result, reference: Block) -> Array:
    """Displacement (N, 2) on the small image's ground, by a result whose reference is a part of the ground."""
    x, y = (np.linspace(start, start + side - 1, 9) for start, side in zip(SMALL[:2], SMALL[2:], strict=True))
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2) - reference[:2]
    return result.correction(points) - points


def off(first: Array, second: Array) -> float:
    return float(np.sqrt(((first - second) ** 2).sum(1).mean()))


@pytest.fixture(scope="module")
def by_hand(pairs: Pairs) -> Callable[[str], Result]:
    made: dict[str, Result] = {}

    def find(small: str) -> Result:
        if small not in made:
            made[small] = register(*both(pairs, small, CROP), **modalities(small))
        return made[small]

    return find


# --- with georeference ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("small", ROLES)
def test_as_right_as_cropped_by_hand(small: str, pairs: Pairs, by_hand: Callable[[str], Result]) -> None:
    hand, got = by_hand(small), register(*both(pairs, small, LARGE), **modalities(small))
    assert got.verdict.decision == hand.verdict.decision == "go"
    here = (LARGE, CROP) if small == "moving" else (SMALL, SMALL)
    assert off(shifts(got, here[0]), shifts(hand, here[1])) < 0.01
    assert got.quality.overlap > 0.95  # of the smaller image
    assert got.quality.shift_before_px == pytest.approx(hand.quality.shift_before_px, abs=0.3)


def test_arrays_with_a_place_are_cut_as_files_are(pairs: Pairs) -> None:
    """DataArrays and Rasters, too, are sized by the common ground."""
    from somareg.io import read_raster

    moving, reference = both(pairs, "moving", LARGE)
    by_file = register(moving, reference)
    in_memory = register(read_raster(moving, role="moving"), read_raster(reference, role="reference"))
    assert in_memory.verdict == by_file.verdict
    assert off(shifts(in_memory, LARGE), shifts(by_file, LARGE)) < 1e-6


def test_windows_are_read_and_not_the_large_image(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    read, blocks = RasterSource.read, []

    def counted(self: RasterSource, block: Block | None = None) -> Any:
        assert block is not None
        blocks.append(block)
        return read(self, block)

    monkeypatch.setattr(RasterSource, "read", counted)
    register(*both(pairs, "moving", LARGE))
    assert max(block.width * block.height for block in blocks) < 500 * 480


def test_the_small_image_may_hang_over_the_edge(pairs: Pairs) -> None:
    """A part of the reference that shows two thirds of it; the overlap is that of the smaller one."""
    large = Block(SMALL.x + SMALL.width // 3, 0, 1500 - SMALL.x - SMALL.width // 3, 1500)
    got = register(pairs.file("edge_m", pairs.sar, SMALL), pairs.file("edge_r", pairs.optical, large))
    assert got.verdict.decision == "go"
    assert got.quality.overlap == pytest.approx(2 / 3, abs=0.05)


def test_too_little_overlap_is_a_doubt(pairs: Pairs) -> None:
    large = Block(SMALL.x + SMALL.width - 60, 0, 1500 - SMALL.x - SMALL.width + 60, 1500)
    got = register(pairs.file("little_m", pairs.sar, SMALL), pairs.file("little_r", pairs.optical, large))
    assert got.verdict.decision != "go"
    assert got.quality.overlap < 0.2


def test_another_crs_and_pixel_size(pairs: Pairs, by_hand: Callable[[str], Result]) -> None:
    """The large reference in degrees."""
    from rasterio.warp import Resampling, calculate_default_transform, reproject

    source = pairs.file("degrees_source", pairs.optical, LARGE)
    with rasterio.open(source) as file:
        transform, width, height = calculate_default_transform(file.crs, "EPSG:4326", 1500, 1500, *file.bounds)
        data = np.zeros((3, height, width), np.uint8)
        place = {"src_transform": file.transform, "src_crs": file.crs}
        reproject(file.read(), data, dst_transform=transform, dst_crs="EPSG:4326", resampling=Resampling.cubic, **place)
    grid = Grid(width, height, tuple(transform)[:6], "EPSG:4326")  # type: ignore[arg-type]
    reference = write(pairs.folder / "degrees.tif", data, grid, nodata=0)
    moving = pairs.file("degrees_m", pairs.sar, SMALL)
    got = register(moving, reference)
    assert got.verdict.decision == "go"
    # Compared on the ground: where the transform puts the small image's pixels.
    hand = by_hand("moving")
    x, y = np.meshgrid(np.linspace(20, 380, 7), np.linspace(20, 360, 7))
    points = np.stack([x.ravel(), y.ravel()], axis=-1)
    on_ground = georeference(grid_of(CROP), grid).inverse(got.transform.inverse(points))
    assert off(on_ground, hand.transform.inverse(points)) < 0.9  # both follow relief, seen by other windows


# --- extent -----------------------------------------------------------------------------------------------------------


def test_outputs_stay_on_the_whole_reference(pairs: Pairs, tmp_path: Path) -> None:
    moving, reference = both(pairs, "moving", LARGE)
    out = register(moving, reference).save(tmp_path / "out", stac=True)
    with rasterio.open(out / "aligned.tif") as file, rasterio.open(reference) as like:
        assert (file.shape, file.transform) == (like.shape, like.transform)
        mask = file.read_masks(1) > 0
    assert 0.9 < mask.sum() / (SMALL.width * SMALL.height) < 1.1
    rows, columns = np.nonzero(mask)
    assert abs(columns.min() - SMALL.x) < 12
    assert abs(rows.min() - SMALL.y) < 12


def test_common_extent_is_as_if_the_reference_had_been_cropped(pairs: Pairs, tmp_path: Path) -> None:
    moving, reference = both(pairs, "moving", LARGE)
    plain, got = register(moving, reference), register(moving, reference, extent="common")
    assert got.verdict == plain.verdict
    grid = got.reference.grid
    assert grid.width == pytest.approx(SMALL.width, abs=8)
    assert grid.height == pytest.approx(SMALL.height, abs=8)
    column, row = np.rint(WHOLE.to_pixel(grid.to_map(np.zeros((1, 2)))))[0]
    points, corner = np.random.default_rng(0).uniform(0, 380, (50, 2)), np.array([column, row])
    np.testing.assert_allclose(got.transform(points), plain.transform(points + corner), atol=1e-6)
    np.testing.assert_allclose(got.correction(points) + corner, plain.correction(points + corner))
    part = slice(int(row), int(row) + grid.height), slice(int(column), int(column) + grid.width)
    np.testing.assert_allclose(got.displacement.array, plain.displacement.array[(slice(None), *part)], atol=1e-4)
    assert got.reference.data.shape == (3, *grid.shape)
    np.testing.assert_array_equal(got.reference.data, pairs.optical[(slice(None), *part)])
    out = got.save(tmp_path / "out", stac=True)
    with rasterio.open(out / "aligned.tif") as file:
        assert file.shape == grid.shape
        assert (file.read_masks(1) > 0).mean() > 0.97
    again = somareg.warp(moving, out)
    assert again.grid == grid
    assert f"columns {int(column)} to" in " ".join(got.notes)


@pytest.mark.parametrize("extent", ["reference", "common"])
def test_a_result_travels_to_another_process(pairs: Pairs, extent: str) -> None:
    """Images stay in their files; whoever has those has the pixels."""
    got = register(*both(pairs, "moving", LARGE), extent=extent)
    text = pickle.dumps(got)
    assert len(text) < 40e6
    again = pickle.loads(text)
    points = np.array([[700.0, 800.0]])
    np.testing.assert_array_equal(again.transform(points), got.transform(points))
    assert again.reference.data.shape == (3, *got.reference.grid.shape)


def test_extent_of_equal_images_is_nearly_all(pairs: Pairs) -> None:
    images = pairs.file("equal_m", pairs.sar, SMALL), pairs.file("equal_r", pairs.optical, SMALL)
    plain, common = register(*images), register(*images, extent="common")
    assert plain.reference.grid.shape == (380, 400)
    height, width = common.reference.grid.shape
    assert 365 < height <= 380
    assert 385 < width <= 400


def test_nothing_of_the_size_of_a_large_reference_is_allocated(pairs: Pairs) -> None:
    """12 000 px: its displacement would take 1.7 GB."""
    side = 12000
    path = pairs.folder / "huge.tif"
    profile = {"count": 1, "dtype": "uint8", "tiled": True, "blockxsize": 512, "blockysize": 512, "SPARSE_OK": "TRUE"}
    a, b, c, d, e, f = PLACE
    place = rasterio.Affine(a, b, c - 50000.0, d, e, f + 50000.0)
    with rasterio.open(path, "w", driver="GTiff", width=side, height=side, crs=UTM, transform=place, **profile) as file:
        file.write(pairs.optical[:1], window=rasterio.windows.Window(5000, 5000, 1500, 1500))
    moving = pairs.file("huge_m", pairs.sar, SMALL)
    tracemalloc.start()
    got = register(moving, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert got.verdict.decision == "go"
    assert peak < 100e6  # votes on aspect and shear hold 4 million hypotheses at a time
    assert got.displacement.array.shape == (2, 750, 750)
    assert got.reference.grid.width == side
    told = plan(moving, path, model="orientation")
    assert told["memory_mb"] < 500  # of which the libraries take 420
    assert told["common_ground"].startswith("4")


# --- tiles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("small", ROLES)
def test_tiles_cover_the_common_ground_only(small: str, pairs: Pairs) -> None:
    """A part of 1050 px of the large image, itself seen as small: by tiles as by hand."""
    block, crop = Block(200, 210, 1050, 1040), Block(115, 125, 1220, 1210)
    little = pairs.file(f"tiles_m{small}", pairs.sar, block)
    results = []
    for name, large in (("hand", crop), ("all", LARGE)):
        much = pairs.file(f"tiles_{name}{small}", pairs.optical, large)
        images = (little, much) if small == "moving" else (much, little)
        results.append(register(*images, scene="always", **modalities(small)))
    hand, got = results
    assert len(hand.tiles) == len(got.tiles) > 3
    assert got.verdict.decision == hand.verdict.decision
    axis = np.linspace(500, 900, 9)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    here = [(crop[:2], LARGE[:2]), (block[:2], block[:2])][small == "reference"]
    moved = [r.correction(points - corner) - (points - corner) for r, corner in zip(results, here, strict=True)]
    assert off(*moved) < 0.01


# --- without georeference ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("small", ROLES)
@pytest.mark.parametrize("kind", ["file", "array"])
def test_a_small_image_is_looked_for_in_a_large_one(
    small: str, kind: str, pairs: Pairs, by_hand: Callable[[str], Result]
) -> None:
    images: Any = both(pairs, small, LARGE, placed=False)
    if kind == "array":
        images = [rasterio.open(path).read() for path in images]
    got = register(*images, **modalities(small))
    assert got.verdict.decision == "go"
    assert any("was located in the other image" in note for note in got.notes)
    hand = by_hand(small)
    # Without a place, the correction leads to pixels of the moving image, as the transform does.
    if small == "moving":
        found, expected = shifts(got, LARGE), shifts(hand, CROP) - SMALL[:2]
    else:
        found, expected = shifts(got, SMALL), shifts(hand, SMALL) + SMALL[:2]
    assert off(found, expected) < 0.7  # both follow relief, seen by other windows


@pytest.mark.parametrize("coarse", ROLES)
@pytest.mark.parametrize("ratio", [3, 8])
def test_a_coarse_image_of_the_same_ground_is_found_without_being_told(coarse: str, ratio: int, pairs: Pairs) -> None:
    """It looks like a part of the fine one, is looked for there first, and then compared with the whole."""
    side = 600 // ratio * ratio
    sar, optical = (image[:, 450 : 450 + side, 450 : 450 + side] for image in (pairs.sar, pairs.optical))
    small = somareg.register(sar, optical, model="auto").transform
    fine_one = sar if coarse == "moving" else optical
    reduced, _ = reduce_blocks(fine_one, np.ones((side, side), bool), ratio)
    images = (reduced, optical) if coarse == "moving" else (sar, reduced)
    got = somareg.register(*images, model="auto")
    assert got.verdict.decision == "go"
    axis = np.linspace(60, side - 60, 5)
    fine = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    expected = small(fine)
    if coarse == "moving":
        error = (got.transform(fine) + 0.5) * ratio - 0.5 - expected
    else:
        error = got.transform((fine + 0.5) / ratio - 0.5) - expected
    assert np.sqrt((error**2).sum(1).mean()) < 0.5 * ratio


def test_common_extent_without_georeference(pairs: Pairs, tmp_path: Path) -> None:
    moving, reference = both(pairs, "moving", LARGE, placed=False)
    got = register(moving, reference, extent="common")
    assert got.reference.grid.width == pytest.approx(SMALL.width, abs=8)
    with rasterio.open(got.save(tmp_path / "out") / "aligned.tif") as file:
        assert file.shape == got.reference.grid.shape
        assert (file.read_masks(1) > 0).mean() > 0.97


@pytest.mark.parametrize("small", ROLES)
def test_ground_that_stands_twice_is_never_go(small: str, pairs: Pairs) -> None:
    """The images cannot tell which of two equal places the small one shows; a georeference can."""
    part = pairs.sar[:, 620:860, 630:870]
    once = pairs.optical[:, 540:980, 540:980]
    twice = np.concatenate([once, once], axis=-1)
    images = (part, twice) if small == "moving" else (twice, part)
    got = register(*images, **modalities(small))
    assert got.verdict.decision == "review"
    assert any("another place of the other image" in reason for reason in got.verdict.reasons)
    images = (part, once) if small == "moving" else (once, part)
    assert not any("another place" in reason for reason in register(*images, **modalities(small)).verdict.reasons)


def test_another_place_is_no_go(pairs: Pairs) -> None:
    elsewhere = np.random.default_rng(5).gamma(4, 30, (1, 300, 300)).astype(np.uint8)
    got = register(elsewhere, pairs.optical[:, ::2, ::2])
    assert got.verdict.decision == "no-go"


def test_images_that_lie_further_apart_than_the_rim_are_aligned(pairs: Pairs) -> None:
    """The georeference of the small image is 27 px off, the rim 20 px wide, the search radius 32 px."""
    claimed = SMALL._replace(x=SMALL.x + 19, y=SMALL.y - 19)
    part = pairs.sar[:, SMALL.y : SMALL.y + SMALL.height, SMALL.x : SMALL.x + SMALL.width]
    moving = write(pairs.folder / "off.tif", part, grid_of(claimed))
    found = register(moving, pairs.file("off_r", pairs.optical, LARGE))
    plain = register(*both(pairs, "moving", LARGE))
    assert found.verdict.decision == "go"
    assert off(shifts(found, LARGE), shifts(plain, LARGE) + np.array([19, -19])) < 0.6
