"""Words for what an image shows: each is prepared as it needs, and what is no data leaves no edge."""

from __future__ import annotations

from typing import get_args

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from somareg.features.orientation import OrientationCfg, orientation_channels
from somareg.preprocess.bands import choose_bands
from somareg.preprocess.local import against_surroundings, filled, local_mean
from somareg.preprocess.normalise import normalise, treatment
from somareg.preprocess.relief import STEEP, relief
from somareg.types import HEIGHTS, BoolArray, Modality

SHAPE = (160, 200)
EVERYWHERE = np.ones(SHAPE, bool)
WORDS: tuple[Modality, ...] = get_args(Modality)
HOLES = np.ones(SHAPE, bool)
HOLES[40:90, 60:120] = False
HOLES[:, 180:] = False


def hills(seed: int = 0, roughness: float = 6.0, shape: tuple[int, int] = SHAPE) -> NDArray[np.float32]:
    """Smooth random ground, metres."""
    noise = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    ground = cv2.GaussianBlur(noise, (0, 0), roughness) + 4 * cv2.GaussianBlur(noise, (0, 0), 4 * roughness)
    return np.asarray(800 + 60 * ground / ground.std(), np.float32)


def lit(ground: NDArray[np.float32], azimuth_deg: float) -> NDArray[np.float32]:
    """Brightness of ground under a low sun."""
    down, right = np.gradient(ground)
    azimuth = np.radians(azimuth_deg)
    return np.asarray(np.cos(azimuth) * right + np.sin(azimuth) * down, np.float32)


def channels(image: NDArray[np.float32], mask: BoolArray = EVERYWHERE) -> NDArray[np.float32]:
    """What the weight-free engine compares, (K, h, w)."""
    tensor, seen = torch.from_numpy(image)[None], torch.from_numpy(mask)[None, None].float()
    return np.asarray(orientation_channels(tensor, seen, OrientationCfg())[0][0].numpy())


def agreement(one: NDArray[np.float32], other: NDArray[np.float32], mask: BoolArray = EVERYWHERE) -> float:
    """Correlation of what the engine sees of two images of the same ground."""
    return float(np.corrcoef(channels(one, mask).ravel(), channels(other, mask).ravel())[0, 1])


# --- every word -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", WORDS)
@pytest.mark.parametrize("mask", [EVERYWHERE, HOLES], ids=["whole", "with holes"])
def test_bands_have_mean_0_and_deviation_1_over_valid_pixels(modality: Modality, mask: BoolArray) -> None:
    data = np.random.default_rng(0).gamma(4, 0.02, (2, *SHAPE)) * np.array([1, 4000])[:, None, None]
    image, note = normalise(data, mask, modality)
    assert image.dtype == np.float32
    assert len(image) == (8 if modality in HEIGHTS else 2)
    np.testing.assert_allclose(image[:, mask].mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(image[:, mask].std(1), 1, atol=1e-3)
    assert not image[:, ~mask].any()
    assert note.startswith(treatment(modality))


@pytest.mark.parametrize("modality", WORDS)
@pytest.mark.parametrize("rubbish", [np.nan, np.inf, -np.inf, 1e30, -9999.0])
def test_values_of_invalid_pixels_change_nothing(modality: Modality, rubbish: float) -> None:
    data = hills()[None].copy()
    clean, _ = normalise(data, HOLES, modality)
    data[:, ~HOLES] = rubbish
    dirty, _ = normalise(data, HOLES, modality)
    np.testing.assert_array_equal(clean, dirty)


@pytest.mark.parametrize("modality", WORDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float64, np.complex64])
def test_every_type_and_nothing_to_see(modality: Modality, dtype: type) -> None:
    flat = np.full((1, *SHAPE), 7, dtype)
    assert not normalise(flat, EVERYWHERE, modality)[0].any()
    assert not normalise(flat, np.zeros(SHAPE, bool), modality)[0].any()
    one = np.zeros(SHAPE, bool)
    one[80, 90] = True
    assert np.isfinite(normalise(flat, one, modality)[0]).all()
    data = np.clip(hills() / 8, 0, 255)[None].astype(dtype)
    assert np.isfinite(normalise(data, HOLES, modality)[0]).all()


@pytest.mark.parametrize("modality", [word for word in WORDS if word != "sar"])
def test_units_do_not_matter(modality: Modality) -> None:
    data = hills().astype(np.float64)[None]
    first, _ = normalise(data, HOLES, modality)
    second, _ = normalise(data * 0.3048 + 1000.0, HOLES, modality)
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("modality", ["infrared", "depth", "dem", "map"])
def test_the_edge_of_no_data_is_no_edge_of_the_ground(modality: Modality) -> None:
    """What is seen beside a hole is what is seen there without it, but for the blur of the filters."""
    data = hills(roughness=3.0)[None]
    whole, holed = (channels(normalise(data, mask, modality)[0], mask) for mask in (EVERYWHERE, HOLES))
    near = cv2.erode(HOLES.astype(np.uint8), np.ones((13, 13)), borderValue=1).astype(bool)
    rim = (HOLES & ~near)[::2, ::2] & HOLES[1::2, 1::2]
    strength = np.linalg.norm(holed, axis=0)
    assert strength[rim].mean() < 1.1 * strength[near[::2, ::2]].mean()
    inside = cv2.erode(HOLES.astype(np.uint8), np.ones((25, 25)), borderValue=0).astype(bool)[::2, ::2]
    assert np.corrcoef(whole[:, inside].ravel(), holed[:, inside].ravel())[0, 1] > 0.95


