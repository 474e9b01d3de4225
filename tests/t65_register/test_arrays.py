"""`register` on arrays: a known truth is found, whatever the units, order or shape, and nothing is made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import somareg
from somareg.errors import ConfigError, InputError, NoDataError
from somareg.geometry import AffineTransform
from somareg.io import from_array
from somareg.register import choose
from somareg.register.ground import common_ground
from somareg.register.tiles.overview import factors
from somareg.types import Grid, Result
from tests.synthetic import SyntheticPair, make_pair, pixel_points
from tests.t65_register.conftest import register

Array = NDArray[Any]


def apart(first: Array, second: Array) -> float:
    """RMS distance of two displacements (2, H, W), pixels."""
    return float(np.sqrt(((first - second) ** 2).sum(0).mean()))


def test_known_affine_is_recovered(pair: SyntheticPair, result: Result) -> None:
    assert float(np.hypot(*pair.displacement).mean()) > 5
    assert pair.rmse(result.displacement.array) < 0.5
    assert result.verdict.decision == "go"
    assert result.predicted_rmse_px < 1
    quality = result.quality
    assert quality.rotation_deg == pytest.approx(3, abs=0.3)
    assert quality.scale == pytest.approx(1.02, abs=0.005)
    assert quality.shift_px == pytest.approx((7.4, -5.2), abs=0.4)
    assert quality.metres_per_pixel is None
    assert quality.similarity_after > quality.similarity_before + 0.1


def test_known_warp_is_recovered() -> None:
    pair = make_pair(0, 320, warp_rms_px=3.5)
    result = register(pair.moving, pair.reference)
    assert pair.rmse(result.displacement.array) <= 0.4 * 3.5
    assert not result.correction.is_affine
    assert result.quality.local_rms_px > 1.5
    assert result.quality.folding == 0
    affine_only = register(pair.moving, pair.reference, local=False)
    assert affine_only.correction.is_affine
    assert affine_only.quality.local_rms_px == 0
    assert pair.rmse(affine_only.displacement.array) > 2
    points = np.random.default_rng(0).uniform(0, 319, (500, 2))
    np.testing.assert_allclose(result.transform.inverse(result.transform(points)), points, atol=1e-3)
    np.testing.assert_allclose(result.transform(result.transform.inverse(points)), points, atol=1e-3)


def test_shapes_and_types_of_a_result(result: Result) -> None:
    displacement = result.displacement
    assert displacement.array.shape == (2, 192, 192)
    assert displacement.array.dtype == displacement.certainty.dtype == np.float32
    assert displacement.certainty.shape == (192, 192)
    assert np.isfinite(displacement.array).all()
    assert displacement.certainty.min() >= 0
    assert displacement.certainty.max() <= 1
    assert displacement.certainty.mean() > 0.5
    assert result.previews.reference.shape == (192, 192, 3)
    assert result.previews.before.shape == result.previews.after.shape == (192, 192)
    assert len(result.tie_points) == result.quality.n_points > 20
    assert {"read", "prepare", "match", "judge"} <= set(result.timings)
    assert any("power" in note for note in result.notes)


def test_displacement_samples_the_correction_and_the_transform(result: Result) -> None:
    points = pixel_points((192, 192))
    dense = result.displacement.array.reshape(2, -1).T
    np.testing.assert_allclose(points + dense, result.correction(points), atol=1e-3)
    np.testing.assert_allclose(result.transform(points), result.correction(points), atol=1e-9)  # without georeference


def test_inverse_round_trip(result: Result) -> None:
    points = np.random.default_rng(0).uniform(0, 190, (500, 2))
    for transform in (result.transform, result.correction, result.affine):
        np.testing.assert_allclose(transform.inverse(transform(points)), points, atol=1e-3)
        np.testing.assert_allclose(transform(transform.inverse(points)), points, atol=1e-3)


def test_certainty_is_zero_where_the_moving_image_has_no_pixel() -> None:
    pair = make_pair(2, 192, shift=(18.0, 0.0))  # the right-hand 18 columns of the reference are not in it
    result = register(pair.moving, pair.reference)
    assert pair.rmse(result.displacement.array) < 0.5
    assert not result.displacement.certainty[:, 176:].any()
    assert result.displacement.certainty[:, 40:150].mean() > 0.8
    assert result.quality.overlap == pytest.approx(174 / 192, abs=0.02)


def test_tie_points_join_the_images(pair: SyntheticPair, result: Result) -> None:
    ties = result.tie_points
    np.testing.assert_allclose(ties.reference_xy + ties.displacement, ties.moving_xy, atol=1e-9)
    good = ties.inlier
    assert good.mean() > 0.6
    error = np.hypot(*(ties.moving_xy - pair.to_moving(ties.reference_xy)).T)
    assert np.median(error[good]) < 1.5
    np.testing.assert_allclose(
        ties.residual_px, np.hypot(*(ties.moving_xy - result.transform(ties.reference_xy)).T), atol=0.2
    )


def test_the_same_seed_gives_identical_arrays(pair: SyntheticPair, result: Result) -> None:
    again = register(pair.moving, pair.reference)
    np.testing.assert_array_equal(again.displacement.array, result.displacement.array)
    np.testing.assert_array_equal(again.displacement.certainty, result.displacement.certainty)
    np.testing.assert_array_equal(again.tie_points.moving_xy, result.tie_points.moving_xy)
    assert again.quality == result.quality
    assert again.verdict == result.verdict


# --- units, dtypes, shapes --------------------------------------------------------------------------------------------

SCALES: dict[str, Callable[[Array], Array]] = {
    "dB": lambda power: 10 * np.log10(power),
    "amplitude": lambda power: np.sqrt(power) * 300,
    "uint16 amplitude": lambda power: np.rint(np.sqrt(power) * 3000).astype(np.uint16),
    "complex": lambda power: (np.sqrt(power) * np.exp(2j)).astype(np.complex64),
}


@pytest.mark.parametrize("scale", SCALES)
def test_the_scale_of_sar_values_does_not_matter(scale: str, pair: SyntheticPair, result: Result) -> None:
    other = register(SCALES[scale](pair.moving), pair.reference)
    assert apart(other.displacement.array, result.displacement.array) < 0.2
    assert any(scale.split()[-1] in note for note in other.notes)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_the_dtype_of_the_optical_image_does_not_matter(dtype: str, pair: SyntheticPair, result: Result) -> None:
    gain = 40 if dtype == "uint16" else 1 / 255
    other = register(pair.moving, (pair.reference.astype(float) * gain).astype(dtype))
    assert apart(other.displacement.array, result.displacement.array) < 0.1


def test_two_and_three_dimensions(pair: SyntheticPair, result: Result) -> None:
    flat = register(pair.moving[0], pair.reference[1])
    assert pair.rmse(flat.displacement.array) < 0.5
    deep = register(pair.moving[0], pair.reference)
    np.testing.assert_array_equal(deep.displacement.array, result.displacement.array)


def test_chosen_bands_are_used(pair: SyntheticPair, result: Result) -> None:
    noise = np.random.default_rng(0).gamma(1, 1, (2, 192, 192)).astype(np.float32)
    stack = np.concatenate([noise, pair.moving])
    other = register(stack, pair.reference, moving_bands=(3,))
    np.testing.assert_array_equal(other.displacement.array, result.displacement.array)
    with pytest.raises(ConfigError, match="no band 4"):
        register(stack, pair.reference, moving_bands=(4,))


# --- symmetries -------------------------------------------------------------------------------------------------------


def test_swapped_roles_give_the_inverse(pair: SyntheticPair, result: Result) -> None:
    swapped = register(pair.reference, pair.moving, moving_modality="optical", reference_modality="sar")
    points = pixel_points((192, 192)).reshape(192, 192, 2)[25:-25:4, 25:-25:4].reshape(-1, 2)
    distance = swapped.transform(points) - result.transform.inverse(points)
    assert float(np.sqrt((distance**2).sum(1).mean())) <= 0.3


def turned(displacement: Array, turns: int) -> Array:
    """A displacement field after both images were turned by `turns` quarter turns (np.rot90, counter-clockwise)."""
    for _ in range(turns):
        dx, dy = np.rot90(displacement, 1, (1, 2))
        displacement = np.stack([dy, -dx])
    return displacement


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_pair_has_a_turned_displacement(turns: int, pair: SyntheticPair) -> None:
    moving, reference = (np.rot90(a, turns, (1, 2)) for a in (pair.moving, pair.reference))
    found = register(moving, reference).displacement.array
    assert apart(found, turned(pair.displacement, turns)) < 0.5


@pytest.mark.parametrize("axis", [1, 2])
def test_a_flipped_pair_has_a_flipped_displacement(axis: int, pair: SyntheticPair) -> None:
    moving, reference = (np.flip(a, axis) for a in (pair.moving, pair.reference))
    found = register(moving, reference).displacement.array
    sign = np.array([1, -1] if axis == 1 else [-1, 1])[:, None, None]
    assert apart(found, np.flip(pair.displacement, axis) * sign) < 0.5


@pytest.mark.parametrize("modality", ["optical", "sar"])
def test_identical_images_do_not_move(modality: str, pair: SyntheticPair) -> None:
    image = pair.reference if modality == "optical" else pair.moving
    result = register(image, image.copy(), moving_modality=modality, reference_modality=modality)
    assert float(np.abs(result.displacement.array).max()) <= 0.2
    assert result.verdict.decision == "go"


def test_full_search_finds_any_rotation() -> None:
    pair = make_pair(3, 160, rotation_deg=140, scale=1.15, shift=(6.0, -4.0))
    result = register(pair.moving, pair.reference, search="full")
    assert pair.rmse(result.displacement.array) < 0.8  # half of the picture is common to both
    assert result.quality.rotation_deg == pytest.approx(140, abs=0.5)


# --- nothing to find --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [77, 78])
def test_unrelated_images_never_get_go(seed: int, result: Result) -> None:
    other = register(make_pair(seed, 192).moving, make_pair(0, 192).reference)
    assert other.verdict.decision != "go"
    assert other.verdict.reasons
    if other.verdict.decision == "review":
        assert other.predicted_rmse_px > 2 * result.predicted_rmse_px
    else:
        assert np.isnan(other.predicted_rmse_px)
    assert other.quality.peak_zscore < result.quality.peak_zscore - 1


@pytest.mark.parametrize("role", ["moving", "reference"])
def test_a_constant_image_is_a_no_go_at_rest(role: str, pair: SyntheticPair) -> None:
    moving, reference = pair.moving, pair.reference
    if role == "moving":
        moving = np.full_like(moving, 0.1)
    else:
        reference = np.full_like(reference, 90)
    result = register(moving, reference)
    assert result.verdict.decision == "no-go"
    assert result.verdict.probability == 0
    assert not result.displacement.array.any()
    assert not result.displacement.certainty.any()
    assert result.correction.is_affine
    assert len(result.tie_points) == 0
    assert np.isnan(result.predicted_rmse_px)


# --- masks and sizes --------------------------------------------------------------------------------------------------


def test_a_mask_is_for_arrays_only(pair: SyntheticPair, tmp_path: Path) -> None:
    mask, raster = np.ones((192, 192), bool), from_array(pair.moving, role="moving")
    for image in (raster, tmp_path / "moving.tif"):
        with pytest.raises(ConfigError, match="moving_mask is an array for an image in memory only; for a file"):
            somareg.register(image, pair.reference, moving_mask=mask, model="orientation")


@pytest.mark.parametrize("how", ["mask", "nan", "nodata", "masked array"])
def test_what_is_masked_has_no_say(how: str, pair: SyntheticPair) -> None:
    """A strong wrong pattern under the mask (the picture itself, elsewhere) changes nothing."""
    mask = np.ones((192, 192), bool)
    mask[:, :70] = False
    lure = np.where(mask, pair.moving, np.roll(pair.moving, 9, axis=2))
    blank = np.where(mask, pair.moving, np.nan)
    expected = register(blank, pair.reference).displacement
    given: Any = {"mask": lure, "nan": blank, "nodata": np.where(mask, pair.moving, -9999)}.get(how)
    if how == "masked array":
        given = np.ma.masked_array(lure, ~mask[None])
    options: dict[str, Any] = {"mask": {"moving_mask": mask}, "nodata": {"moving_nodata": -9999.0}}.get(how, {})
    found = register(given, pair.reference, **options).displacement
    np.testing.assert_array_equal(found.array, expected.array)
    assert pair.rmse(found.array) < 0.8
    assert not found.certainty[20:-20, :55].any()
    assert found.certainty[20:-20, 100:150].mean() > 0.8


def test_a_masked_reference_has_no_certainty_there(pair: SyntheticPair) -> None:
    mask = np.ones((192, 192), bool)
    mask[120:] = False
    result = register(pair.moving, pair.reference, reference_mask=mask)
    assert not result.displacement.certainty[120:].any()
    assert result.displacement.certainty[20:100, 20:-20].mean() > 0.8
    assert pair.rmse(result.displacement.array) < 1.0
    there = pair.to_moving(pixel_points((120, 192)))
    share = ((there > -0.5) & (there < 191.5)).all(1).sum() / 192**2
    assert result.quality.overlap == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(("height", "width"), [(230, 215), (180, 200)])
def test_different_sizes_in_pixels(height: int, width: int) -> None:
    """Sizes that differ lie centre on centre to begin with."""
    offset = (width - 192) / 2, (height - 192) / 2
    pair = make_pair(4, 192, shift=(offset[0] + 4.6, offset[1] - 3.1), moving_shape=(height, width))
    result = register(pair.moving, pair.reference)
    assert result.displacement.array.shape == (2, 192, 192)
    assert pair.rmse(result.displacement.array) < 0.5
    assert result.quality.shift_px == pytest.approx((4.6, -3.1), abs=0.4)  # against what was expected


def test_a_large_image_is_matched_at_reduced_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(choose.LONGEST, "base", 150)
    pair = make_pair(5, 300, shift=(9.0, -7.5))
    result = register(pair.moving, pair.reference)
    assert any("1/2" in note for note in result.notes)
    assert result.displacement.array.shape == (2, 300, 300)
    assert pair.rmse(result.displacement.array) < 0.8


def test_what_cannot_be_used_is_refused(pair: SyntheticPair) -> None:
    with pytest.raises(InputError, match="64 px"):
        register(pair.moving[:, :50], pair.reference)
    with pytest.raises(InputError, match="does not fit"):
        register(pair.moving, pair.reference, moving_mask=np.ones((5, 5), bool))
    with pytest.raises(NoDataError, match="no valid pixel"):
        register(pair.moving * np.nan, pair.reference)
    with pytest.raises(InputError, match="bands last"):
        register(pair.moving, np.moveaxis(pair.reference, 0, -1))


def test_truth_values_are_registered(pair: SyntheticPair) -> None:
    """A mask of water or of a flood, as an array of bool."""
    mask = pair.reference[0] > np.median(pair.reference[0])
    result = register(mask[6:, 4:], mask, moving_modality="map", reference_modality="map")
    assert result.verdict.decision == "go"
    assert result.transform(np.array([[96.0, 96.0]]))[0] == pytest.approx((92, 90), abs=0.4)
    assert result.previews.after.shape == mask.shape


@pytest.mark.parametrize("is_placed", [True, False])
def test_overviews_of_strips_keep_their_shorter_side(is_placed: bool) -> None:
    place = Grid(60000, 130, (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), "EPSG:32633" if is_placed else None)
    ground = common_ground(place, place, AffineTransform.identity(), lambda _: 20.0)
    assert factors(ground, 47) == (2, 2)
    assert factors(ground, 1) == (1, 1)
