"""An undeclared nodata value far outside the others is left out of the matching, whatever its shape; ground is not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio

import somareg
from somareg.geometry import AffineTransform
from somareg.io import from_array
from somareg.preprocess.ground_only import ground_only
from somareg.preprocess.sentinels import without_sentinels

SIDE = 200


def ground(seed=0, low=0.02, high=0.4):
    rng = np.random.default_rng(seed)
    field = cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)), (0, 0), 3)
    return (low + (high - low) * (field - field.min()) / np.ptp(field)).astype(np.float32)


def clouds(share, seed=1):
    field = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(SIDE, SIDE)), (0, 0), 6)
    return field > np.quantile(field, 1 - share)


def left(data, modality="optical", role="reference"):
    return without_sentinels(from_array(data, role=role), role, modality)


@pytest.mark.parametrize("value", [-9999.0, -32768.0, 1e20, -3.4028234663852886e38])
@pytest.mark.parametrize("share", [0.005, 0.03, 0.2])
def test_clouds_of_one_far_value_are_left_out(value, share):
    image = ground()
    holes = clouds(share)
    image[holes] = value
    raster, (note,) = left(image)
    np.testing.assert_array_equal(raster.mask, ~holes)
    assert f"{holes.mean():.1%} of the pixels hold exactly {value:g}" in note
    assert f"--reference-nodata {value:g}" in note


def test_scattered_pixels_and_two_values_are_left_out():
    image = (1000 + 2000 * ground()).astype(np.uint16)
    rng = np.random.default_rng(3)
    high, low = rng.random((2, SIDE, SIDE)) < 0.02
    image[high], image[low] = 65535, 0
    raster, notes = left(np.stack([image, image + (image < 60000)]).astype(np.int32))
    assert len(notes) in (1, 2) and any("65535" in note for note in notes)
    assert not (raster.mask & high & ~low).any()
    assert raster.mask[~(high | low)].mean() > 0.99


def test_values_that_resampling_mixed_go_with_it():
    image, holes = ground(), clouds(0.05)
    image[holes] = -9999
    blurred = np.where(cv2.dilate(holes.astype(np.uint8), np.ones((3, 3))) > 0, cv2.blur(image, (3, 3)), image)
    blurred[holes] = -9999
    raster, _ = left(blurred)
    assert blurred[raster.mask].min() > -1


def _ships():
    """A calm sea with bright targets, of which the brightest saturate."""
    rng = np.random.default_rng(6)
    sea = rng.gamma(20.0, 0.5, (SIDE, SIDE))
    targets = rng.random((SIDE, SIDE)) < 0.02
    sea[targets] = 40 * rng.pareto(0.5, targets.sum())
    return np.clip(sea, 1, 3000).astype(np.uint16)


@pytest.mark.parametrize(
    "image",
    [
        np.clip(300 * ground(), 0, 255).astype(np.uint8),  # bytes, dark water at 0
        np.where(clouds(0.1), 255, 40 + 200 * ground()).astype(np.uint8),  # saturated clouds
        np.where(clouds(0.01), 255, 10 + 8 * ground()).astype(np.uint8),  # ships on a dark sea, as bytes
        _ships(),
        (-25 + 40 * ground()).astype(np.float32),  # decibels
        np.random.default_rng(2).gamma(0.3, 1.0, (SIDE, SIDE)).astype(np.float32) ** 3,  # power with point targets
        np.where(clouds(0.3), 0, ground()).astype(np.float32),  # zeros beside small values
        np.where(clouds(0.02), 100, np.random.default_rng(4).integers(1, 6, (SIDE, SIDE))).astype(np.uint8),  # classes
        np.full((SIDE, SIDE), 7, np.int16),
        np.zeros((SIDE, SIDE), bool),
        (ground() + 1j).astype(np.complex64),
    ],
)
def test_ground_keeps_its_pixels(image):
    raster, notes = left(image)
    assert raster.mask.all() and not notes


def test_a_map_keeps_its_classes():
    image = ground()
    image[clouds(0.05)] = 9999
    assert left(image, "map")[0].mask.all()


def test_the_rest_of_the_pair_is_examined_without_them():
    image = ground()
    image[clouds(0.03)] = -9999
    found = ground_only(
        from_array(ground(5), role="moving"),
        from_array(image, role="reference"),
        (AffineTransform.identity(),),
        ("sar", "optical"),
    )
    assert found.reference.mask.mean() == pytest.approx(0.97, abs=0.01) and len(found.notes) == 1
    assert found.moving.mask.all()


def test_a_pair_with_undeclared_clouds_is_aligned():
    """Without the step the stretch of the few sentinel pixels leaves the ground without contrast: no-go."""
    folder = Path(somareg.__file__).parent / "data" / "demo"
    with rasterio.open(folder / "optical.tif") as optical, rasterio.open(folder / "sar.tif") as sar:
        here, there = optical.read()[:, 60:380, 60:380], sar.read()[:, 60:380, 60:380]
    here = here.astype(np.float32) / 10_000
    plain = somareg.register(there, here, search="local")
    here[:, cv2.resize(clouds(0.03).astype(np.uint8), (320, 320)) > 0] = -9999
    holed = somareg.register(there, here, search="local")
    assert plain.verdict.decision == holed.verdict.decision == "go"
    assert any("-9999" in note for note in holed.notes)
    at = np.array([[160.0, 160.0]])
    np.testing.assert_allclose(holed.transform(at), plain.transform(at), atol=0.5)
