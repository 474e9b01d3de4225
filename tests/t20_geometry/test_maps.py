"""Affine, composed and field maps: identity, inverse, order, the half-pixel rule."""

import tracemalloc

import numpy as np
import pytest
import rasterio
import rasterio.transform
from hypothesis import given, settings
from hypothesis import strategies as st

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform, ComposedTransform, FieldTransform, compose
from somareg.geometry.lattice import on_lattice, pixel_centres, source_window
from somareg.types import Grid

finite = st.floats(-1e4, 1e4, allow_nan=False, width=32)


@st.composite
def affines(draw):
    return AffineTransform.from_parameters(
        rotation_deg=draw(st.floats(-180, 180)),
        scale=(draw(st.floats(0.3, 3)), draw(st.floats(0.3, 3))),
        shear_deg=draw(st.floats(-30, 30)),
        shift=(draw(st.floats(-500, 500)), draw(st.floats(-500, 500))),
        centre=(draw(st.floats(-500, 500)), draw(st.floats(-500, 500))),
    )


@st.composite
def fields(draw):
    h, w = draw(st.integers(2, 12)), draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    step = draw(st.floats(4, 64)), draw(st.floats(4, 64))
    amplitude = draw(st.floats(0, 0.2)) * min(step)  # slope below 0.4: cannot fold
    return FieldTransform(rng.uniform(-amplitude, amplitude, (2, h, w)), origin=(draw(finite), draw(finite)), step=step)


points = st.lists(st.tuples(finite, finite), min_size=1, max_size=20).map(np.array)


@given(points)
def test_identity_moves_nothing_at_all(xy):
    assert (AffineTransform.identity()(xy) == xy).all()
    assert AffineTransform.from_parameters(centre=(3.3, 4.4))(xy) - xy == pytest.approx(0, abs=1e-9)
    assert (FieldTransform(np.zeros((2, 3, 4)))(xy) == xy).all()


@given(affines(), points)
def test_affine_inverse_round_trip(affine, xy):
    np.testing.assert_allclose(affine.inverse(affine(xy)), xy, atol=1e-6)


@given(affines())
def test_parameters_round_trip(affine):
    again = AffineTransform.from_parameters(**affine.parameters((5, 7)), centre=(5, 7))
    np.testing.assert_allclose(again.matrix, affine.matrix, atol=1e-7)


@given(affines(), affines(), points)
def test_product_of_affines_applies_the_right_one_first(a, b, xy):
    product = a @ b
    assert isinstance(product, AffineTransform)
    np.testing.assert_allclose(product(xy), a(b(xy)), atol=1e-6)


@given(affines(), fields(), points)
def test_affine_at_field_applies_the_field_first(affine, field, xy):
    np.testing.assert_array_equal((affine @ field)(xy), affine(field(xy)))
    np.testing.assert_array_equal((field @ affine)(xy), field(affine(xy)))


@given(affines(), fields(), points)
@settings(max_examples=50)
def test_inverse_of_a_product(affine, field, xy):
    product = affine @ field
    np.testing.assert_allclose(product.inverse(product(xy)), xy, atol=1e-3)
    np.testing.assert_allclose(product.inverse.inverse(xy), product(xy), atol=1e-6)


@given(fields(), points)
def test_field_inverse_round_trip(field, xy):
    np.testing.assert_allclose(field.inverse(field(xy)), xy, atol=1e-3)
    assert (field.jacobian_determinant() > 0).all()


@given(fields())
def test_field_is_exact_at_nodes_and_held_outside(field):
    _, h, w = field.array.shape
    nodes = pixel_centres(0, 0, w, h) * field.step + field.origin
    np.testing.assert_allclose(field.displacement(nodes), field.array.reshape(2, -1).T, atol=1e-6)
    far = np.array(field.origin) - 1000.0
    np.testing.assert_array_equal(field.displacement(far[None])[0], field.array[:, 0, 0])


