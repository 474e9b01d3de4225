"""What registration reaches without a georeference: stretched images, any rotation, content anywhere in a frame."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from somareg.types import Result, TiePoints
from tests.synthetic import Scene, SyntheticPair, affine_map, make_pair, pixel_points
from tests.t65_register.conftest import SIDE, register

Array = NDArray[Any]


def exact(pair: SyntheticPair, n: int = 20, seed: int = 0) -> TiePoints:
    """Tie points without error."""
    here = np.random.default_rng(seed).uniform(5, SIDE - 6, (n, 2))
    unknown = np.full(n, np.nan)
    return TiePoints(here, pair.to_moving(here), np.full((n, 2), np.nan), unknown, unknown, np.ones(n, bool), unknown)


def error(result: Result, pair: SyntheticPair) -> float:
    return pair.rmse(result.displacement.array)


# --- images that are stretched against each other ---------------------------------------------------------------------

SHAPES = [(0.8, 0.0, 0), (1.25, 0.08, 1), (0.75, -0.1, 4), (1.33, 0.1, 3)]


def stretched(aspect: float, shear: float, seed: int, **more: Any) -> SyntheticPair:
    where: dict[str, Any] = {"rotation_deg": 3.0, "shift": (4.0, -6.0), **more}
    return make_pair(seed, SIDE, aspect=aspect, shear=shear, **where)


@pytest.mark.parametrize(("aspect", "shear", "seed"), SHAPES)
def test_stretched_images_are_matched(aspect: float, shear: float, seed: int) -> None:
    pair = stretched(aspect, shear, seed)
    result = register(pair.moving, pair.reference)
    assert error(result, pair) < 0.7
    assert result.verdict.decision == "go"
    assert result.quality.local_rms_px < 0.3  # by the affine: no field has to make up for it


@pytest.mark.parametrize(("aspect", "shear", "seed"), SHAPES)
@pytest.mark.parametrize("search", ["auto", "local"])
def test_exact_tie_points_of_stretched_images_help(aspect: float, shear: float, seed: int, search: str) -> None:
    pair = stretched(aspect, shear, seed)
    result = register(pair.moving, pair.reference, tie_points=exact(pair), search=search)
    assert error(result, pair) < 0.4
    assert result.verdict.decision == "go"


def test_a_seed_keeps_a_stretch_that_no_search_looks_for() -> None:
    pair = stretched(1.5, 0.3, 2)
    assert error(register(pair.moving, pair.reference), pair) > 5
    assert error(register(pair.moving, pair.reference, tie_points=exact(pair)), pair) < 0.5


def test_a_seed_keeps_its_stretch_where_the_windows_say_little() -> None:
    """A small single-look image: aspect and shear of the clicks are believed, not of the noise."""
    pair = make_pair(2, 96, rotation_deg=3, shift=(3.0, -2.0), aspect=1.3, looks=1.0)
    here = np.random.default_rng(0).uniform(4, 91, (20, 2))
    points = replace(exact(pair), reference_xy=here, moving_xy=pair.to_moving(here))
    seeded = register(pair.moving, pair.reference, tie_points=points, local=False)
    assert error(seeded, pair) < 1.0
    linear = seeded.affine.matrix[:, :2]
    assert np.linalg.norm(linear[:, 0]) / np.linalg.norm(linear[:, 1]) == pytest.approx(1.3, abs=0.03)


def test_a_similarity_is_not_bent() -> None:
    pair = make_pair(1, SIDE, rotation_deg=3, scale=1.02, shift=(4.0, -6.0), looks=2.0)
    result = register(pair.moving, pair.reference)
    scales = np.linalg.svd(result.affine.matrix[:, :2], compute_uv=False)
    assert scales[0] / scales[1] < 1.003
    assert error(result, pair) < 0.3


# --- any rotation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rotation", "seed", "aspect"), [(70.0, 0, 1.0), (-110.0, 1, 1.0), (180.0, 2, 1.0), (70.0, 3, 1.2)]
)
def test_a_search_without_georeference_widens_by_itself(rotation: float, seed: int, aspect: float) -> None:
    pair = make_pair(seed, SIDE, rotation_deg=rotation, scale=1.1, shift=(4.0, -6.0), aspect=aspect)
    result = register(pair.moving, pair.reference, search="auto")
    assert error(result, pair) < 0.6
    assert result.verdict.decision == "go"
    local = register(pair.moving, pair.reference, search="local")
    assert error(local, pair) > 20
    assert local.verdict.decision != "go"


def twice(seed: int, *, inverted: bool, **where: Any) -> SyntheticPair:
    """An optical picture of a place and another one, bright where the first is dark if asked for."""
    shape, scene = (SIDE, SIDE), Scene(seed)
    there, back = affine_map(shape, **where)
    reference, moving = (scene.optical(points, shape) for points in (pixel_points(shape), back(pixel_points(shape))))
    return SyntheticPair(0.8 - moving if inverted else moving, reference, there)


@pytest.mark.parametrize("inverted", [False, True])
def test_images_that_look_alike_are_found_at_scales_that_no_vote_tries(inverted: bool) -> None:
    """By their keypoints."""
    pair = twice(0, inverted=inverted, rotation_deg=70, scale=0.5, shift=(2.0, -3.0))
    options = {"moving_modality": "optical", "reference_modality": "optical"}
    result = register(pair.moving, pair.reference, **options)
    assert error(result, pair) < 0.7
    assert result.verdict.decision == "go"


# --- content anywhere in a frame --------------------------------------------------------------------------------------


def framed(image: Array, corner: tuple[int, int], frame: tuple[int, int] = (300, 300)) -> Array:
    """An image (C, H, W) without zeros in a frame of them, its first pixel at this row and column."""
    (row, column), (height, width) = corner, image.shape[1:]
    out = np.zeros((len(image), *frame), image.dtype)
    least = 1 if image.dtype.kind == "u" else 1e-6
    out[:, row : row + height, column : column + width] = np.maximum(image, image.dtype.type(least))
    return out


@pytest.mark.parametrize(
    ("seed", "here", "there"), [(0, (0, 0), (108, 108)), (1, (108, 0), (0, 100)), (2, (20, 100), (100, 0))]
)
def test_content_off_centre_in_declared_no_data_frames_is_found(
    seed: int, here: tuple[int, int], there: tuple[int, int]
) -> None:
    """The frames say shifts of nothing, the masks one of half the content."""
    pair = make_pair(seed, SIDE, rotation_deg=3, scale=1.02, shift=(4.0, -6.0))
    moving, reference = framed(pair.moving, there), framed(pair.reference, here)
    result = register(moving, reference, moving_nodata=0, reference_nodata=0)
    points = np.random.default_rng(0).uniform(5, SIDE - 6, (50, 2))
    found = result.correction(points + here[::-1]) - there[::-1]
    assert np.sqrt(((found - pair.to_moving(points)) ** 2).sum(1).mean()) < 0.5
    assert result.verdict.decision == "go"
    if seed == 0:  # frames of one value are found although nobody declared them
        blind = register(moving, reference)
        there_too = blind.correction(points + here[::-1]) - there[::-1]
        assert np.sqrt(((there_too - pair.to_moving(points)) ** 2).sum(1).mean()) < 0.5
        assert any("--moving-nodata 0" in note for note in blind.notes)


@pytest.mark.parametrize("role", ["moving", "reference"])
def test_one_frame_is_enough(role: str) -> None:
    pair = make_pair(3, SIDE, rotation_deg=3, scale=1.02, shift=(4.0, -6.0))
    corner = (64, 0)
    images = {"moving": pair.moving, "reference": pair.reference}
    images[role] = framed(images[role], corner, (256, 256))
    result = register(images["moving"], images["reference"], **{f"{role}_nodata": 0})
    points = np.random.default_rng(0).uniform(5, SIDE - 6, (50, 2))
    away = np.array(corner[::-1])
    found = result.correction(points) - away if role == "moving" else result.correction(points + away)
    assert np.sqrt(((found - pair.to_moving(points)) ** 2).sum(1).mean()) < 0.5
    assert result.verdict.decision == "go"
