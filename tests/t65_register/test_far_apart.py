"""Images far from where they are expected: without a georeference, or with one that is wrong by much.

Real pixels, from the pair in the package. Its relief of some pixels is followed less in smaller crops, hence 2 px.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

import somareg
from somareg.cli.sample import sample_pair
from somareg.errors import NoOverlapError
from somareg.types import Grid, Result
from tests.t65_register.conftest import UTM, write

Array = NDArray[Any]
register = partial(somareg.register, model="orientation")
LOCATED = "was located in the other image"


@pytest.fixture(scope="module")
def pair() -> tuple[Array, Array]:
    """SAR and optical, (C, 672, 672), some pixels apart."""
    images = []
    for path in sample_pair():
        with rasterio.open(path) as file:
            images.append(file.read())
    return images[0], images[1]


@pytest.fixture(scope="module")
def truth(pair: tuple[Array, Array]) -> Result:
    """Of the whole images, in whose pixels the crops are placed."""
    return register(*pair)


def part(image: Array, x: int, y: int, width: int, height: int) -> Array:
    return np.ascontiguousarray(image[:, y : y + height, x : x + width])


def error(found: Result, truth: Result, here: tuple[int, int], there: tuple[int, int]) -> float:
    """RMS distance (pixels) from the whole images' map, for crops whose corners (x, y) are `here` in the optical and
    `there` in the SAR image, over the ground that both show.
    """
    rows, columns = found.reference.grid.shape
    y, x = np.mgrid[8 : rows - 8 : 21j, 8 : columns - 8 : 21j]
    points = np.stack([x.ravel(), y.ravel()], axis=-1)
    expected = truth.transform(points + here) - there
    height, width = found.moving.grid.shape
    shown = ((expected > 8) & (expected < np.array([width, height]) - 9)).all(axis=1)
    assert shown.sum() > 20
    return float(np.sqrt(((found.transform(points[shown]) - expected[shown]) ** 2).sum(1).mean()))


def test_images_of_one_size_far_apart(pair: tuple[Array, Array], truth: Result) -> None:
    """60 % of the ground is common."""
    here, there, size = (20, 150), (150, 165), (360, 300)
    found = register(part(pair[0], *there, *size), part(pair[1], *here, *size))
    assert found.verdict.decision == "go"
    assert any(LOCATED in note for note in found.notes)
    assert error(found, truth, here, there) < 2.0


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("corner", [(-60, 160), (320, 150), (120, -50), (100, 330)])
def test_a_chip_over_the_edge_of_a_tile(
    corner: tuple[int, int], swapped: bool, pair: tuple[Array, Array], truth: Result
) -> None:
    tile, side = (120, 120, 440, 440), 180
    chip = (tile[0] + corner[0], tile[1] + corner[1], side, side)
    if swapped:  # the reference is the small one
        found = register(part(pair[0], *tile), part(pair[1], *chip))
        off = error(found, truth, chip[:2], tile[:2])
    else:
        found = register(part(pair[0], *chip), part(pair[1], *tile))
        off = error(found, truth, tile[:2], chip[:2])
    assert any(LOCATED in note for note in found.notes)
    assert found.verdict.decision == "go"
    assert off < 2.0


def test_a_narrow_strip_as_long_as_the_reference(pair: tuple[Array, Array], truth: Result) -> None:
    here, there = (0, 60), (0, 420)
    found = register(part(pair[0], *there, 672, 72), part(pair[1], *here, 672, 560))
    assert found.verdict.decision == "go"
    assert error(found, truth, here, there) < 2.0


def test_displaced_and_rotated(pair: tuple[Array, Array], truth: Result) -> None:
    """The SAR image is turned by 10 degrees about its middle, and shows ground 150 px further right."""
    size, here, middle = 360, (60, 150), np.array([390.0, 330.0])
    turn = np.deg2rad(10.0)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    into = np.column_stack([rotation, middle - rotation @ np.full(2, (size - 1) / 2)])  # turned -> whole SAR
    turned = cv2.warpAffine(pair[0][0], into, (size, size), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)[None]
    found = register(turned, part(pair[1], *here, size, size))
    assert found.verdict.decision == "go"
    points = np.array([[200.0, 100.0], [300.0, 180.0], [250.0, 250.0], [340.0, 300.0]])
    expected = (truth.transform(points + here) - into[:, 2]) @ rotation
    assert np.sqrt(np.square(found.transform(points) - expected).sum(axis=1).mean()) < 2.0


def test_other_ground_is_found_nowhere(pair: tuple[Array, Array]) -> None:
    mirrored = pair[0][:, :, ::-1]
    found = register(part(mirrored, 0, 0, 300, 300), part(pair[1], 300, 300, 300, 300))
    assert found.verdict.decision == "no-go"
    assert not any(LOCATED in note for note in found.notes)


def test_local_search_stays_in_the_middle(pair: tuple[Array, Array]) -> None:
    found = register(part(pair[0], 170, 160, 400, 400), part(pair[1], 20, 150, 400, 400), search="local")
    assert found.verdict.decision != "go"
    assert not any(LOCATED in note for note in found.notes)


# --- wrong georeferences ----------------------------------------------------------------------------------------------

SIDE = 400
WRONG = "the georeferences seem to be"


@pytest.fixture
def reference(pair: tuple[Array, Array], tmp_path: Path) -> Path:
    return write(tmp_path / "reference.tif", part(pair[1], 100, 120, SIDE, SIDE), place(100, 120))


def place(x: float, y: float, size: float = 10.0, side: int = SIDE) -> Grid:
    """Grid of an image whose corner claims to lie at a pixel of the whole images, with pixels of `size` metres."""
    return Grid(side, side, (size, 0.0, 500000 + 10 * x, 0.0, -size, 4650000 - 10 * y), UTM)


@pytest.mark.parametrize(("dx", "dy"), [(150, 40), (-90, 100), (10, -160)])
def test_a_georeference_that_is_wrong_by_a_third_of_the_image(
    dx: int, dy: int, pair: tuple[Array, Array], truth: Result, reference: Path, tmp_path: Path
) -> None:
    moving = write(tmp_path / "moving.tif", part(pair[0], 110, 110, SIDE, SIDE), place(110 + dx, 110 + dy))
    found = register(moving, reference)
    assert found.verdict.decision == "go"
    (note,) = [note for note in found.notes if WRONG in note]
    assert abs(int(note.split()[5]) - np.hypot(dx, dy)) < 12
    assert error(found, truth, (100, 120), (110, 110)) < 2.0
    assert found.quality.shift_before_px == pytest.approx(np.hypot(dx, dy), abs=12)


def test_other_pixels_and_another_crs(
    pair: tuple[Array, Array], truth: Result, reference: Path, tmp_path: Path
) -> None:
    """Pixels of 20 m in degrees, 1.4 km too far east."""
    averaged = part(pair[0], 0, 0, 672, 672).reshape(1, 336, 2, 336, 2).mean((2, 4)).astype(np.uint8)
    utm = write(tmp_path / "utm.tif", averaged, place(140, 0, 20.0, 336))
    moving = tmp_path / "moving.tif"
    with rasterio.open(utm) as file, WarpedVRT(file, crs="EPSG:4326", resampling=Resampling.cubic) as turned:
        rasterio.shutil.copy(turned, moving, driver="GTiff")
    found = register(moving, reference)
    assert found.verdict.decision == "go"
    assert any(WRONG in note for note in found.notes)
    y, x = np.mgrid[40 : SIDE - 40 : 9j, 40 : SIDE - 40 : 9j]
    points = np.stack([x.ravel(), y.ravel()], axis=-1)
    away = np.array([40, -120])  # by 140 px east, and from the corner of the reference
    expected = truth.transform(points + np.array([100, 120])) + away  # claimed places, pixels of the reference
    assert np.sqrt(((found.correction(points) - expected) ** 2).sum(1).mean()) < 2.0


def test_a_chip_whose_place_is_wrong(pair: tuple[Array, Array], truth: Result, reference: Path, tmp_path: Path) -> None:
    chip = write(tmp_path / "chip.tif", part(pair[0], 230, 260, 160, 160), place(230 + 62, 260 - 41, side=160))
    found = register(chip, reference)
    assert found.verdict.decision == "go"
    assert error(found, truth, (100, 120), (230, 260)) < 2.0


def test_a_strip_whose_place_is_wrong_by_more_than_its_height(
    pair: tuple[Array, Array], truth: Result, reference: Path, tmp_path: Path
) -> None:
    grid = replace(place(80 + 70, 300 - 95), width=440, height=70)
    strip = write(tmp_path / "strip.tif", part(pair[0], 80, 300, 440, 70), grid)
    found = register(strip, reference)
    assert found.verdict.decision == "go"
    assert any(WRONG in note for note in found.notes)
    assert error(found, truth, (100, 120), (80, 300)) < 2.0


def test_what_was_before_is_told_of_the_claimed_place(
    pair: tuple[Array, Array], reference: Path, tmp_path: Path
) -> None:
    moving = write(tmp_path / "moving.tif", part(pair[0], 110, 110, SIDE, SIDE), place(260, 150))
    found = register(moving, reference)
    claimed = register(moving, reference, search="local").quality.similarity_before
    assert found.quality.similarity_before == pytest.approx(claimed, abs=1e-6)
    assert found.quality.similarity_after > claimed + 0.05


def test_hardly_any_pixel_where_it_claims_to_lie(pair: tuple[Array, Array], truth: Result, tmp_path: Path) -> None:
    """The claimed place alone is refused. An image that is found elsewhere is matched there, others are refused."""
    optical, radar = part(pair[1], 100, 120, SIDE, SIDE), part(pair[0], 110, 110, SIDE, SIDE)
    optical[:, :, 200:] = 0
    mirrored = np.ascontiguousarray(radar[:, :, ::-1])
    for image in (radar, mirrored):
        image[:, :, 230:] = 0
        image[:, :, :30] = 0
    grid = place(110 + 175, 110)
    fixed = write(tmp_path / "fixed.tif", optical, place(100, 120), nodata=0)
    right = write(tmp_path / "right.tif", radar, grid, nodata=0)
    wrong = write(tmp_path / "wrong.tif", mirrored, grid, nodata=0)
    for image, options in ((right, {"search": "local"}), (wrong, {})):
        with pytest.raises(NoOverlapError, match="valid pixels"):
            register(image, fixed, **options)
    found = register(right, fixed)
    assert found.verdict.decision == "go"
    assert error(found, truth, (100, 120), (110, 110)) < 2.0


def test_a_radius_is_kept_to_and_other_ground_found_nowhere(
    pair: tuple[Array, Array], reference: Path, tmp_path: Path
) -> None:
    moving = write(tmp_path / "moving.tif", part(pair[0], 110, 110, SIDE, SIDE), place(260, 150))
    mirrored = write(tmp_path / "mirrored.tif", part(pair[0][:, :, ::-1], 110, 110, SIDE, SIDE), place(110, 110))
    for found in (register(moving, reference, search_radius_px=30.0), register(mirrored, reference)):
        assert found.verdict.decision != "go"
        assert not any(WRONG in note for note in found.notes)
    arrays = part(pair[0], 150, 165, 360, 300), part(pair[1], 20, 150, 360, 300)
    assert not any(LOCATED in note for note in register(*arrays, search_radius_px=30.0).notes)
