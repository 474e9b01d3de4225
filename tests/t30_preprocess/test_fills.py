"""What is no ground is found by its outline: fills, gaps and overlays, declared by nobody, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from somareg.geometry import AffineTransform
from somareg.io import from_array
from somareg.lab.evaluate.verdict.situations import SITUATIONS
from somareg.preprocess.fills import find_fills, without_fills
from somareg.preprocess.ground_only import ground_only
from somareg.preprocess.pixelwise import met
from tests.synthetic import make_pair

SIDE = 224
HERE = (AffineTransform.identity(),)
KINDS = ("sar", "optical")
ROLES = ("moving", "reference")
DRAWN = ("watermark", "outlines", "markers", "areas")  # no fill and no ruled line, see test_drawings
OVERLAYS = [name for name in SITUATIONS if name not in ("frame", *DRAWN)]


@pytest.fixture(scope="module")
def pair():
    """Moving and reference of one place, 7 px apart, as bytes."""
    made = make_pair(5, SIDE, shift=(6.0, -4.0))
    return _bytes(made.moving).reshape(SIDE, SIDE), _bytes(made.reference)


def _bytes(image):
    low, high = np.percentile(image, [1, 99])
    return np.clip(1 + 253 * (image - low) / (high - low), 1, 254).astype(np.uint8)


def fills(moving, reference, places=HERE, kinds=KINDS, **masks):
    there = from_array(moving, role="moving", mask=masks.get("moving_mask"))
    here = from_array(reference, role="reference", mask=masks.get("reference_mask"))
    return find_fills(there, here, places, kinds)


def cut(image, keep, value=0):
    return np.where(keep, image, np.asarray(value, image.dtype))


def disc(side=SIDE, radius=0.42):
    y, x = np.mgrid[:side, :side]
    return np.hypot(x - side / 2, y - side / 2) < radius * side


def test_ground_alone_has_no_fills(pair):
    there, here = fills(*pair)
    assert not there.mask.any() and not here.mask.any()


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_is_drawn_on_both_is_left_out_of_both(pair, name):
    moving, reference = SITUATIONS[name].on(*pair, seed=3)
    drawn = (moving != pair[0]) | (reference != pair[1]).any(axis=0)
    if "JPEG" in name:  # compression changes every pixel a little
        drawn = np.abs(moving.astype(int) - pair[0]) > 60
    images = from_array(moving, role="moving"), from_array(reference, role="reference")
    found = ground_only(*images, HERE, KINDS)
    assert found.notes
    there, here = found.moving.mask, found.reference.mask
    assert (~there)[drawn].mean() > 0.9
    assert there.mean() > 0.3
    if "only" not in name:
        assert (~here)[drawn].mean() > 0.9


@pytest.mark.parametrize("values", [(0, 0), (0, 255), (255, 17)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_value_of_any_type_and_shape(pair, values, dtype):
    moving, reference = (cut(image.astype(dtype), disc(), value) for image, value in zip(pair, values, strict=True))
    there, here = fills(moving, reference)
    for fill, value in ((there, values[0]), (here, values[1])):
        assert fill.mask[~disc()].all()
        assert not fill.mask[disc(radius=0.38)].any()
        assert list(fill.values) == [f"{value}"]


def test_one_image_may_declare_what_the_other_does_not(pair):
    moving, reference = (cut(image, disc()) for image in pair)
    there, here = fills(moving, reference, reference_mask=disc())
    assert there.mask[~disc()].all()
    assert not here.mask.any()


def test_a_polygon_in_one_image_is_a_fill_and_a_ragged_lake_is_not(pair):
    y, x = np.mgrid[:SIDE, :SIDE]
    polygon = (x + 0.4 * y > 50) & (x - 0.3 * y < 170)
    there, here = fills(cut(pair[0], polygon), pair[1])
    assert there.mask[~polygon].all() and not here.mask.any()
    rng = np.random.default_rng(0)
    rough = rng.normal(0, 1, (SIDE, SIDE))
    for _ in range(3):
        rough = (rough + np.roll(rough, 1, 0) + np.roll(rough, 1, 1) + np.roll(rough, -1, 0)) / 4
    lake = (np.hypot(x - 60, y - 70) < 50 + 60 * rough) & (rng.random((SIDE, SIDE)) > 0.03)
    there, here = fills(cut(pair[0], ~lake), pair[1])
    assert not there.mask.any() and not here.mask.any()


def test_one_lake_in_both_images_is_ground_where_the_images_are_apart(pair):
    """A coast that both sensors see at 0 has one shape, but not at one place of the pixel grid."""
    y, x = np.mgrid[:SIDE, :SIDE]

    def lake(dx, dy):
        angle = np.arctan2(y - dy - 100, x - dx - 100)
        return np.hypot(y - dy - 100, x - dx - 100) < 45 + 6 * np.sin(7 * angle) + 3 * np.sin(19 * angle)

    rng = np.random.default_rng(1)
    moving, reference = cut(pair[0], ~lake(6, -4)), cut(pair[1], ~lake(0, 0))
    moving[lake(6, -4) & (rng.random((SIDE, SIDE)) > 0.9)] = 3  # speckle
    there, here = fills(moving, reference)
    assert not there.mask.any() and not here.mask.any()


def test_a_fill_that_is_fixed_to_the_ground_is_found_by_the_georeference(pair):
    shift = AffineTransform.from_parameters(shift=(20.0, 11.0))
    moving = np.roll(cut(pair[0], disc()), (11, 20), axis=(0, 1))
    reference = cut(pair[1], disc())
    there, here = fills(moving, reference, places=(shift, AffineTransform.identity()))
    assert here.mask[~disc()].all()
    assert there.mask[np.roll(~disc(), (11, 20), axis=(0, 1))].mean() > 0.95


def test_images_of_different_sizes_are_looked_at(pair):
    there, here = fills(cut(pair[0], disc())[:200, :190], cut(pair[1], disc()))
    assert here.mask[~disc()].mean() > 0.9
    assert there.mask[(~disc())[:200, :190]].mean() > 0.9


def test_the_note_names_share_and_way_out(pair):
    images = from_array(cut(pair[0], disc()), role="moving"), from_array(cut(pair[1], disc()), role="reference")
    *_, notes = without_fills(*images, HERE, KINDS)
    share = np.mean(~disc())
    assert len(notes) == 2
    assert any(
        f"{share:.0%}"[:1] in note and "--moving-nodata 0" in note and "--moving-mask FILE" in note for note in notes
    )
    assert any("--reference-nodata 0" in note for note in notes)


def test_a_large_lake_of_one_value_is_kept_and_told(pair):
    y, x = np.mgrid[:SIDE, :SIDE]
    angle = np.arctan2(y - 110, x - 100)
    lake = np.hypot(y - 110, x - 100) < 70 + 8 * np.sin(7 * angle) + 4 * np.sin(19 * angle)
    reference = cut(pair[1], ~lake, 12)
    images = from_array(pair[0], role="moving"), from_array(reference, role="reference")
    _, here, notes = without_fills(*images, HERE, KINDS)
    assert here.mask.all()
    assert len(notes) == 1
    assert (
        f"reference: {lake.mean():.0%} of the pixels hold exactly 12" in notes[0]
        and "--reference-nodata 12" in notes[0]
    )


def test_nothing_breaks_on_odd_images(pair):
    flood = pair[1][:1] > 128
    for moving, reference in (
        (pair[0], np.ma.masked_equal(flood.astype(np.uint8), 0)),
        (flood[0], pair[1]),
        (np.zeros((64, 64), np.uint8), np.zeros((3, 64, 64), np.uint8)),
        (np.where(np.eye(64, 80), 1, np.nan), np.ones((1, 70, 64), np.float32)),
        (np.zeros((64, 64), np.complex64), np.eye(64)[None]),
    ):
        images = from_array(moving, role="moving"), from_array(reference, role="reference")
        there, here, _ = without_fills(*images, HERE, KINDS)
        assert there.mask.shape == moving.shape and here.mask.shape == reference.shape[1:]


@pytest.mark.parametrize("role", ["moving", "reference", "both"])
@pytest.mark.parametrize("declares", [False, True])
def test_an_image_of_one_value_stays_for_the_verdict_and_a_part_of_one_does_not(pair, role, declares):
    pairs = list(zip(ROLES, pair, strict=True))
    mask = disc() if declares else np.ones((SIDE, SIDE), bool)
    images = [
        from_array(np.full_like(image, 3) if role in (name, "both") else image, role=name, mask=mask)
        for name, image in pairs
    ]
    kept = without_fills(*images, HERE, KINDS)
    assert all(image.mask.sum() > 2000 for image in kept[:2])
    part = without_fills(*images, HERE, KINDS, is_part=True)
    if role != "reference" and not declares:  # a fill is known in SAR alone by its size
        assert not part[0].mask.any()


@pytest.mark.parametrize("shape", [(40, 60), (60, 40)])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (12.4, -7.6), (1000.0, 0.0)])
def test_where_images_meet_is_the_same_by_lines_and_by_points(
    shape: tuple[int, int], shift: tuple[float, float]
) -> None:
    straight = AffineTransform.from_parameters(scale=1.3, shift=shift)
    by_points = met(lambda points: straight(points), shape, (50, 70))  # type: ignore[arg-type]
    by_lines = met(straight, shape, (50, 70))
    np.testing.assert_array_equal(by_lines[0], by_points[0])
    for lines, points in zip(by_lines[1], by_points[1], strict=True):
        np.testing.assert_array_equal(lines, points)