@pytest.mark.parametrize("modality", ["infrared", "depth", "dem", "map"])
def test_tiles_see_what_the_whole_sees(modality: Modality) -> None:
    """Each tile of a scene is prepared by itself: its middle looks to the matcher as in the whole."""
    data = hills(shape=(400, 400), roughness=3.0)[None]
    whole = channels(normalise(data, np.ones((400, 400), bool), modality)[0], np.ones((400, 400), bool))
    tile = channels(
        normalise(data[:, 100:300, 100:300], np.ones((200, 200), bool), modality)[0], np.ones((200, 200), bool)
    )
    there, here = whole[:, 60:140, 60:140], tile[:, 10:90, 10:90]
    assert np.corrcoef(there.ravel(), here.ravel())[0, 1] > 0.93


# --- heights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("azimuth_deg", [0, 30, 90, 135, 200, 315])
def test_ground_is_recognised_under_any_sun(azimuth_deg: float) -> None:
    ground = hills()
    seen, _ = normalise(lit(ground, azimuth_deg)[None], EVERYWHERE, "optical")
    as_heights, _ = normalise(ground[None], EVERYWHERE, "dem")
    as_brightness, _ = normalise(ground[None], EVERYWHERE, "other")
    assert agreement(as_heights, seen) > agreement(as_brightness, seen) + 0.15


def test_steps_are_edges_where_they_are() -> None:
    """A flat roof: what was made of its height is strongest at its walls, within a pixel or two."""
    town = np.zeros(SHAPE, np.float32)
    town[50:110, 70:150] = 12.0
    bands = relief(town, EVERYWHERE)
    rows = np.flatnonzero(bands[1][:, 100] > 0.5 * bands[1].max())
    assert set(rows) <= {48, 49, 50, 51, 108, 109, 110, 111}
    assert bands[1][80, 100] == pytest.approx(0, abs=1e-3)  # the roof itself is flat


def test_slopes_have_signs_and_bounds() -> None:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float32)
    _, slope, east, north = relief(0.5 * x, EVERYWHERE)
    even = 1 / np.hypot(1, STEEP)
    np.testing.assert_allclose(slope, even, atol=0.01)
    np.testing.assert_allclose(east, even, atol=0.01)  # up to the rim: no edge where the image ends
    np.testing.assert_allclose(north, 0, atol=1e-3)
    _, _, east, north = relief(-3.0 * y, EVERYWHERE)
    np.testing.assert_allclose(north, -even, atol=0.01)
    np.testing.assert_allclose(east, 0, atol=1e-3)
    wild = relief(np.where(x > 100, 32000, -32000).astype(np.float32), EVERYWHERE)
    assert np.abs(wild[1:]).max() <= 1.0


def test_a_plateau_above_the_sea_is_as_clear_as_one_at_its_level() -> None:
    ground = hills()
    low, high = (relief(ground + np.float32(offset), EVERYWHERE) for offset in (0.0, 5000.0))
    np.testing.assert_allclose(low[1:], high[1:], atol=0.02)


def test_depth_and_dem_are_one() -> None:
    assert {"depth", "dem"} == HEIGHTS
    one, other = (normalise(hills()[None], HOLES, word) for word in ("depth", "dem"))
    np.testing.assert_array_equal(one[0], other[0])
    assert one[1] == other[1] != ""


# --- infrared and maps ------------------------------------------------------------------------------------------------


def test_slow_warmth_does_not_hide_what_is_small() -> None:
    fine = hills(1, 2.0) - hills(1, 2.0).mean()
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] / 100.0
    drift = 6 * fine.std() * (np.sin(2 * x) + np.cos(1.5 * y))
    cold, _ = normalise(fine[None], EVERYWHERE, "infrared")
    warm, _ = normalise((fine + drift).astype(np.float32)[None], EVERYWHERE, "infrared")
    stretched, _ = normalise((fine + drift).astype(np.float32)[None], EVERYWHERE, "other")
    assert np.corrcoef(cold.ravel(), warm.ravel())[0, 1] > np.corrcoef(cold.ravel(), stretched.ravel())[0, 1] + 0.3


def test_cold_and_warm_are_told_apart_by_nothing_that_matters() -> None:
    """Water is dark by day and bright by night: the picture is the negative, the channels are the same."""
    data = hills(2, 3.0)[None]
    day, night = (normalise(sign * data, HOLES, "infrared")[0] for sign in (1, -1))
    np.testing.assert_allclose(day, -night, atol=1e-3)
    np.testing.assert_allclose(channels(day, HOLES), channels(night, HOLES), atol=1e-3)


