"""A part of the frame that lies elsewhere is found, and named by its place and shift."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from somareg.features.orientation import OrientationCfg
from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.matching.describe import OrientationFeatures
from somareg.matching.matcher import Matcher
from somareg.matching.pair import Pair
from somareg.matching.parts import ALL, NO_PART, displaced_part
from somareg.quality.ambiguity import ELSEWHERE

STILL = AffineTransform.identity()
SIDE = 200


def texture(seed, shape=(SIDE, SIDE)):
    image = np.random.default_rng(seed).normal(size=shape)
    for _ in range(3):
        image = sum(np.roll(image, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9
    return image / image.std()


def matcher(moving, reference, valid=None):
    def tensor(image):
        image = np.asarray(image, np.float32)
        return torch.from_numpy((image - image.mean()) / image.std())[None, None]

    ones = torch.ones(1, 1, *reference.shape)
    mask = ones if valid is None else torch.from_numpy(valid.astype(np.float32))[None, None]
    return Matcher(Pair(tensor(reference), ones, tensor(moving), mask), OrientationFeatures(OrientationCfg()))


def seen(ground, seed=7):
    """The ground as another sensor shows it: inverted, with noise of its own."""
    return -ground + 0.3 * texture(seed, ground.shape)


def with_seam(ground, rows, columns, shift):
    """The ground with a part shown `shift` (x, y) px further on."""
    out = ground.copy()
    out[rows, columns] = np.roll(ground, shift[::-1], (0, 1))[rows, columns]
    return out


@pytest.mark.parametrize(
    ("rows", "columns", "shift", "place"),
    [
        (slice(None), slice(130, None), (16, 0), {(ALL, 2), (0, 2), (1, 2), (2, 2)}),
        (slice(130, None), slice(None), (0, -24), {(2, ALL), (2, 0), (2, 1), (2, 2)}),
        (slice(0, 80), slice(0, 80), (-12, 20), {(0, 0)}),
    ],
)
def test_a_displaced_part_is_found(rows, columns, shift, place):
    ground = texture(1)
    part = displaced_part(matcher(seen(with_seam(ground, rows, columns, shift)), ground), STILL)
    assert part.height > 1.2 * ELSEWHERE
    assert (part.row, part.column) in place
    np.testing.assert_allclose(part.shift_px, shift, atol=2)


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (96, 300), (700, 640)])
def test_a_frame_that_fits_has_no_such_part(shape):
    ground = texture(2, shape)
    assert displaced_part(matcher(seen(ground), ground), STILL).height < ELSEWHERE


def test_the_shift_of_a_large_image_is_in_its_own_pixels():
    ground = np.kron(texture(3, (600, 600)), np.ones((2, 2)))
    part = displaced_part(matcher(with_seam(ground, slice(None), slice(800, None), (48, 0)), ground), STILL)
    assert part.height > ELSEWHERE and part.column == 2
    np.testing.assert_allclose(part.shift_px, (48, 0), atol=6)


def test_a_part_that_the_local_displacement_follows_is_no_doubt():
    ground = texture(4)
    moving = seen(with_seam(ground, slice(None), slice(120, None), (14, 0)))
    field = np.zeros((2, SIDE, SIDE))
    field[0, :, 120:] = 14
    judge = matcher(moving, ground)
    assert displaced_part(judge, STILL).height > ELSEWHERE
    assert displaced_part(judge, compose(STILL, FieldTransform(field))).height < ELSEWHERE


def test_a_part_without_structure_or_data_is_no_doubt():
    ground = texture(5)
    flat = ground.copy()
    flat[:, 130:] = 0.05 * texture(6)[:, 130:]
    assert displaced_part(matcher(seen(flat), ground), STILL).height < ELSEWHERE
    valid = np.ones(ground.shape, bool)
    valid[:, 130:] = False
    assert displaced_part(matcher(seen(ground), ground, valid), STILL).height < ELSEWHERE


def test_nothing_valid_leaves_nothing_to_say():
    ground = texture(8)
    assert displaced_part(matcher(seen(ground), ground, np.zeros(ground.shape, bool)), STILL) is NO_PART
    assert NO_PART.height < ELSEWHERE
