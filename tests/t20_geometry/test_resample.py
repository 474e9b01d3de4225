"""Sampling: exact, dtype-keeping, and no invalid value ever enters a sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from somareg.geometry.resample import footprint_of, resample

KERNELS = ("nearest", "bilinear", "cubic")
DTYPES = (
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "float32",
    "float64",
    "complex64",
    "complex128",
    "bool",
)
H, W = 23, 31
YY, XX = np.mgrid[0:H, 0:W].astype(float)


def noise(dtype, bands=2, seed=0):
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype).kind
    if kind == "b":
        return rng.random((bands, H, W)) > 0.5
    if kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, (bands, H, W), dtype=dtype, endpoint=True)
    values = rng.normal(size=(bands, H, W)) * 1e3
    return (values + 1j * values[:, ::-1]).astype(dtype) if kind == "c" else values.astype(dtype)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("holes", [False, True])
def test_identity_is_bit_identical(kernel, dtype, holes):
    data = noise(dtype)
    mask = np.random.default_rng(1).random((H, W)) > 0.3 if holes else np.ones((H, W), bool)
    tiny = 1e-8 * np.random.default_rng(2).normal(size=(H, W))  # what a georeference leaves of zero
    out, valid = resample(data, mask, (XX + tiny, YY - tiny), kernel=kernel)
    assert out.dtype == data.dtype
    np.testing.assert_array_equal(valid, mask)
    np.testing.assert_array_equal(out[:, mask], data[:, mask])
    assert not out[:, ~mask].any()


@pytest.mark.parametrize("kernel", ["bilinear", "cubic"])
@given(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9))
@settings(max_examples=30)
def test_linear_ramp_is_exact(kernel, sx, sy):
    ramp = (3 * XX - 2 * YY + 7)[None]
    out, valid = resample(ramp, None, (XX + sx, YY + sy), kernel=kernel)
    inner = (slice(1, -1), slice(1, -1))
    assert valid[inner].all()
    expected = 3 * (XX + sx) - 2 * (YY + sy) + 7
    np.testing.assert_allclose(out[0][inner], expected[inner], atol=1e-4)


def test_cubic_is_keys_and_not_the_steeper_one():
    parabola = (XX**2)[None]
    out, _ = resample(parabola, None, (XX + 0.25, YY), kernel="cubic")
    np.testing.assert_allclose(out[0][3:-3, 3:-3], ((XX + 0.25) ** 2)[3:-3, 3:-3], atol=1e-6)
    spike = np.zeros((1, H, W))
    spike[0, 10, 10] = 1
    out, _ = resample(spike, None, (np.array([[11.5]]), np.array([[10.0]])), kernel="cubic")
    assert out[0, 0, 0] == pytest.approx(-0.0625)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
@given(st.floats(-2, 2), st.floats(-2, 2))
@settings(max_examples=15)
def test_invalid_pixels_never_leak(kernel, poison, sx, sy):
    mask = np.random.default_rng(3).random((H, W)) > 0.25
    data = np.where(mask, 5.0, poison)[None].astype(np.float32)
    out, valid = resample(data, mask, (XX + sx, YY + sy), kernel=kernel, fill=-1)
    np.testing.assert_allclose(out[0][valid], 5.0, rtol=1e-6)
    assert (out[0][~valid] == -1).all()
    _, nearest = resample(data, mask, (XX + sx, YY + sy), kernel="nearest")
    np.testing.assert_array_equal(valid, nearest)


def test_bands_may_have_their_own_masks():
    data = noise("float32")
    mask = np.random.default_rng(3).random(data.shape) > 0.2
    out, valid = resample(data, mask, (XX + 0.4, YY - 0.3), kernel="cubic")
    assert valid.shape == mask.shape
    for band in range(2):
        alone, alone_valid = resample(data[band : band + 1], mask[band], (XX + 0.4, YY - 0.3), kernel="cubic")
        np.testing.assert_array_equal(out[band], alone[0])
        np.testing.assert_array_equal(valid[band], alone_valid)


def test_integers_are_rounded_and_clipped():
    step = np.zeros((1, H, W), np.uint8)
    step[..., 15:] = 255
    out, _ = resample(step, None, (XX + 0.5, YY), kernel="cubic")
    exact, _ = resample(step.astype(float), None, (XX + 0.5, YY), kernel="cubic")
    assert exact.min() < -1 and exact.max() > 256  # cubic overshoots an edge
    np.testing.assert_array_equal(out, np.clip(np.rint(exact), 0, 255))


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_largest_integers_do_not_wrap(dtype):
    top = np.full((1, H, W), np.iinfo(dtype).max, dtype)
    out, _ = resample(top, None, (XX + 0.3, YY + 0.3), kernel="cubic")
    assert (out[0][2:-2, 2:-2] > np.iinfo(dtype).max * 0.99).all()


def test_complex_is_interpolated_as_complex():
    data = noise("complex128", bands=1)
    out, _ = resample(data, None, (XX + 0.3, YY + 0.6), kernel="cubic")
    real, _ = resample(data.real, None, (XX + 0.3, YY + 0.6), kernel="cubic")
    imag, _ = resample(data.imag, None, (XX + 0.3, YY + 0.6), kernel="cubic")
    np.testing.assert_allclose(out, real + 1j * imag)
    with pytest.raises(ValueError, match="amplitude"):
        resample(data, None, (XX, YY), out_dtype=np.float32)


def test_outside_and_not_finite_points_are_invalid():
    x = np.array([[-0.51, -0.49, W - 0.51, W - 0.49, np.nan, np.inf, -np.inf, 1e300]])
    for kernel in KERNELS:
        _, valid = resample(noise("float32"), None, (x, np.full_like(x, 3.2)), kernel=kernel)
        assert valid[0].tolist() == [False, True, True, False, False, False, False, False]


def test_footprint_of_two_is_the_mean_of_four():
    data = noise("float64", bands=1)[:, :22, :30]
    y, x = np.mgrid[0:11, 0:15] * 2 + 0.5
    out, valid = resample(data, None, (x, y), kernel="bilinear", footprint=(2, 2))
    assert valid.all()
    np.testing.assert_allclose(out[0], data[0].reshape(11, 2, 15, 2).mean(axis=(1, 3)))


def test_footprint_stops_aliasing_and_ignores_holes():
    stripes = np.where(XX % 2 == 0, 1.0, -1.0)[None]
    y, x = np.mgrid[0:7, 0:9] * 3 + 1.0
    aliased, _ = resample(stripes, None, (x, y), kernel="cubic")
    averaged, _ = resample(stripes, None, (x, y), kernel="cubic", footprint=(3, 3))
    assert np.abs(aliased).max() == 1
    assert np.abs(averaged).max() < 0.34
    mask = np.random.default_rng(0).random((H, W)) > 0.3
    flat, valid = resample(np.where(mask, 4.0, np.nan)[None], mask, (x, y), kernel="bilinear", footprint=(3, 3))
    np.testing.assert_allclose(flat[0][valid], 4.0)
    assert valid.any()


def test_footprint_of_a_rotation_is_one():
    angle = np.deg2rad(45)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert footprint_of(turn) == pytest.approx((1, 1))
    assert footprint_of(np.diag([2.0, 3.0])) == pytest.approx((2, 3))


def test_images_smaller_than_the_kernel():
    for shape in ((1, 1, 1), (1, 2, 3), (1, 1, 40), (2, 3, 3)):
        data = np.full(shape, 9.0)
        for kernel in KERNELS:
            y, x = np.mgrid[0 : shape[1], 0 : shape[2]]
            out, valid = resample(data, None, (x + 0.3, y - 0.2), kernel=kernel)
            assert valid.all()
            np.testing.assert_allclose(out, 9.0)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        resample(np.zeros((4, 4)), None, (XX, YY))
    with pytest.raises(ValueError, match="does not fit"):
        resample(np.zeros((1, 4, 4)), np.ones((3, 4), bool), (XX, YY))
    with pytest.raises(ValueError, match="differ"):
        resample(np.zeros((1, 4, 4)), None, (XX, YY[:-1]))