def test_calm_places_are_not_all_noise() -> None:
    """Half of the image is water with the sensor's noise only: it is not stretched to the contrast of land."""
    data = hills(3, 3.0).copy()
    data[:, :100] = 800 + np.random.default_rng(0).normal(0, 0.3, (SHAPE[0], 100))
    image, _ = normalise(data[None], EVERYWHERE, "infrared")
    assert image[0, :, :60].std() < 0.3 * image[0, :, 120:].std()


def test_pale_lines_of_a_map_count_as_its_black_text() -> None:
    """Outlines of 8 grey values in one half of the sheet, lettering of 200 in the other."""
    sheet = np.full(SHAPE, 236.0)
    sheet[10:150:10, :90] = 228.0
    sheet[[20, 21, 22, 60, 61, 62, 100, 101, 102, 140, 141, 142], 110:] = 30.0
    contrast = {}
    for word in ("map", "other"):
        image, _ = normalise(sheet[None], EVERYWHERE, word)  # type: ignore[arg-type]
        contrast[word] = float(image[0, :, :70].std() / image[0, :, 130:].std())
    assert contrast["map"] > 4 * contrast["other"]


# --- means ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [1.0, 3.0, 12.0, 60.0])
def test_local_mean_is_that_of_the_valid_pixels_around(sigma: float) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(500, 20, SHAPE).astype(np.float32)
    mask = rng.random(SHAPE) < 0.5
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    mean = local_mean(image, mask, sigma)
    for row, column in ((0, 0), (80, 100), (159, 120)):
        weight = np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * sigma**2)) * mask
        assert mean[row, column] == pytest.approx((weight * image).sum() / weight.sum(), abs=0.12 * 20)
    level = local_mean(np.full(SHAPE, 3.25, np.float32), mask, sigma)
    np.testing.assert_allclose(level, 3.25, atol=1e-5)


def test_far_from_everything_valid_the_mean_is_that_of_all() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[:20, :20] = True
    image = np.where(mask, hills(), np.nan).astype(np.float32)
    assert local_mean(image, mask, 2.0)[-1, -1] == pytest.approx(image[mask].mean(), rel=1e-5)
    assert np.isfinite(filled(image, mask, 2.0)).all()
    np.testing.assert_array_equal(filled(image, mask, 2.0)[mask], image[mask])
    assert not local_mean(np.full(SHAPE, np.nan, np.float32), np.zeros(SHAPE, bool), 2.0).any()


def test_surroundings_are_measured_by_what_is_valid() -> None:
    """A small image in a large declared frame is treated as without the frame."""
    small = hills(4, 3.0, (80, 100))
    frame, mask = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, bool)
    frame[70:150, 90:190], mask[70:150, 90:190] = small, True
    alone = against_surroundings(small, np.ones((80, 100), bool))
    np.testing.assert_allclose(against_surroundings(frame, mask)[70:150, 90:190], alone, atol=0.1)


# --- bands ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modality", "count", "descriptions", "expected"),
    [
        ("multispectral", 4, ("",) * 4, (1, 2, 3, 4)),
        ("multispectral", 3, ("",) * 3, (1, 2, 3)),
        ("multispectral", 8, ("",) * 8, (2, 4, 6, 8)),
        ("multispectral", 5, ("",) * 5, (1, 2, 4, 5)),
        ("multispectral", 200, ("",) * 200, (26, 76, 126, 176)),
        ("multispectral", 6, ("B02", "B03", "B04", "B8A", "B08", "B11"), (2, 3, 5, 6)),
        ("multispectral", 6, ("blue", "green", "red", "nir08", "swir16", "swir22"), (2, 3, 4, 5)),
        ("multispectral", 6, ("blue", "green", "red", "nir", "nir08", "swir16"), (2, 3, 4, 6)),
        ("multispectral", 6, ("B02", "B03", "B04", "B05", "B06", "B07"), (1, 3, 4, 6)),  # no short-wave: evenly spread
        ("optical", 6, ("swir16", "nir", "red", "green", "blue", "x"), (2, 3, 4, 5)),
        ("optical", 8, ("",) * 8, (1, 2, 3, 4)),
        ("dem", 1, ("",), (1,)),
        ("depth", 3, ("",) * 3, (1,)),
        ("map", 3, ("",) * 3, (1, 2, 3)),
    ],
)
def test_bands_by_modality(
    modality: Modality, count: int, descriptions: tuple[str, ...], expected: tuple[int, ...]
) -> None:
    assert choose_bands(count, None, descriptions, modality) == expected
    assert choose_bands(count, (3, 1), descriptions, modality) == (3, 1)


@pytest.mark.parametrize("count", range(5, 300, 7))
def test_spread_bands_exist_and_differ(count: int) -> None:
    bands = choose_bands(count, None, ("",) * count, "multispectral")
    assert len(set(bands)) == 4
    assert 1 <= min(bands) < max(bands) <= count
