"""Level N's smooth warps: what they promise of themselves."""

import numpy as np
import pytest

from somareg.lab.evaluate.warp import SmoothWarp


def grid(side):
    rows, cols = np.mgrid[:side, :side].astype(float)
    return np.stack([cols.ravel(), rows.ravel()], axis=-1)


@pytest.mark.parametrize("length", [60.0, 120.0])
@pytest.mark.parametrize("crop", [128, 160, 256])
def test_a_warp_has_its_rms_and_no_affine_part(crop, length):
    field = SmoothWarp(1.5, length, 11, crop).on_crop()
    assert np.sqrt((field**2).sum(axis=0).mean()) == pytest.approx(1.5, abs=1e-9)
    design = np.column_stack([grid(crop), np.ones(crop * crop)])
    affine = np.linalg.lstsq(design, field.reshape(2, -1).T, rcond=None)[0]
    assert np.abs(design @ affine).max() < 1e-6


def test_the_three_numbers_are_the_warp_on_every_machine():
    """Worked out once and written down: a change of NumPy, torch or this code must not move the committed samples."""
    found = SmoothWarp(1.0, 60.0, 7, 160)(np.array([[0.0, 0.0], [80.0, 20.0], [170.0, -12.0]]))
    expected = [[1.754508207978, 0.777511466427], [0.481631067291, -0.147518859811], [1.888018588264, 1.575136915347]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_strengths_are_one_field():
    weak, strong = (SmoothWarp(rms, 60.0, 5, 160) for rms in (0.5, 4.0))
    np.testing.assert_allclose(8 * weak.on_crop(), strong.on_crop(), rtol=0, atol=1e-9)
    assert strong.slope() == pytest.approx(8 * weak.slope())
    assert np.abs(SmoothWarp(0.5, 60.0, 6, 160).on_crop() - weak.on_crop()).max() > 0.5


def test_points_and_the_whole_crop_agree():
    warp = SmoothWarp(2.0, 120.0, 3, 64)
    np.testing.assert_allclose(warp(grid(64)).T.reshape(2, 64, 64), warp.on_crop(), rtol=0, atol=1e-9)


def test_the_inverse_undoes_the_warp_beyond_the_crop_too():
    warp = SmoothWarp(4.0, 60.0, 2, 256)
    assert warp.slope() < 0.5
    points = np.random.default_rng(0).uniform(-40, 296, (500, 2))
    origin = warp.inverse(points)
    assert np.abs(origin - points).max() > 3
    np.testing.assert_allclose(origin + warp(origin), points, rtol=0, atol=1e-3)


def test_slope_is_the_largest_stretch_on_the_crop():
    warp = SmoothWarp(4.0, 60.0, 9, 128)
    dx, dy = warp.on_crop()
    steepest = max(np.abs(np.gradient(part)).max() for part in (dx, dy))
    assert 0.5 * steepest < warp.slope()
    assert steepest < 2 * warp.slope()


def test_the_longer_correlation_is_the_smoother_field():
    """Mean square slope times RMS falls with the square of the length where the affine part is little."""
    roughness = []
    for length in (30.0, 60.0):
        fields = [SmoothWarp(1.0, length, seed, 512).on_crop() for seed in range(6)]
        roughness.append(np.mean([np.square(np.gradient(field, axis=(1, 2))).mean() for field in fields]))
    assert 2.5 < roughness[0] / roughness[1] < 5.5
