"""Figures: real pictures in both themes, nothing global touched, no input that breaks them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import cv2
import matplotlib as mpl
import numpy as np
import pytest

from somareg.geometry import AffineTransform
from somareg.report.checks import CHECKS, check_rows
from somareg.report.figures import DARK, LIGHT, arrows_figure, drawings, error_figure, local_figure, points_figure
from somareg.report.words import nice
from somareg.types import Displacement, Previews, Quality, Result


def decode(png: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image[..., ::-1]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_figure_is_a_picture_on_the_paper_of_its_theme(result: Result, theme: object) -> None:
    for drawing in drawings(result):
        image = decode(drawing.draw(theme))  # type: ignore[arg-type]
        assert image.shape[1] > 700 and image.shape[0] > 300
        paper = tuple(int(theme.paper[i : i + 2], 16) for i in (1, 3, 5))  # type: ignore[attr-defined]
        assert tuple(image[0, 0]) == paper
        assert image.reshape(-1, 3).std() > 10
        assert drawing.caption and drawing.alt and drawing.title


def test_same_result_gives_same_bytes(build: Callable[..., Result]) -> None:
    for one, two in zip(drawings(build()), drawings(build()), strict=True):
        assert one.draw(LIGHT) == two.draw(LIGHT)


def test_no_tie_points_and_no_displacement(build: Callable[..., Result]) -> None:
    still = build("no-go", points=0)
    zero = Displacement(
        np.zeros((2, 220, 300), np.float32),
        np.zeros((220, 300), np.float32),
        np.ones((220, 300), np.float32),
        still.reference.grid,
    )
    still = replace(still, displacement=zero, affine=AffineTransform.identity(), correction=AffineTransform.identity())
    for drawing in drawings(still):
        assert decode(drawing.draw(LIGHT)).size


def test_all_points_left_out_and_odd_residuals(result: Result) -> None:
    points = result.tie_points
    nobody = replace(result, tie_points=replace(points, inlier=np.zeros(len(points), bool)))
    broken = replace(
        result, tie_points=replace(points, residual_px=np.where(np.arange(len(points)) < 9, np.nan, points.residual_px))
    )
    for case in (nobody, broken):
        for drawing in drawings(case):
            assert decode(drawing.draw(LIGHT)).size


@pytest.mark.parametrize("shape", [(70, 2000), (2000, 70), (64, 64)])
def test_long_and_small_images(result: Result, shape: tuple[int, int]) -> None:
    h, w = shape
    grid = replace(result.reference.grid, width=w, height=h)
    ramp = np.broadcast_to(np.linspace(0, 5, w, dtype=np.float32), (2, h, w)).copy()
    case = replace(
        result,
        displacement=Displacement(ramp, np.ones(shape, np.float32), np.ones(shape, np.float32), grid),
        reference=replace(result.reference, grid=grid),
        previews=Previews(*[np.zeros(shape, np.uint8)] * 3, step=1.0),
    )
    for draw in (error_figure, arrows_figure, local_figure, points_figure):
        assert max(decode(draw(case)).shape) < 1400


def test_places_that_were_not_seen_are_grey_and_the_rest_is_not(result: Result) -> None:
    def saturation(case: Result) -> float:
        image = decode(error_figure(case)).astype(int)
        inner = image[30:500, 120:760]
        return float((inner.max(axis=2) - inner.min(axis=2) > 60).mean())

    field, quality = result.displacement, replace(result.quality, cells=())
    seen = replace(result, quality=quality, displacement=replace(field, sigma=np.full_like(field.sigma, 0.6)))
    half = np.where(np.arange(field.sigma.shape[1]) < 150, 0.6, np.nan) * np.ones_like(field.sigma)
    some = replace(seen, displacement=replace(field, sigma=half.astype(np.float32)))
    none = replace(seen, displacement=replace(field, sigma=np.full_like(field.sigma, np.nan)))
    assert saturation(seen) > 0.6
    assert 0.35 * saturation(seen) < saturation(some) < 0.65 * saturation(seen)
    assert saturation(none) < 0.02


def test_grey_and_colour_references(result: Result) -> None:
    grey = replace(result, previews=replace(result.previews, reference=result.previews.reference[..., 0].copy()))
    assert decode(points_figure(grey)).size


def test_drawing_leaves_matplotlib_as_it_was(result: Result) -> None:
    before = dict(mpl.rcParams)
    for drawing in drawings(result):
        drawing.draw(DARK)
    assert dict(mpl.rcParams) == before


def test_pyplot_is_never_imported_and_reading_reports_needs_no_matplotlib() -> None:
    code = (
        "import sys, somareg.report; assert 'matplotlib' not in sys.modules; "
        "import somareg.report.figures; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("value", "below", "above"), [(7.3, 5, 10), (0.034, 0.02, 0.05), (10, 10, 10), (1, 1, 1), (0, 0, 0)]
)
def test_nice_numbers(value: float, below: float, above: float) -> None:
    assert nice(value) == pytest.approx(below)
    assert nice(value, up=True) == pytest.approx(above)


def test_each_check_reads_a_quality_figure_and_has_consistent_bounds(result: Result) -> None:
    names = set(Quality.__slots__) | {"similarity_gain"}
    for check in CHECKS:
        assert check.key in names
        assert check.state(check.good) == "good"
        assert check.state(check.fair) == "fair"
        worse = check.fair - 1 if check.higher_is_better else check.fair + 1
        assert check.state(worse) == "poor"
        assert check.state(float("nan")) == check.state(None) == "unknown"
    assert [row.state for row in check_rows(result.quality.as_dict())].count("good") == len(CHECKS)
