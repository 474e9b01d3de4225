"""SAR scales are told apart, bands become comparable, and what is invalid has no say."""

from __future__ import annotations

import numpy as np
import pytest

from somareg.preprocess.bands import choose_bands
from somareg.preprocess.normalise import normalise
from somareg.preprocess.sar import detect_scale, to_log
from somareg.preprocess.subsample import ENOUGH, subsample
from tests.synthetic import make_pair

POWER = make_pair(3, 128).moving
EVERYWHERE = np.ones(POWER.shape[1:], bool)


def display(power: np.ndarray) -> np.ndarray:
    """dB between -28 and 0 as the 8 bits of a quick look."""
    return np.clip(np.rint((10 * np.log10(power) + 28) / 28 * 255), 0, 255).astype(np.uint8)


SCALES = {
    "dB": (10 * np.log10(POWER), "dB"),
    "power": (POWER, "power"),
    "amplitude, float": (np.sqrt(POWER) * 300, "amplitude"),
    "amplitude, uint16": (np.rint(np.sqrt(POWER) * 900).astype(np.uint16), "amplitude"),
    "complex": ((np.sqrt(POWER) * np.exp(1j)).astype(np.complex64), "complex"),
    "display, uint8": (display(POWER), "dB"),
}


@pytest.mark.parametrize("name", SCALES)
def test_scale_is_detected_and_explained(name: str) -> None:
    data, expected = SCALES[name]
    scale, reason = detect_scale(data, EVERYWHERE)
    assert scale == expected
    assert reason


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
@pytest.mark.parametrize("border", [0, 60])
def test_a_part_of_complex_values_is_not_db(dtype: type, border: int) -> None:
    rng = np.random.default_rng(0)
    part = (np.sqrt(POWER) * 900 * np.cos(rng.uniform(0, 2 * np.pi, POWER.shape))).astype(dtype)
    part[:, :border] = 0
    scale, reason = detect_scale(part, EVERYWHERE)
    assert scale == "amplitude"
    assert "real or imaginary part" in reason and "give intensity" in reason


@pytest.mark.parametrize("above", [-20.0, -12.0, -5.0, 0.0, 3.0])
@pytest.mark.parametrize("looks", [1, 4])
def test_decibels_stay_decibels_wherever_their_zero_lies(above: float, looks: int) -> None:
    speckle = np.random.default_rng(0).gamma(looks, 1 / looks, POWER.shape)
    decibels = 10 * np.log10(speckle * POWER)
    assert detect_scale(decibels - np.median(decibels) + above, EVERYWHERE)[0] == "dB"


def test_detection_does_not_look_at_invalid_pixels() -> None:
    data = POWER.copy()
    mask = EVERYWHERE.copy()
    mask[:64] = False
    data[:, ~mask] = -9999.0  # a nodata value that looks like dB
    assert detect_scale(data, mask)[0] == "power"


def test_a_note_tells_the_scale_and_an_override_is_obeyed() -> None:
    _, note = normalise(POWER, EVERYWHERE, "sar")
    assert "power" in note
    _, note = normalise(POWER, EVERYWHERE, "sar", "amplitude")
    assert "amplitude" in note
    assert "as given" in note
    assert normalise(POWER, EVERYWHERE, "optical")[1] == ""


