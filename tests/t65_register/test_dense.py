"""The error to expect at every pixel: from what was found nearby, in the pixels that were matched."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from somareg.geometry import AffineTransform
from somareg.geometry.field import LatticeValues
from somareg.io.source import Block
from somareg.quality import LocalModel, Support
from somareg.quality.error_map import RMS_PER_MIDDLE, certainty_of
from somareg.register.dense import displacement_of, error_map_of
from somareg.register.findings import Findings, Matches, View
from somareg.types import Displacement, Grid, Raster

STILL = AffineTransform.identity()
GRID = Grid(120, 80)
FLAT = LocalModel(0.0, 1.0, 0.0, 0.0, 0.0)
RAN: Any = None
SUPPORT = Support(0.99, 0.5, 1.5, 1.0, 3.0, 0.8, 0.9, 0.2, 0.2, 0.1, 0.3)


def view(mask: np.ndarray | None = None) -> View:
    seen = np.ones(GRID.shape, bool) if mask is None else mask
    return View(Raster(np.zeros((1, *GRID.shape), np.uint8), seen, GRID), Block(0, 0, 120, 80), 1, 1.0)


def found(**more: Any) -> Findings:
    everywhere, none = LatticeValues(np.ones((2, 2)), step=(119, 79)), LatticeValues(np.zeros((2, 2)), step=(119, 79))
    base = Findings(STILL, STILL, None, everywhere, none, Matches.none(), SUPPORT, view(), view(), RAN)
    return replace(base, **more)


def dense(findings: Findings, model: LocalModel = FLAT) -> Displacement:
    errors = error_map_of(findings, STILL, model, GRID)
    return displacement_of(findings, STILL, errors, GRID)


def test_sigma_is_the_expected_error_and_certainty_its_chance_to_be_below_a_pixel() -> None:
    field = dense(found())
    assert field.sigma.dtype == field.certainty.dtype == np.float32
    np.testing.assert_allclose(field.sigma, 0.5)
    np.testing.assert_allclose(field.certainty, -math.expm1(-4.0 / RMS_PER_MIDDLE**2), atol=1e-3)
    odd = dense(found(support=replace(SUPPORT, predicted_px=1.23456)))
    np.testing.assert_allclose(odd.certainty, certainty_of(odd.sigma), atol=2e-3)
    np.testing.assert_allclose(odd.sigma, 1.23456, atol=5e-4)


def test_where_an_image_has_no_pixels_or_no_match_is_near_nothing_was_seen() -> None:
    mask = np.ones(GRID.shape, bool)
    mask[:20] = False
    right = LatticeValues(np.array([[1.0, 0.0], [1.0, 0.0]]), step=(119, 79))
    for case, unseen in (
        (found(moving=view(mask)), (slice(0, 20), slice(None))),
        (found(reference=view(mask)), (slice(0, 20), slice(None))),
        (found(coverage=right), (slice(None), slice(108, None))),
    ):
        field = dense(case)
        assert np.isnan(field.sigma[unseen]).all() and not field.certainty[unseen].any()
        seen = np.ones(GRID.shape, bool)
        seen[unseen] = False
        assert np.isfinite(field.sigma[seen]).all() and (field.certainty[seen] > 0).all()


@pytest.mark.parametrize("case", [{"coverage": None}, {"support": replace(SUPPORT, predicted_px=math.inf)}])
def test_without_an_estimate_nothing_was_seen(case: dict[str, Any]) -> None:
    field = dense(found(**case))
    assert np.isnan(field.sigma).all() and not field.certainty.any()


def test_errors_are_those_of_the_pixels_that_were_matched() -> None:
    """A model that is not proportional to the predicted error was fitted in working pixels."""
    bent = LocalModel(0.2, 0.6, 0.0, 1.0, 0.0)
    spread = LatticeValues(np.full((2, 2), 0.4), step=(119, 79))
    once = dense(found(spread=spread), bent)
    thrice = dense(
        found(
            spread=replace(spread, array=3 * spread.array),
            support=replace(SUPPORT, predicted_px=3 * SUPPORT.predicted_px),
            working_px=3,
        ),
        bent,
    )
    np.testing.assert_allclose(thrice.sigma, 3 * once.sigma, atol=3e-3)
    assert once.sigma.mean() > 0.6


def test_the_error_grows_outwards_and_with_what_is_not_covered() -> None:
    sigma = dense(found(coverage=LatticeValues(np.array([[1.0, 0.4]] * 2), step=(119, 79))), LocalModel()).sigma
    assert sigma[40, 118] > sigma[40, 60] and sigma[2, 2] > sigma[40, 20]
    even = dense(found(), LocalModel()).sigma
    assert even[0, 0] == pytest.approx(float(even.max())) and even[40, 60] == pytest.approx(0.5, abs=2e-3)
    np.testing.assert_allclose(even, even[::-1, ::-1], atol=2e-3)


def test_what_is_known_moves_with_the_findings() -> None:
    coverage = LatticeValues(np.array([[1.0, 0.4]] * 2), step=(119, 79))
    here = found(coverage=coverage, spread=coverage).moved((1000.0, 500.0), (3.0, 0.0))
    at = np.array([[1060.0, 540.0]])
    assert here.coverage is not None and here.spread is not None
    assert here.coverage(at)[0] == here.spread(at)[0] == pytest.approx(coverage(np.array([[60.0, 40.0]]))[0])


def test_figures_are_of_what_both_images_show() -> None:
    mask = np.ones(GRID.shape, bool)
    mask[:, :60] = False
    places = error_map_of(found(moving=view(mask)), STILL, FLAT, GRID).places()
    assert places.shown.mean() == pytest.approx(0.5, abs=0.02)
    assert places.unseen_share == 0
    assert {cell.column for cell in places.cells(GRID)} == {3, 4, 5}
