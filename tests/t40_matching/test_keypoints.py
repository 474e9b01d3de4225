"""Guesses from keypoints: right where the two images look alike, none where they do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from somareg.geometry import AffineTransform
from somareg.matching import keypoints as module
from somareg.matching.keypoints import KeypointCfg, _detect, _inverted, _Keypoints, _match, keypoint_guesses
from somareg.matching.pair import Pair
from tests.t40_matching.textures import Size, affine, off, reference_view, standard, view

SIZE = (150, 170)
CFG = KeypointCfg()


def whole(reference: Tensor, moving: Tensor) -> Pair:
    return Pair(reference, torch.ones_like(reference[:, :1]), moving, torch.ones_like(moving[:, :1]))


def pair(truth: Tensor, size: Size = SIZE, seed: int = 0) -> Pair:
    """Two views of one ground."""
    return whole(reference_view(SIZE, seed), view(truth, size, seed))


def apart(found: AffineTransform, truth: Tensor, size: Size = SIZE) -> float:
    """RMS distance over the reference, pixels."""
    return off(torch.tensor(found.matrix)[None], truth, size)


# --- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("degrees", "scale", "shift"),
    [(0.0, 1.0, (20.0, -9.0)), (70.0, 1.25, (5.0, -8.0)), (-135.0, 0.75, (0.0, 12.0)), (180.0, 1.4, (0.0, 0.0))],
)
def test_rotation_scale_and_shift_are_found_at_once(degrees: float, scale: float, shift: tuple[float, float]) -> None:
    truth = affine(SIZE, degrees=degrees, scale=scale, shift=shift)
    (guess,) = keypoint_guesses(pair(truth), CFG)
    assert apart(guess.transform, truth) < 0.2
    assert guess.shape == (0.0, 0.0)  # nothing is known of it


def test_a_stretch_is_found_too() -> None:
    linear = torch.tensor([[0.95, -0.35], [0.45, 0.8]], dtype=torch.float64)
    truth = torch.cat([linear, torch.tensor([[40.0], [-20.0]])], dim=1)[None]
    (guess,) = keypoint_guesses(pair(truth), CFG)
    assert apart(guess.transform, truth) < 1.5


def test_images_may_differ_in_size_and_bands() -> None:
    truth = affine(SIZE, degrees=30.0, scale=0.8, shift=(-30.0, 20.0))
    made = pair(truth, (120, 110))
    bands = torch.cat([made.moving, 0.5 * made.moving, 1.5 * made.moving], dim=1)
    (guess,) = keypoint_guesses(whole(made.reference, bands), CFG)
    assert apart(guess.transform, truth) < 1.5


@pytest.mark.parametrize("factor", [2, 3])
def test_large_images_are_reduced_and_the_guess_is_about_the_full_ones(factor: int) -> None:
    size = (300, 260)
    truth = affine(size, degrees=70.0, scale=1.1, shift=(9.0, -14.0))
    full = Pair(
        *(part for image in (reference_view(size), view(truth, size)) for part in (image, torch.ones_like(image)))
    )
    (guess,) = keypoint_guesses(full, replace(CFG, longest_px=300 / factor))
    # Neither half a pixel of the reduced images nor a quarter of a pixel of the keypoints gets lost.
    assert apart(guess.transform, truth, size) < 0.2 * factor


# --- inverted contrast ------------------------------------------------------------------------------------------------


def inverted(made: Pair) -> Pair:
    return replace(made, moving=-made.moving)


def test_inverted_contrast_is_found_by_the_second_matching(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = affine(SIZE, degrees=50.0, scale=1.15, shift=(-6.0, 10.0))
    (guess,) = keypoint_guesses(inverted(pair(truth)), CFG)
    assert apart(guess.transform, truth) < 1.0
    monkeypatch.setattr(module, "_inverted", lambda descriptors: descriptors)
    assert keypoint_guesses(inverted(pair(truth)), CFG) == ()


def test_descriptors_of_an_inverted_image_are_those_of_the_image_inverted() -> None:
    """Keypoint by keypoint, not only well enough to match."""
    image, mask = reference_view(SIZE), torch.ones(1, 1, *SIZE)
    plain, turned = _detect(image, mask, CFG), _detect(-image, mask, CFG)
    back = _inverted(turned.descriptors)
    near = [
        np.linalg.norm(back[np.abs(turned.points - point).max(1) < 0.05] - descriptor, axis=1).min(initial=np.inf)
        for point, descriptor in zip(plain.points, plain.descriptors, strict=True)
    ]
    far = [
        np.linalg.norm(turned.descriptors[np.abs(turned.points - point).max(1) < 0.05] - own, axis=1).min(
            initial=np.inf
        )
        for point, own in zip(plain.points, plain.descriptors, strict=True)
    ]
    length = np.linalg.norm(plain.descriptors, axis=1).mean()
    assert np.median(near) < 0.2 * length < 0.5 * length < np.median(far)
    np.testing.assert_array_equal(_inverted(back), turned.descriptors)


# --- what is not found ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_unrelated_images_give_no_guess(seed: int) -> None:
    here, there = reference_view(SIZE, seed), reference_view(SIZE, seed + 40)
    assert keypoint_guesses(whole(here, there), CFG) == ()
    noise = standard(torch.randn(1, 1, *SIZE, generator=torch.Generator().manual_seed(seed)))
    assert keypoint_guesses(whole(here, noise), CFG) == ()


def dots(count: int) -> Tensor:
    """An image with so many spots on nothing."""
    y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    spots = [torch.exp(-((x - 40 - 20 * i) ** 2 + (y - 30 - 30 * i) ** 2 / 3) / 12.0) for i in range(count)]
    return torch.stack(spots).sum(0)[None, None]


@pytest.mark.parametrize("side", ["reference", "moving"])
def test_images_with_few_keypoints_give_no_guess(side: str) -> None:
    full = pair(affine(SIZE))
    assert 1 <= len(_detect(dots(2), torch.ones(1, 1, *SIZE), CFG).points) < CFG.inliers
    for image in (torch.zeros(1, 1, *SIZE), torch.full((1, 1, *SIZE), 2.5), dots(2)):
        assert keypoint_guesses(replace(full, **{side: image}), CFG) == ()
    nothing = {f"{side}_mask": torch.zeros(1, 1, *SIZE)}
    assert keypoint_guesses(replace(full, **nothing), CFG) == ()


# --- masks ------------------------------------------------------------------------------------------------------------


def frame(valid: slice) -> Tensor:
    mask = torch.zeros(1, 1, *SIZE)
    mask[..., valid, 40:130] = 1
    mask[..., 70:90, 70:100] = 0  # a hole
    return mask


def test_no_keypoint_lies_on_the_rim_of_what_is_not_valid() -> None:
    mask = frame(slice(0, 120))  # valid up to the edge of the image above
    image = torch.where(mask > 0, reference_view(SIZE), 6.0)
    found, careless = _detect(image, mask, CFG), _detect(image, torch.ones_like(mask), CFG)

    def away(points: np.ndarray) -> np.ndarray:
        """Distance of each point to the nearest pixel that is not valid."""
        rows, columns = np.nonzero(mask[0, 0].numpy() == 0)
        there = np.stack([columns, rows], axis=-1)
        return np.array([np.abs(point - there).max(1).min() for point in points])

    assert len(found.points) > 20
    assert away(found.points).min() > 4
    assert (away(careless.points) < 3).sum() > 3
    assert found.points[:, 1].min() < 8  # the edge of the image is no rim


def test_content_in_frames_of_no_data_is_found_by_the_content_alone() -> None:
    """The frames are the same in both images and would say that nothing moved."""
    truth = affine(SIZE, degrees=15.0, scale=1.05, shift=(8.0, -6.0))
    made, mask = pair(truth), frame(slice(20, 130))
    framed = Pair(torch.where(mask > 0, made.reference, 4.0), mask, torch.where(mask > 0, made.moving, 4.0), mask)
    (guess,) = keypoint_guesses(framed, CFG)
    assert apart(guess.transform, truth) < 1.5


# --- what supports a guess --------------------------------------------------------------------------------------------

TRUTH = AffineTransform.from_parameters(rotation_deg=20, scale=1.1, shift=(5.0, 9.0))


def matches(
    places: int, copies: int = 1, wrong: int = 0, truth: AffineTransform = TRUTH, spread: float = 100.0
) -> tuple[_Keypoints, _Keypoints]:
    """Keypoints whose descriptors say which belong together: at so many places, and wrong ones beside them."""
    rng = np.random.default_rng(0)
    here = np.repeat(rng.uniform(20, 20 + spread, (places, 2)), copies, axis=0)
    there = np.vstack([truth(here), rng.uniform(0, 200, (wrong, 2))])
    here = np.vstack([here, rng.uniform(0, 200, (wrong, 2))])
    descriptors = rng.uniform(0, 100, (len(here), 128)).astype(np.float32)
    return _Keypoints(here, descriptors), _Keypoints(there, descriptors)


def test_keypoints_that_belong_together_give_their_affine() -> None:
    found = _match(*matches(12), CFG)
    assert found is not None
    np.testing.assert_allclose(found, TRUTH.matrix, atol=1e-3)


def test_several_keypoints_in_one_place_are_one_witness() -> None:
    assert _match(*matches(6, copies=4), CFG) is None
    assert _match(*matches(12, copies=4), CFG) is not None


def test_a_share_of_the_matches_must_support_it() -> None:
    found = _match(*matches(14, wrong=80), CFG)
    assert found is not None
    np.testing.assert_allclose(found, TRUTH.matrix, atol=0.05)
    assert _match(*matches(14, wrong=80), replace(CFG, share=0.3)) is None
    assert _match(*matches(7), CFG) is None
    assert _match(*matches(7), replace(CFG, inliers=5)) is not None


def test_matches_that_another_keypoint_answers_as_well_do_not_count() -> None:
    here, there = matches(12)
    twice = _Keypoints(np.vstack([there.points, there.points + 50]), np.vstack([there.descriptors, there.descriptors]))
    assert _match(here, twice, CFG) is None


@pytest.mark.parametrize("linear", [[[5.0, 0], [0, 5.0]], [[0.2, 0], [0, 0.2]], [[2.1, 0], [0, 0.5]]])
def test_a_map_that_no_two_images_of_a_place_have_is_refused(linear: list[list[float]]) -> None:
    strange = AffineTransform(np.column_stack([linear, (0.0, 0.0)]))
    assert _match(*matches(20, truth=strange), replace(CFG, threshold_px=1.0)) is None
    assert _match(*matches(20, truth=strange), replace(CFG, threshold_px=1.0, stretch=6.0)) is not None
