"""A black frame gives the answer away; without a frame there is nothing to read."""

import cv2
import numpy as np
import pytest

from somareg.geometry import AffineTransform
from somareg.lab.evaluate.metrics import cmr, point_errors, rmse
from somareg.lab.evaluate.peers.border_only import BorderOnly, affine_from_frame
from somareg.lab.evaluate.peers.identity import Identity
from somareg.lab.evaluate.sample import load_sample
from somareg.lab.evaluate.sampling import make_list

SIDE = 512
REFERENCE = np.zeros((3, SIDE, SIDE), np.uint8)


def grey(rng):
    return np.full((SIDE, SIDE), 128, np.uint8)


def speckle_with_water(rng):
    image = np.clip(rng.gamma(1.0, 60.0, (SIDE, SIDE)), 0, 255).astype(np.uint8)
    image[100:300, 150:320] = 0
    return image


@pytest.mark.parametrize("content", [grey, speckle_with_water])
def test_frames_of_warp_affine_are_solved_without_content(content):
    rng = np.random.default_rng(7)
    errors = []
    for _ in range(40):
        drawn = AffineTransform.from_parameters(
            rotation_deg=rng.uniform(-20, 20), shift=rng.uniform(-50, 50, 2), centre=(255.5, 255.5)
        )
        framed = cv2.warpAffine(content(rng), drawn.matrix, (SIDE, SIDE))
        prediction = BorderOnly()(framed, REFERENCE, level="H", seed=0)
        errors.append(rmse(point_errors(prediction.displacement, drawn.matrix, (SIDE, SIDE))))
    assert cmr(np.array(errors), 1.0) >= 0.95
    assert np.median(errors) < 0.1


def test_scale_is_read_when_opposite_edges_are_seen():
    drawn = AffineTransform.from_parameters(rotation_deg=10, scale=0.8, shift=(12, -7), centre=(255.5, 255.5))
    framed = cv2.warpAffine(np.full((SIDE, SIDE), 90, np.uint8), drawn.matrix, (SIDE, SIDE))
    found = affine_from_frame(framed)
    assert found is not None
    assert AffineTransform(found).parameters()["scale"][0] == pytest.approx(0.8, abs=0.002)


@pytest.mark.parametrize("level", ["m", "H"])
def test_border_free_samples_score_exactly_like_identity(data_dir, info, level):
    for sample in make_list(data_dir, info, "test", levels=[level]).samples[level]:
        loaded = load_sample(data_dir, sample)
        said = [
            method(loaded.moving, loaded.reference, level=level, seed=0).displacement
            for method in (BorderOnly(), Identity())
        ]
        np.testing.assert_array_equal(*said)
        assert rmse(point_errors(said[0], loaded.matrix, loaded.moving.shape)) > 0.1


def test_dark_ground_at_the_edge_is_no_frame():
    rows, cols = np.mgrid[:160, :160]
    lake = np.full((160, 160), 100, np.uint8)
    lake[np.hypot(rows - 20, cols) < 60] = 0
    straight_bank = np.full((160, 160), 100, np.uint8)
    straight_bank[:9, 30:110] = 0
    for image in (lake, straight_bank, np.full((160, 160), 100, np.uint8), np.zeros((160, 160), np.uint8)):
        assert affine_from_frame(image) is None
