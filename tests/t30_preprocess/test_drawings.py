"""What was drawn into both images is found by the finest periods that no two sensors share, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio

import somareg
from somareg.geometry import AffineTransform
from somareg.io import from_array
from somareg.lab.evaluate.verdict.situations import SITUATIONS
from somareg.preprocess.drawings import EVERYWHERE, without_drawings
from somareg.preprocess.ground_only import ground_only
from somareg.preprocess.pixelwise import Greys

HERE = AffineTransform.identity()
KINDS = ("sar", "optical")
DRAWN = ("watermark", "outlines", "markers", "areas")
SIDE = 256


def _read(path):
    with rasterio.open(path) as file:
        data = file.read().astype(np.float32)
    low, high = np.percentile(data, [1, 99])
    return np.clip(1 + 253 * (data - low) / (high - low), 1, 254).astype(np.uint8)


@pytest.fixture(scope="module")
def demo():
    """The real pair of the package as bytes: radar (1, H, W), optical (C, H, W)."""
    folder = Path(somareg.__file__).parent / "data" / "demo"
    return _read(folder / "sar.tif"), _read(folder / "optical.tif")


def crop(image, y, x, side=SIDE):
    return np.ascontiguousarray(image[..., y : y + side, x : x + side])


def calmed(image):
    """Less contrast, so that a faint drawing shows."""
    return np.asarray(image * 0.3 + 60, np.uint8)


def shifted(x, y):
    return AffineTransform.from_parameters(shift=(x, y))


def left(moving, reference, place=HERE, kinds=KINDS):
    there, here = from_array(moving, role="moving"), from_array(reference, role="reference")
    return without_drawings(there, here, (place,), kinds, Greys.of(there, here))


@pytest.mark.parametrize("shift", [(0, 0), (0, 1), (-1, 0), (3, -2)])
@pytest.mark.parametrize("corner", [(0, 0), (200, 120), (380, 400)])
def test_ground_is_no_drawing(demo, corner, shift):
    y, x = corner
    radar = crop(np.roll(demo[0], shift, axis=(-2, -1)), y, x)
    there, here, notes, doubts = left(radar, crop(demo[1], y, x))
    assert there.mask.all() and here.mask.all() and not notes and not doubts


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("is_related", [True, False])
def test_a_drawing_is_left_out_of_both(demo, name, is_related):
    images = crop(demo[0], 60, 90) if is_related else crop(demo[0], 400, 400), crop(demo[1], 66, 80)
    calm = [calmed(image) for image in images]
    moving, reference = SITUATIONS[name].on(*calm, seed=5)
    there, here, notes, doubts = left(moving, reference)
    drawn = np.abs(reference.astype(int) - calm[1]).max(axis=0) > 8
    assert len(notes) == 1 and "drawn at the same pixels" in notes[0] and not doubts
    np.testing.assert_array_equal(there.mask, here.mask)
    assert here.mask.mean() > 0.25
    edges = drawn & ~_interior(drawn, 1)  # the tint of an area has no structure
    assert (~here.mask)[edges].mean() > (0.2 if name == "areas" else 0.6)  # some tints are as bright as the ground
    assert not without_drawings(there, here, (HERE,), KINDS, Greys.of(there, here))[2]  # nothing of it is left
    assert here.mask[_interior(~drawn, 12)].mean() > 0.8


def _interior(mask, by):
    """Pixels at least `by` px within."""
    return cv2.erode(mask.astype(np.uint8), np.ones((2 * by + 1, 2 * by + 1), np.uint8)) > 0


def test_a_drawing_is_found_by_the_georeference(demo):
    """A program drew it on the map, so its pixels differ by the shift between the grids."""
    calm = (calmed(crop(demo[0], 300, 300, 320)), calmed(crop(demo[1], 66, 80, 320)))
    both = SITUATIONS["markers"].on(*calm, seed=2)
    there, here, notes, _ = left(both[0][..., 9:, 10:], both[1][..., 20:, 30:], shifted(20.0, 11.0))
    assert notes
    np.testing.assert_array_equal(there.mask[11:, 20:], here.mask)
    assert not left(both[0][..., 9:, 10:], both[1][..., 20:, 30:])[2]  # nothing is drawn pixel on pixel


def test_only_radar_against_another_sensor_is_examined(demo):
    """Bands of one sensor agree to the pixel, because they show the same ground."""
    one = crop(demo[1], 60, 90)
    for kinds in (("optical", "optical"), ("sar", "sar"), ("optical", "nir")):
        there, here, notes, doubts = left(one[:1], one[1:2], kinds=kinds)
        assert there.mask.all() and here.mask.all() and not notes and not doubts


def test_agreement_all_over_is_a_doubt_and_masks_nothing(demo):
    """Two optical images that were taken for radar and optical: the user is told, and nothing is lost."""
    one = crop(demo[1], 60, 90)
    there, here, notes, doubts = left(one[:1], one)
    assert doubts == (EVERYWHERE,) and not notes
    assert there.mask.all() and here.mask.all()


@pytest.mark.parametrize(("apart", "is_drawn"), [(0.0, True), (0.2, False), (0.4, False)])
def test_ground_that_shares_the_finest_detail_is_a_fraction_of_a_pixel_apart(apart, is_drawn):
    """Radar whose speckle was averaged shows the same fine structure, but a georeference is never exact."""
    ground, *own = (np.random.default_rng(seed).normal(size=(SIDE, SIDE)) for seed in range(3))
    turns = np.exp(-2j * np.pi * apart * np.fft.rfftfreq(SIDE))
    moved = np.fft.irfft2(np.fft.rfft2(ground) * turns, s=ground.shape)
    radar, optical = (
        cv2.GaussianBlur(128 + 16 * (g + o), (0, 0), 0.7) for g, o in zip((ground, moved), own, strict=True)
    )
    there, here, notes, doubts = left(radar[None].astype(np.uint8), optical[None].astype(np.uint8))
    assert bool(notes or doubts) == is_drawn
    assert is_drawn or (there.mask.all() and here.mask.all())


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("is_moving", [True, False])
def test_ground_on_larger_pixels_is_no_drawing(demo, factor, is_moving):
    """One image, or both, averaged to the pixels of another product."""
    images = [crop(image, 40, 60, 540) for image in demo]
    small = [_averaged(image, factor) for image in images]
    size = AffineTransform(np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2.0]]))
    one_larger = (small[0], images[1], size.inverse) if is_moving else (images[0], small[1], size)
    for moving, reference, place in ((*small, HERE), one_larger):
        there, here, notes, doubts = left(moving, reference, place)
        assert there.mask.all() and here.mask.all() and not notes and not doubts


def _averaged(image, factor):
    bands, height, width = image.shape
    return image.reshape(bands, height // factor, factor, width // factor, factor).mean((2, 4)).astype(np.uint8)


@pytest.mark.parametrize("size", [0.8, 1.25])
def test_a_drawing_on_grids_of_other_pixel_sizes(demo, size):
    """Curves of one map, drawn two pixels wide on a radar image with larger or smaller pixels."""
    reference = calmed(crop(demo[1], 60, 90, 320))
    side = round(320 / size)
    radar = calmed(cv2.resize(crop(demo[0], 300, 300, 320)[0], (side, side), interpolation=cv2.INTER_AREA)[None])
    line = np.array([[20, 40], [90, 200], [160, 60], [230, 280], [300, 90]], float)
    for image, scale in ((reference, 1.0), (radar, 1 / size)):
        ink = np.zeros(image.shape[1:], np.uint8)
        for turn in (line, line[:, ::-1], 320 - line):
            points = np.round(((turn + 0.5) * scale - 0.5) * 16).astype(np.int32)
            cv2.polylines(ink, [points], False, 255, 1, cv2.LINE_AA, 4)
        image[:] = np.where(ink > 0, image + (255 - image) * (ink / 255.0), image).astype(np.uint8)
    place = AffineTransform(np.array([[1 / size, 0, (1 / size - 1) / 2], [0, 1 / size, (1 / size - 1) / 2]]))
    there, here, notes, doubts = left(radar, reference, place)
    assert notes and not doubts
    assert not here.mask.all() and not there.mask.all()
    assert here.mask.mean() > 0.6 and there.mask.mean() > 0.6


def test_a_small_drawing_in_a_large_image(demo):
    images = calmed(crop(demo[0], 0, 0, 640)), calmed(crop(demo[1], 0, 0, 640))
    drawn = SITUATIONS["markers"].on(*(crop(image, 30, 350, 200) for image in images), seed=1)
    for image, part in zip(images, drawn, strict=True):
        image[..., 30:230, 350:550] = part
    _, here, notes, _ = left(*images)
    assert notes
    assert not here.mask[30:230, 350:550].all()
    outside = here.mask.copy()
    outside[20:240, 340:560] = True
    assert outside.mean() > 0.95


def test_a_tiny_overlap_and_empty_images_are_left_alone(demo):
    small = crop(demo[1], 0, 0, 96)
    for shift in ((70.0, 0.0), (-70.5, 3.0), (500.0, 0.0)):
        there, here, notes, doubts = left(small[:1], small, shifted(*shift))
        assert there.mask.all() and here.mask.all() and not notes and not doubts
    flat = np.full((1, 100, 100), 7, np.uint8), np.full((3, 100, 100), 9, np.uint8)
    there, here, notes, doubts = left(*flat)
    assert there.mask.all() and here.mask.all() and not notes and not doubts


def test_bad_values_are_no_obstacle(demo):
    moving, reference = crop(demo[0], 0, 0).astype(np.float32), crop(demo[1], 0, 0).astype(np.float32)
    moving[..., :40, :] = np.nan
    reference[..., 200:, :] = np.inf
    images = from_array(moving, role="moving"), from_array(reference, role="reference")
    with np.errstate(all="raise", under="ignore"):
        found = ground_only(*images, (HERE,), KINDS)
    assert not found.doubts
    np.testing.assert_array_equal(found.moving.mask, images[0].mask)
