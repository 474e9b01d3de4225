"""Small holes are bridged for matching; what is larger, and every value behind a hole, stays out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from somareg.preprocess.holes import ENOUGH, bridge_holes, bridged
from somareg.types import Grid, Raster

SIDE = 90


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, SIDE, SIDE)).astype(np.float32)


def scattered(share: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((SIDE, SIDE)) >= share


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_scattered_holes_are_gone_whatever_lies_in_them(share: float) -> None:
    mask, data = scattered(share), image()
    spoilt = np.where(mask, data, np.nan).astype(np.float32)
    filled, whole, count = bridge_holes(spoilt, mask)
    assert whole[2:-2, 2:-2].mean() > 0.995
    assert count == (whole & ~mask).sum()
    assert np.isfinite(filled[:, whole]).all()
    np.testing.assert_array_equal(filled[:, mask], data[:, mask])
    other = np.where(mask, data, 1e9).astype(np.float32)
    np.testing.assert_array_equal(bridge_holes(other, mask)[0][:, whole], filled[:, whole])
    assert np.isnan(spoilt[:, ~mask]).all()  # what was given is as it was


def test_a_hole_gets_the_mean_around_it() -> None:
    mask = np.ones((SIDE, SIDE), bool)
    mask[40, 50] = False
    filled, _, count = bridge_holes(image(), mask)
    around = image()[:, 39:42, 49:52].reshape(2, 9)[:, [0, 1, 2, 3, 5, 6, 7, 8]]
    assert count == 1
    np.testing.assert_allclose(filled[:, 40, 50], around.mean(1), rtol=1e-5)


def test_neighbours_are_counted_as_by_opencv() -> None:
    mask = scattered(0.4)
    around = np.ones((3, 3)) - np.eye(9)[4].reshape(3, 3)
    count = cv2.filter2D(mask.astype(np.float32), -1, around, borderType=cv2.BORDER_CONSTANT)
    _, once, bridged = bridge_holes(image(), mask, rounds=1)
    np.testing.assert_array_equal(once, mask | (count >= ENOUGH))
    assert bridged == (once & ~mask).sum()


def test_what_is_larger_keeps_its_size() -> None:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for mask in (
        columns > 30,
        (rows < 30) | (rows > 50),
        rows + columns > 80,
        np.hypot(rows - 45, columns - 45) > 20,
        ((rows // 8 + columns // 8) % 2) == 0,
    ):
        _, whole, _ = bridge_holes(image(), mask)
        assert (whole & ~mask).sum() <= 0.01 * SIDE * SIDE
        assert not (whole & (cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) > 3)).any()


def test_whole_images_are_handed_back() -> None:
    data, mask = image(), np.ones((SIDE, SIDE), bool)
    filled, whole, count = bridge_holes(data, mask)
    assert (filled is data, whole is mask, count) == (True, True, 0)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64", "complex64"])
def test_values_keep_their_type(dtype: str) -> None:
    data, mask = (50 + 10 * image()).astype(dtype), scattered(0.05)
    filled, whole, _ = bridge_holes(data, mask)
    assert filled.dtype == data.dtype
    assert np.abs(filled[:, whole & ~mask] - 50.0).max() < 40


def test_an_image_to_be_matched_is_without_them_and_a_note_tells() -> None:
    mask = scattered(0.05)
    holed = Raster(np.where(mask, image(), -9999).astype(np.float32), mask, Grid(SIDE, SIDE), name="a")
    whole, notes = bridged(holed, "moving")
    assert whole.mask.mean() > 0.99
    assert np.abs(whole.data[:, whole.mask]).max() < 10
    assert notes == (f"moving: {(~mask).mean():.1%} of the pixels are small holes, bridged for matching only",)
    one = mask | True
    one[40, 40] = False
    assert bridged(Raster(image(), one, Grid(SIDE, SIDE)), "moving")[1] == ()
    assert bridged(Raster(image(), mask | True, Grid(SIDE, SIDE)), "moving")[1] == ()
