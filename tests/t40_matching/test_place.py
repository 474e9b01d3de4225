"""A small image is found in a large one, also where it reaches over the edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from somareg.matching.place import MIN_SEEN, beyond, find_place
from tests.synthetic import Scene, pixel_points

SIDE = 96
LARGE = (240, 260)
STILL = [(0.0, 1.0)]


def crop(corner: tuple[int, int], shape: tuple[int, int], *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Optical image (1, 3, h, w) of a scene from a corner (x, y) on, and its mask."""
    image = Scene(seed).optical(pixel_points(shape) + np.array(corner), shape)
    return torch.from_numpy(np.asarray(image, np.float32))[None], torch.ones(1, 1, *shape)


@pytest.mark.parametrize(
    "corner", [(100, 80), (0, 0), (164, 144), (-30, 60), (196, 60), (90, -36), (80, 182), (-20, -18)]
)
def test_a_small_image_inside_and_over_every_edge(corner: tuple[int, int]) -> None:
    place = find_place(crop(corner, (SIDE, SIDE)), crop((0, 0), LARGE), STILL)
    np.testing.assert_allclose(place.transform(np.zeros((1, 2)))[0], corner, atol=2.0)
    assert place.height > 9.0 and place.height > 1.3 * place.rival


def test_no_further_than_is_said() -> None:
    """What shows less than MIN_SEEN of it is not found, so no place there is a rival either."""
    assert beyond(100) == 45
    outside = -int((1 - MIN_SEEN) * SIDE) - 12
    place = find_place(crop((outside, 60), (SIDE, SIDE)), crop((0, 0), LARGE), STILL)
    assert place.transform(np.zeros((1, 2)))[0][0] >= -beyond(SIDE) - 2
    assert place.height < 9.0


def test_a_strip_as_long_as_the_other_image() -> None:
    strip = crop((0, 150), (40, LARGE[1]))
    place = find_place(strip, crop((0, 0), LARGE), STILL)
    np.testing.assert_allclose(place.transform(np.zeros((1, 2)))[0], (0, 150), atol=2.0)


def test_pixels_without_data_are_no_part_of_the_large_image() -> None:
    """The place is covered to a third only."""
    image, mask = crop((0, 0), LARGE)
    mask[..., 80:140, 100:200] = 0
    place = find_place(crop((100, 80), (SIDE, SIDE)), (image * mask, mask), STILL)
    assert np.abs(place.transform(np.zeros((1, 2)))[0] - (100, 80)).max() > 10


def test_rotated_over_the_edge() -> None:
    turn = np.deg2rad(12.0)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = np.array([(SIDE - 1) / 2, (SIDE - 1) / 2])
    centre = np.array([20.0, 120.0])  # 28 px of it lie outside
    points = (pixel_points((SIDE, SIDE)) - middle) @ rotation.T + centre
    image = np.asarray(Scene(0).optical(points, (SIDE, SIDE)), np.float32)
    small = torch.from_numpy(image)[None], torch.ones(1, 1, SIDE, SIDE)
    turns = [(angle, 1.0) for angle in (0.0, -6.0, 6.0, -12.0, 12.0)]
    place = find_place(small, crop((0, 0), LARGE), turns)
    np.testing.assert_allclose(place.transform(middle[None])[0], centre, atol=2.5)
