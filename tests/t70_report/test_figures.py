"""Drawings: one for both themes, with axes in pixels and metres, without matplotlib; no input that breaks them."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from somareg.geometry import AffineTransform
from somareg.report.axes import ground_ticks, map_axes, ticks
from somareg.report.checks import CHECKS, check_rows
from somareg.report.figures import Drawing, drawings
from somareg.report.html import asset
from somareg.report.maps import arrow_shapes
from somareg.report.palette import coloured, colours
from somareg.report.svg import element, number
from somareg.report.words import nice
from somareg.types import Displacement, Previews, Quality, Result

EVERY = ("error", "arrows", "points", "local", "histogram", "scatter")


def of(result: Result) -> dict[str, Drawing]:
    found = drawings(result)
    return {drawing.key: drawing for drawing in (*([found.error] if found.error else []), *found.others)}


def tree(drawing: Drawing) -> ET.Element:
    return ET.fromstring(str(drawing.svg))  # well-formed, or it raises


def words(drawing: Drawing) -> list[str]:
    return [text.text or "" for text in tree(drawing).iter("text")]


def picture(uri: str) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


def test_each_drawing_is_one_svg_in_the_colours_of_the_page(result: Result) -> None:
    found = of(result)
    assert tuple(found) == EVERY
    for drawing in found.values():
        assert drawing.caption and drawing.title
        svg = tree(drawing)
        assert svg.tag == "svg" and svg.get("role") == "img" and svg.get("aria-label")
        width, height = map(float, (svg.get("viewBox") or "").split()[2:])
        assert width == 480 and 200 < height < 800
        assert len(list(svg.iter("image"))) <= 1
        # Whatever is ink or paper has its colour from a rule of the page, which knows light and dark.
        classes = {name for part in svg.iter() for name in (part.get("class") or "").split()}
        assert classes - {"axes", "backdrop", "unseen"} <= set(re.findall(r"\.([\w-]+)", asset("report.css")))
        fills = {part.get("fill") for part in svg.iter() if part.tag in ("text", "path")}
        assert fills == {None}


def test_both_themes_say_every_colour_that_drawings_use() -> None:
    base, light = asset("base.css"), asset("base.css").partition("@media")[0]
    dark = base.partition("prefers-color-scheme: dark")[2]
    used = set(re.findall(r"var\((--[\w-]+)\)", asset("report.css"))) - {"--mono"}
    for name in used:
        assert f"{name}:" in light and f"{name}:" in dark, name


def test_same_result_gives_same_bytes(build: Callable[..., Result]) -> None:
    assert [drawing.svg for drawing in of(build()).values()] == [drawing.svg for drawing in of(build()).values()]


def test_axes_have_pixels_and_where_they_are_known_metres(build: Callable[..., Result]) -> None:
    placed, plain = of(build()), of(build(georeferenced=False))
    for name in ("error", "arrows", "points", "local"):
        told = words(placed[name])
        assert {"x (reference px)", "y (reference px)"} <= set(told)
        assert {"0", "50", "100", "200"} <= set(told)
        assert [each for each in told if re.fullmatch(r"[\d.]+ km", each)]
    assert words(placed["arrows"]).count("3.0 km") == 1  # 300 px of 10 m, 220 below
    assert "distance to the final transform (px)" in words(placed["histogram"])
    assert [each for each in words(placed["scatter"]) if each.endswith(" m")]
    for drawing in plain.values():
        assert not [each for each in words(drawing) if re.search(r"\d k?m$", each)]


def test_metres_stand_where_their_pixels_are() -> None:
    axes = map_axes((100.0, 40.0, 300.0, 200.0), (10.0, 20.0))
    found = {words: at for at, words in ground_ticks(axes.x, 10.0, axes.zero, 58.0)}
    assert found["2.0"] == pytest.approx(axes.x.at(199.5))  # 2 km from the left edge of the reference's first pixel
    down = {words: at for at, words in ground_ticks(axes.y, 20.0, axes.zero, 42.0)}
    assert down["4 km"] == pytest.approx(axes.y.at(199.5))


def test_figures_that_are_drawn_are_those_of_the_page(result: Result) -> None:
    found = of(result)
    quality = result.quality
    assert f"predicted CE90: {quality.predicted_ce90_px:.2f} px" in words(found["scatter"])
    assert f"median of the inliers: {quality.residual_median_px:.2f} px" in words(found["histogram"])
    kept = int(result.tie_points.inlier.sum())
    assert {f"{kept} kept", f"{104 - kept} left out"} <= set(words(found["points"]))
    cells = [cell for cell in quality.cells if cell.is_seen]
    told = [part.text for part in tree(found["error"]).iter("text") if part.get("class") == "halo"]
    assert told == [f"{cell.error_px:.2f}" for cell in cells]


def test_points_lie_where_they_were_matched(result: Result) -> None:
    svg = tree(of(result)["points"])
    axes = map_axes(result.previews.area, (10.0, 10.0))
    drawn = np.array(
        [
            (float(dot.get("cx") or 0), float(dot.get("cy") or 0))
            for group in svg.iter("g")
            if (group.get("class") or "").startswith("point")
            for dot in group.iter("circle")
        ]
    )
    expected = axes.place(result.tie_points.reference_xy)
    assert len(drawn) == len(expected)
    apart = np.hypot(*(drawn[:, None] - expected[None]).transpose(2, 0, 1))
    assert apart.min(axis=0).max() < 0.1 and apart.min(axis=1).max() < 0.1


def test_bars_count_the_points(result: Result) -> None:
    svg = tree(of(result)["histogram"])
    kept, out = (next(p for p in svg.iter("path") if p.get("class") == kind) for kind in ("bars", "bars out"))
    for part, some in ((kept, result.tie_points.inlier), (out, ~result.tie_points.inlier)):
        heights = [(float(a) - float(b)) for a, b in re.findall(r"M\S+ (\S+?)V(\S+?)H", part.get("d") or "")]
        tallest = [float(text.text or 0) for text in svg.iter("text") if (text.text or "").isdigit()]
        assert heights and tallest
        count = int((some & (result.tie_points.residual_px <= 1e9)).sum())
        beyond = sum(
            int(found[1]) for text in svg.iter("text") if (found := re.match(r"(\d+) beyond", text.text or ""))
        )
        unit = _per_count(svg)
        assert sum(heights) / unit == pytest.approx(count, abs=beyond + 0.1 * len(heights))


def _per_count(svg: ET.Element) -> float:
    """Units of the drawing per tie point, of the ticks on the left."""
    beside = [
        (float(t.text or 0), float(t.get("y") or 0))
        for t in svg.iter("text")
        if t.get("text-anchor") == "end" and (t.text or "").isdigit()
    ]
    (first, low), (second, high) = beside[0], beside[-1]
    return (low - high) / (second - first)


def test_arrows_point_where_they_say() -> None:
    starts, vectors = np.array([[0.0, 0.0], [10.0, 20.0]]), np.array([[30.0, 0.0], [0.0, -3.0]])
    shapes = arrow_shapes(starts, vectors)
    np.testing.assert_allclose(shapes[:, 3], starts + vectors)
    assert np.ptp(shapes[0, :, 1]) == pytest.approx(7.0) and np.ptp(shapes[1, :, 0]) < 3.0  # a short one is slender


def test_what_is_absent_is_said_and_takes_no_room(build: Callable[..., Result]) -> None:
    still = build("no-go", points=0)
    zero = Displacement(
        np.zeros((2, 220, 300), np.float32),
        np.zeros((220, 300), np.float32),
        np.ones((220, 300), np.float32),
        still.reference.grid,
    )
    identity = AffineTransform.identity()
    found = drawings(replace(still, displacement=zero, affine=identity, correction=identity))
    assert found.error is None and not found.others
    assert [line.partition(":")[0] for line in found.absent] == [
        "No arrows", "No tie points", "No local displacement"
    ]  # fmt: skip
    affine = build()
    straight = drawings(replace(affine, correction=affine.affine))
    assert [each.key for each in straight.others] == ["arrows", "points", "histogram", "scatter"]
    assert straight.absent == ("No local displacement: one shift, rotation, scale and shear explain everything.",)
    nothing = np.full_like(affine.displacement.sigma, np.nan)
    unseen = drawings(replace(affine, displacement=replace(affine.displacement, sigma=nothing)))
    assert unseen.error is None and unseen.absent[0].startswith("No map of the expected error")


def test_all_points_left_out_and_odd_residuals(result: Result) -> None:
    points = result.tie_points
    nobody = replace(result, tie_points=replace(points, inlier=np.zeros(len(points), bool)))
    assert "No residuals: no tie point was kept." in drawings(nobody).absent
    assert "points" in of(nobody) and "histogram" not in of(nobody)
    odd = np.where(np.arange(len(points)) < 9, np.nan, points.residual_px)
    broken = of(replace(result, tie_points=replace(points, residual_px=odd)))
    for drawing in broken.values():
        told = [value for part in tree(drawing).iter() for name, value in part.attrib.items() if name != "href"]
        assert not [value for value in (*told, *words(drawing)) if "nan" in value]


@pytest.mark.parametrize("shape", [(70, 2000), (2000, 70), (64, 64), (1, 1), (3, 900)])
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
    for drawing in of(case).values():
        svg = tree(drawing)
        assert float((svg.get("viewBox") or "").split()[3]) < 800
        for part in svg.iter("text"):
            assert 0 <= float(part.get("x") or 0) <= 480


def test_places_that_were_not_seen_show_the_stripes_beneath(result: Result) -> None:
    def seen_share(case: Result) -> float:
        (image,) = tree(of(case)["error"]).iter("image")
        return float((picture(image.get("href") or "")[..., 3] == 255).mean())

    field, quality = result.displacement, replace(result.quality, cells=())
    seen = replace(result, quality=quality, displacement=replace(field, sigma=np.full_like(field.sigma, 0.6)))
    half = np.where(np.arange(field.sigma.shape[1]) < 150, 0.6, np.nan) * np.ones_like(field.sigma)
    some = replace(seen, displacement=replace(field, sigma=half.astype(np.float32)))
    assert seen_share(seen) == 1.0 and seen_share(some) == 0.5


def test_a_grey_reference_makes_the_same_backdrop_as_one_of_three_equal_bands(result: Result) -> None:
    grey = result.previews.reference[..., 0].copy()
    one, three = (
        replace(result, previews=replace(result.previews, reference=image)) for image in (grey, np.dstack([grey] * 3))
    )
    assert of(one)["points"].svg == of(three)["points"].svg


def test_many_points_stay_small(build: Callable[..., Result]) -> None:
    many = of(build(points=20_000))
    assert len(many["points"].svg) + len(many["scatter"].svg) < 1_200_000


def test_reports_need_no_matplotlib_and_no_pillow() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; sys.modules['PIL'] = None\n"
        "from tests.t70_report.conftest import make_result\n"
        "from somareg.report import build_record, render_report\n"
        "result = make_result()\n"
        "print(len(render_report(result, build_record(result, {}))) > 100_000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "True"


def test_text_and_attributes_are_escaped() -> None:
    drawn = str(element("text", '</svg><script>"&', class_='a"><b', aria_label="x"))
    assert drawn == ('<text class="a&#34;&gt;&lt;b" aria-label="x">&lt;/svg&gt;&lt;script&gt;&#34;&amp;</text>')
    assert [number(value) for value in (0.04, -0.04, 1.0, -2.25, 1234.56)] == ["0", "0", "1", "-2.2", "1234.6"]


def test_colours_are_those_that_are_known_for_it() -> None:
    for name, first, last in (
        ("viridis", (68, 1, 84), (253, 231, 37)),
        ("plasma", (13, 8, 135), (240, 249, 33)),
        ("cividis", (0, 34, 78), (254, 232, 56)),
    ):
        assert np.abs(colours(name)[[0, -1]].astype(int) - (first, last)).max() <= 1
    shown = coloured(np.array([[0.0, 1.0, 7.0, np.nan]]), 1.0, "viridis")
    assert shown[0, :, 3].tolist() == [255, 255, 255, 0] and (shown[0, 1] == shown[0, 2]).all()


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (-0.5, 671.5, 6, [0, 200, 400, 600]),
        (-3.1, 3.1, 4, [-2, 0, 2]),
        (5, 5, 4, []),
        (0, 0.034, 4, [0, 0.01, 0.02, 0.03]),
    ],
)
def test_ticks_are_round(low: float, high: float, most: int, expected: list[float]) -> None:
    assert ticks(low, high, most) == pytest.approx(expected)


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