def test_compose_merges_affines_and_flattens():
    a = AffineTransform.from_parameters(rotation_deg=30)
    field = FieldTransform(np.ones((2, 4, 4)))
    product = compose(a, a, field, compose(a, a.inverse))
    assert isinstance(product, ComposedTransform)
    assert len(product.parts) == 3
    assert not product.is_affine
    assert compose(a, a.inverse).is_affine


def test_singular_and_non_finite_affines_are_refused():
    for matrix in (np.zeros((2, 3)), np.full((2, 3), np.nan), np.array([[1.0, 2, 0], [2, 4, 0]])):
        with pytest.raises(EstimationError, match="singular"):
            AffineTransform(matrix)


@given(
    st.tuples(st.floats(0.1, 100), st.floats(-5, 5), finite, st.floats(-5, 5), st.floats(-100, -0.1), finite),
    points,
)
def test_half_pixel_rule_agrees_with_rasterio(coefficients, xy):
    a, b, _, d, e, _ = coefficients
    if abs(a * e - b * d) < 1e-2:
        return
    grid = Grid(100, 100, coefficients, "EPSG:32632")
    x, y = rasterio.transform.xy(rasterio.Affine(*coefficients), xy[:, 1], xy[:, 0], offset="center")
    np.testing.assert_allclose(grid.to_map(xy), np.stack([x, y], -1), rtol=1e-9, atol=1e-4)
    scale = (1 + np.abs(coefficients).max()) * (1 + np.abs(xy).max()) / abs(a * e - b * d)
    np.testing.assert_allclose(grid.to_pixel(grid.to_map(xy)), xy, atol=1e-11 * scale + 1e-6)


class Bowl:
    """A smooth map that is not affine."""

    is_affine = False

    def __init__(self, strength, wave=0.0):
        self.strength, self.wave = strength, wave

    def __call__(self, xy):
        extra = self.strength * (xy / 1000) ** 2 + self.wave * np.sin(xy[:, ::-1] * 1.7)
        return xy * 1.02 + 5 + extra


@pytest.mark.parametrize("strength", [1.0, 30.0, 300.0])
def test_lattice_keeps_its_promise(strength):
    slow = Bowl(strength)
    xy = np.random.default_rng(0).uniform((10, -40), (700, 500), (5000, 2))
    fast = on_lattice(slow, (10, -40, 700, 500))
    assert fast is not slow
    assert np.abs(fast(xy) - slow(xy)).max() <= 1e-3


def test_lattice_steps_aside_for_a_rough_map():
    slow = Bowl(0.0, wave=0.5)
    assert on_lattice(slow, (0, 0, 100, 100)) is slow


def test_lattice_steps_aside_where_the_map_has_no_value():
    class Hole(Bowl):
        def __call__(self, xy):
            return np.where(xy[:, :1] > 50, np.nan, super().__call__(xy))

    slow = Hole(1.0)
    assert on_lattice(slow, (0, 0, 100, 100)) is slow


def test_source_window_holds_the_points_and_stays_inside():
    xy = np.array([[5.2, 7.9], [20.1, 12.0], [np.nan, 3.0]])
    assert source_window(xy, (100, 100), 3) == (2, 4, 23, 12)
    assert source_window(xy - 500, (100, 100), 3) is None
    x, y, w, h = source_window(np.array([[-1.0, -1.0], [200.0, 200.0]]), (100, 120), 3)
    assert (x, y) == (0, 0) and w <= 120 and h <= 100


def test_a_lattice_that_would_be_larger_than_its_points_is_not_made() -> None:
    """A field with kinks is met by no lattice: over a large image the map itself comes back, in bounded memory."""
    kinked = FieldTransform(np.random.default_rng(0).normal(0, 2, (2, 122, 122)), (7.3, 7.3), (49.7, 49.7))
    tracemalloc.start()
    found = on_lattice(kinked, (0.0, 0.0, 6000.0, 6000.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found is kinked
    assert peak < 400e6
