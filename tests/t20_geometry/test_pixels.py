"""A map at every pixel of a block is the map at each of its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.geometry import pixels as pixels_module
from somareg.geometry.lattice import pixel_centres
from somareg.geometry.pixels import at_pixels

Array = np.ndarray[Any, Any]
BLOCKS = [(0, 0, 64, 48), (31, 5, 1, 1), (7, 2, 1, 40), (3, 9, 40, 1), (250, 180, 90, 70), (-40, -30, 20, 20)]
TURN = AffineTransform.from_parameters(rotation_deg=11.0, scale=(1.3, 0.8), shear_deg=2.0, shift=(4.5, -3.25))
FINER = AffineTransform(np.array([[0.4, 0.0, -0.3], [0.0, 0.6, -0.2]]))


def rough_field(step: tuple[float, float] = (16.0, 12.0), origin: tuple[float, float] = (7.5, -3.5)) -> FieldTransform:
    return FieldTransform(np.random.default_rng(0).normal(0, 3, (2, 17, 19)), origin, step)


def together(xy: tuple[Array, Array]) -> Array:
    return np.stack([one.ravel() for one in xy], axis=-1)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    "transform",
    [
        AffineTransform.identity(),
        TURN,
        rough_field(),
        rough_field((1.0, 1.0), (0.0, 0.0)),
        compose(TURN, rough_field()),
        compose(TURN, rough_field(), FINER),
        compose(rough_field(), TURN),  # its nodes are not along the pixels: every pixel is asked
        compose(rough_field(), rough_field((9.0, 7.0))),
        FieldTransform(np.full((2, 1, 1), 2.5)),
        rough_field().inverse,
    ],
    ids=repr,
)
def test_affines_and_fields_are_exact(transform: Any, block: tuple[int, int, int, int]) -> None:
    x, y = at_pixels(transform, *block)
    assert x.shape == y.shape == (block[3], block[2])
    np.testing.assert_allclose(together((x, y)), transform(pixel_centres(*block)), atol=1e-9, rtol=0)


def test_identity_is_exactly_the_pixels() -> None:
    x, y = at_pixels(AffineTransform.identity(), 3, 4, 50, 60)
    np.testing.assert_array_equal(together((x, y)), pixel_centres(3, 4, 50, 60))


def test_bands_of_rows_join(monkeypatch: pytest.MonkeyPatch) -> None:
    transform = compose(TURN, rough_field())
    whole = together(at_pixels(transform, 5, 6, 70, 50))
    monkeypatch.setattr(pixels_module, "_BAND", 200)
    np.testing.assert_array_equal(together(at_pixels(transform, 5, 6, 70, 50)), whole)


@dataclass
class Wavy:
    """Smooth, with an amplitude of 5 px; counts what it is asked."""

    wavelength: float
    asked: int = 0
    is_affine: bool = False

    def __call__(self, xy: Array) -> Array:
        self.asked += len(xy)
        return xy * (1.1, 0.9) + 5 * np.sin(2 * np.pi * xy[:, ::-1] / self.wavelength)


@given(st.floats(60, 20_000), st.integers(2, 150), st.integers(2, 150), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_smooth_map_is_as_good_as_asked(wavelength: float, width: int, height: int, bent: bool) -> None:
    inner: Any = rough_field() if bent else AffineTransform.identity()
    slow = Wavy(wavelength)
    fast = together(at_pixels(compose(slow, inner), 3, -8, width, height))
    expected = slow(inner(pixel_centres(3, -8, width, height)))
    # Between the middles, which are checked, a field that bends at nodes of its own may add as much again.
    assert np.abs(fast - expected).max() < (4e-3 if bent else 1.1e-3)


def test_a_smooth_map_is_asked_at_few_pixels() -> None:
    slow = Wavy(20_000)
    at_pixels(slow, 0, 0, 512, 512)
    assert slow.asked < 512 * 512 / 50


@pytest.mark.parametrize("wavelength", [4.0, 7.3])
def test_a_map_that_nodes_cannot_follow_is_asked_everywhere(wavelength: float) -> None:
    slow = Wavy(wavelength)
    np.testing.assert_array_equal(together(at_pixels(slow, 0, 0, 90, 80)), slow(pixel_centres(0, 0, 90, 80)))


def test_no_answer_stays_none() -> None:
    def half(xy: Array) -> Array:
        return np.where(xy[:, :1] > 40, np.nan, xy)

    half.is_affine = False  # type: ignore[attr-defined]
    x, _ = at_pixels(half, 0, 0, 64, 20)  # type: ignore[arg-type]
    assert np.isnan(x[:, 41:]).all()
    np.testing.assert_array_equal(x[:, :41], np.broadcast_to(np.arange(41.0), (20, 41)))