@pytest.mark.parametrize("name", ["power", "amplitude, float", "amplitude, uint16", "complex"])
def test_every_scale_normalises_to_the_same_picture(name: str) -> None:
    from_db, _ = normalise(SCALES["dB"][0], EVERYWHERE, "sar")
    from_other, _ = normalise(SCALES[name][0], EVERYWHERE, "sar")
    assert np.corrcoef(from_db.ravel(), from_other.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("scale", ["power", "amplitude", "complex", "dB"])
def test_log_is_finite_on_zeros_and_what_is_not_a_number(scale: str) -> None:
    data = np.array([[[0.0, 1e-30, 1.0, np.nan, np.inf, -np.inf, 1e30, 4.0]]], np.float32)
    mask = np.isfinite(data[0])
    log = to_log(data.astype(np.complex64) if scale == "complex" else data, mask, scale)  # type: ignore[arg-type]
    assert log.dtype == np.float32
    assert np.isfinite(log).all()


def test_zeros_of_calm_water_are_dark_but_not_the_strongest_edge() -> None:
    data = POWER.copy()
    data[:, 40:80, 40:80] = 0.0
    image, _ = normalise(data, EVERYWHERE, "sar", "power")
    assert np.isfinite(image).all()
    assert image[0, 45:75, 45:75].mean() == pytest.approx(image.min(), abs=1e-3)
    land = np.ones_like(EVERYWHERE)
    land[35:85, 35:85] = False
    assert image[0][land].std() > 0.6  # without a floor, log(0) would leave the land no contrast
    assert np.isfinite(to_log(np.zeros_like(data), EVERYWHERE, "amplitude")).all()


@pytest.mark.parametrize("modality", ["sar", "optical", "other"])
def test_normalised_bands_have_mean_0_and_deviation_1_over_valid_pixels(modality: str) -> None:
    rng = np.random.default_rng(0)
    data = rng.gamma(4, 0.02, (3, 90, 70)) * np.array([1, 50, 4000])[:, None, None]
    mask = rng.random((90, 70)) > 0.3
    image, _ = normalise(data, mask, modality)  # type: ignore[arg-type]
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[:, mask].mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(image[:, mask].std(1), 1, atol=1e-3)
    assert not image[:, ~mask].any()


@pytest.mark.parametrize("modality", ["sar", "optical"])
@pytest.mark.parametrize("rubbish", [np.nan, np.inf, -np.inf, 1e30, -9999.0])
def test_values_of_invalid_pixels_change_nothing(modality: str, rubbish: float) -> None:
    mask = EVERYWHERE.copy()
    mask[30:60, 20:90] = False
    spoilt = POWER.copy()
    spoilt[:, ~mask] = rubbish
    clean, _ = normalise(POWER, mask, modality)  # type: ignore[arg-type]
    dirty, _ = normalise(spoilt, mask, modality)  # type: ignore[arg-type]
    np.testing.assert_array_equal(clean, dirty)


def test_units_do_not_matter_to_optical_bands() -> None:
    data = make_pair(3, 128).reference.astype(np.float64)
    first, _ = normalise(data, EVERYWHERE, "optical")
    second, _ = normalise(data * 40.0 + 1000.0, EVERYWHERE, "optical")
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_a_constant_band_and_an_empty_mask_are_zero() -> None:
    data = np.stack([np.full((80, 80), 7.0), np.arange(6400.0).reshape(80, 80)])
    image, _ = normalise(data, np.ones((80, 80), bool), "optical")
    assert not image[0].any()
    assert image[1].std() == pytest.approx(1, abs=1e-3)
    assert not normalise(data, np.zeros((80, 80), bool), "optical")[0].any()


def test_all_valid_values_of_a_small_image_tell() -> None:
    data = np.arange(2 * 20 * 30).reshape(2, 20, 30)
    mask = np.random.default_rng(0).random((20, 30)) < 0.6
    np.testing.assert_array_equal(subsample(data, mask), data[:, mask])
    np.testing.assert_array_equal(subsample(data, np.ones_like(mask)), data.reshape(2, -1))
    assert subsample(data, np.zeros_like(mask)).shape == (2, 0)


def test_truth_values_and_a_chequerboard_of_holes_have_a_sample() -> None:
    rows, columns = np.indices((400, 401))
    mask = (rows * 401 + columns) % 2 == 1  # a sample of every second pixel meets holes only
    values = subsample(mask[None], mask)
    assert values.size and values.dtype == np.uint8 and (values == 1).all()


@pytest.mark.parametrize("side", [256, 317, 510, 512, 515, 672, 700, 1024])
@pytest.mark.parametrize("share", [1.0, 0.7])
def test_of_a_large_image_every_column_tells(side: int, share: float) -> None:
    """A stride that divides the width would see a few columns of a striped sensor."""
    data = np.broadcast_to(np.arange(float(side)), (1, side, side))
    mask = np.random.default_rng(0).random((side, side)) < share
    values = subsample(data, mask)
    assert min(0.5 * ENOUGH, int(mask.sum())) <= values.shape[1] <= 2.1 * ENOUGH
    np.testing.assert_array_equal(np.unique(values), np.arange(side))


def test_a_large_image_is_normalised_as_if_all_its_values_told() -> None:
    image = np.random.default_rng(0).gamma(2.0, 30.0, (1, 600, 600)).astype(np.float32)
    mask = np.ones((600, 600), bool)
    normal, _ = normalise(image, mask, "optical")
    low, high = np.percentile(image, [1, 99])
    root = np.sqrt(np.clip((image - low) / (high - low), 0, 1) + 0.05)
    expected = (root - root.mean()) / root.std()
    assert float(np.abs(normal - expected).max()) < 0.05
    assert float(np.sqrt(np.mean((normal - expected) ** 2))) < 0.01


def test_a_few_outliers_do_not_flatten_the_picture() -> None:
    data = make_pair(3, 128).reference[:1].astype(np.float32)
    spoilt = data.copy()
    spoilt[0, :2, :20] = 1e6
    clean, _ = normalise(data, EVERYWHERE, "optical")
    dirty, _ = normalise(spoilt, EVERYWHERE, "optical")
    assert np.corrcoef(clean[0, 5:].ravel(), dirty[0, 5:].ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("count", "wanted", "descriptions", "expected"),
    [
        (1, None, ("",), (1,)),
        (4, None, ("", "", "", ""), (1, 2, 3, 4)),
        (7, None, ("",) * 7, (1, 2, 3, 4)),
        (9, (8, 3), ("",) * 9, (8, 3)),
        (6, None, ("B01", "B02", "B03", "B04", "B8A", "B08"), (2, 3, 4, 6)),
        (6, None, ("b1", "b2", "b3", "b4", "b8", "b11"), (2, 3, 4, 5)),
        (5, None, ("B2", "B3", "", "", ""), (1, 2, 3, 4)),  # two named bands are no reason to drop the others
    ],
)
def test_choice_of_bands(
    count: int, wanted: tuple[int, ...] | None, descriptions: tuple[str, ...], expected: tuple[int, ...]
) -> None:
    assert choose_bands(count, wanted, descriptions) == expected
