"""Affine and smooth displacement from given points: exact where they are, blind to wrong ones."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from somareg.errors import EstimationError
from somareg.geometry import AffineTransform
from somareg.tiepoints.fit import GivenPoints, fit_given, fit_smooth

SIDE = 600
AFFINE = AffineTransform.from_parameters(rotation_deg=7, scale=(1.05, 0.93), shear_deg=2, shift=(30, -12))


def scattered(n, seed=0):
    return np.random.default_rng(seed).uniform(0, SIDE, (n, 2))


def points_of(xy, target, sigma=None):
    nothing = np.full(len(xy), np.nan)
    return GivenPoints(xy, target, nothing if sigma is None else sigma, nothing)


def bend(xy):
    return 5.0 * np.stack([np.sin(xy[:, 1] / 90), np.cos(xy[:, 0] / 110)], -1)


def rms(a, b):
    return float(np.sqrt(((a - b) ** 2).sum(1).mean()))


@given(
    st.integers(3, 40),
    st.floats(-180, 180),
    st.floats(0.3, 3),
    st.floats(-20, 20),
    st.booleans(),
    st.integers(0, 10_000),
)
@settings(max_examples=50, deadline=None)
def test_exact_points_give_the_exact_affine(n, rotation, scale, shear, mirrored, seed):
    affine = AffineTransform.from_parameters(
        rotation_deg=rotation, scale=(scale, -scale if mirrored else scale), shear_deg=shear, shift=(500, -900)
    )
    xy = scattered(n, seed)
    if np.linalg.cond(np.column_stack([xy / SIDE, np.ones(n)])) > 100:
        return  # nearly on a line: refused or inexact, as it should be
    fit = fit_given(points_of(xy, affine(xy)))
    assert rms(fit.affine(xy), affine(xy)) < 1e-6
    smooth = fit_smooth(points_of(xy, affine(xy)), fit)[1]
    assert smooth.variance == 0 or np.abs(smooth.values.numpy()).max() < 1e-6


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4])
@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_wrong_points_do_not_pull(share, sigma):
    rng = np.random.default_rng(1)
    xy = scattered(100)
    target = AFFINE(xy) + rng.normal(0, sigma, xy.shape)
    wrong = rng.random(100) < share
    target[wrong] = rng.uniform(0, SIDE, (int(wrong.sum()), 2))
    fit, smooth = fit_smooth(points_of(xy, target), fit_given(points_of(xy, target)))
    assert rms(fit.affine(xy), AFFINE(xy)) < 0.5 * sigma + 0.05  # sigma * sqrt(6 / N), and some
    assert smooth.variance == 0
    assert float(fit.factor[wrong].max() if wrong.any() else 0) < 0.1 < float(fit.factor[~wrong].median())


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_displaced_ground_is_followed_and_wrong_points_are_not(share):
    rng = np.random.default_rng(2)
    xy = scattered(300)
    target = AFFINE(xy + bend(xy)) + rng.normal(0, 0.3, xy.shape)
    wrong = rng.random(300) < share
    target[wrong] += rng.choice([-1, 1], (int(wrong.sum()), 2)) * rng.uniform(25, 80, (int(wrong.sum()), 2))
    points = points_of(xy, target)
    fit, smooth = fit_smooth(points, fit_given(points))
    where = 50 + scattered(400, 9) * (SIDE - 100) / SIDE
    predicted = fit.affine(where + smooth.predict(points_of(where, where).beyond(fit.affine)[0]).numpy())
    assert rms(predicted, AFFINE(where + bend(where))) < 0.6
    assert rms(fit.affine(where), AFFINE(where + bend(where))) > 3  # what no affine can do
    good = (fit.factor > 0.1).numpy()
    assert good[~wrong].mean() > 0.97
    assert not good[wrong].any()


def test_noise_is_no_displacement():
    """Over many draws, a field is nearly never seen where there is none."""
    found = 0
    for seed in range(20):
        xy = scattered(60, seed)
        points = points_of(xy, AFFINE(xy) + np.random.default_rng(seed).normal(0, 1, xy.shape))
        found += fit_smooth(points, fit_given(points))[1].variance > 0
    assert found <= 1


def test_uncertainty_grows_with_the_distance_to_the_points():
    xy = scattered(200)
    xy = xy[xy[:, 0] < 300]
    points = points_of(xy, AFFINE(xy + bend(xy)))
    fit, smooth = fit_smooth(points, fit_given(points))
    line = np.stack([np.linspace(280, 590, 20), np.full(20, 300.0)], -1)
    variance = smooth.uncertainty(points_of(line, line).beyond(fit.affine)[0], 1.0).numpy()
    assert (np.diff(variance) > -1e-6).all() and variance[0] < 0.1 < 0.9 < variance[-1]


def test_many_points_take_no_time():
    xy = scattered(20_000)
    points = points_of(xy, AFFINE(xy + bend(xy)) + np.random.default_rng(0).normal(0, 0.5, xy.shape))
    start = time.process_time()
    fit, smooth = fit_smooth(points, fit_given(points))
    assert time.process_time() - start < 10
    assert len(smooth.points) <= 600
    assert float((fit.factor > 0.1).double().mean()) > 0.97


@pytest.mark.parametrize("xy", [scattered(2), np.linspace(0, 9, 8)[:, None] * [1.0, 3.0], np.full((5, 2), 7.0)])
def test_points_that_determine_nothing(xy):
    with pytest.raises(EstimationError, match=r"determine no affine|on a line or in one spot"):
        fit_given(points_of(xy, xy + 1))
