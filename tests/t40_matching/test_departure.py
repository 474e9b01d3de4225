"""How far a map is from a similarity: of one, and of a batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from somareg.matching.affine import departure, departures
from tests.t40_matching.shapes import MIRROR, stretched, turned

ANGLES = st.floats(-180, 180)
SIZES = st.floats(0.5, 2.0)


@settings(max_examples=40, deadline=None)
@given(ANGLES, SIZES, st.booleans())
def test_a_similarity_does_not_depart(degrees: float, scale: float, mirrored: bool) -> None:
    similarity = turned(degrees, scale).after(MIRROR) if mirrored else turned(degrees, scale)
    np.testing.assert_allclose(departure(similarity), 0, atol=1e-12)


def test_departure_is_the_difference_of_the_scales_and_the_shear() -> None:
    np.testing.assert_allclose(departure(stretched(1.02, 0.98, 0.0)), (0.04, 0.0), atol=1e-12)
    np.testing.assert_allclose(departure(stretched(2.04, 1.96, 0.0)), (0.04, 0.0), atol=1e-12)
    lean = math.tan(math.radians(1.0))
    np.testing.assert_allclose(departure(stretched(1.0, 1.0, 1.0)), (0.0, lean), atol=lean**2)
    # Stretched along a diagonal: both axes lean towards it.
    diagonal = turned(45).after(stretched(1.02, 0.98, 0.0)).after(turned(-45))
    np.testing.assert_allclose(departure(diagonal), (0.0, 0.04), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(ANGLES, SIZES, st.floats(0.8, 1.2), st.floats(-10, 10), st.booleans())
def test_departure_looks_at_the_shape_only(
    degrees: float, scale: float, ratio: float, shear: float, mirrored: bool
) -> None:
    """A similarity afterwards changes nothing; its size is the relative difference of the singular values, twice."""
    shape = stretched(ratio, 1.0, shear)
    whole = turned(degrees, scale).after(MIRROR).after(shape) if mirrored else turned(degrees, scale).after(shape)
    own = departure(MIRROR.after(shape) if mirrored else shape)
    np.testing.assert_allclose(departure(whole), own, atol=1e-12)
    large, small = np.linalg.svd(whole.matrix[:, :2], compute_uv=False)
    assert math.hypot(*own) == pytest.approx(2 * (large - small) / (large + small), abs=1e-12)


def test_a_batch_departs_as_its_maps_do() -> None:
    maps = [stretched(), turned(30, 1.3).after(stretched(1.1, 0.9, 4.0)), MIRROR.after(stretched())]
    aspect, shear = departures(torch.stack([torch.tensor(one.matrix) for one in maps]))
    for i, one in enumerate(maps):
        assert (float(aspect[i]), float(shear[i])) == pytest.approx(departure(one))
