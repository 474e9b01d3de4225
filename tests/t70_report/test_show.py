"""A result in a shell, in a notebook and as a figure: one line, a small fragment without script, and panels."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from somareg.errors import ConfigError, UnsupportedError
from somareg.geometry.ground_control import GroundControl
from somareg.report.plot import checkerboard
from somareg.report.show import PICTURES_BYTES, show, small_pictures
from somareg.types import Assessment, Estimate, Grid, Previews, Result, TiePoints

DECISIONS = ("go", "review", "no-go")


class Elements(HTMLParser):
    """Elements with their attributes, and the text of a fragment; every element that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def parts_of(value: Any) -> Iterator[Any]:
    """A dataclass and all that it holds."""
    if is_dataclass(value):
        yield value
        for field in fields(value):
            yield from parts_of(getattr(value, field.name))
    elif isinstance(value, tuple):
        for each in value:
            yield from parts_of(each)


@pytest.fixture
def shown(build: Callable[..., Result]) -> Callable[..., Result]:
    return lambda *args, **changes: replace(build(*args), **{"shower": show, **changes})


@pytest.mark.parametrize("decision", DECISIONS)
def test_one_line_about_each_value(build: Callable[..., Result], decision: str) -> None:
    result = build(decision)
    assessment = Assessment(result.verdict, 4.831, 48.31, (1.0, 2.0), result)
    values = [*parts_of(assessment), *parts_of(result.estimate)]
    assert len({type(value) for value in values}) >= 14
    for value in values:
        line = repr(value)
        assert "\n" not in line and "array(" not in line, line
        assert len(line) < (1500 if type(value).__name__ in ("Quality", "Metres") else 400), line
    assert repr(result).startswith(f"<Result {decision}: s1_vh.tif on s2_rgb.tif, ")
    assert ("expected error" in repr(result)) is (decision != "no-go")
    assert repr(assessment) == f"<Assessment {decision}: s1_vh.tif on s2_rgb.tif, 4.83 px (48.3 m) RMS apart>"
    assert repr(result.moving) == "<Raster s1_vh.tif: 1 band uint8, 300 x 220 px, EPSG:32633>"


def test_lines_of_what_is_not_known(build: Callable[..., Result]) -> None:
    plain = build("go", georeferenced=False, points=0)
    assert repr(plain.reference.grid) == "<Grid 300 x 220 px, not georeferenced>"
    assert repr(plain.tie_points) == "<TiePoints 0 points, 0 inliers>"
    assert repr(replace(plain.estimate, verdict=None)) == (
        "<Estimate 300 x 220 px onto 300 x 220 px, not georeferenced, affine and local, not judged>"
    )
    unknown = np.full(3, np.nan)
    read = TiePoints(np.ones((3, 2)), np.ones((3, 2)), np.ones((3, 2)), unknown, unknown, np.ones(3, bool), unknown)
    assert repr(read) == "<TiePoints 3 points, 3 inliers>"


def test_a_name_stays_on_its_line(build: Callable[..., Result]) -> None:
    result = build()
    for name, told in {
        "folder/a\nb\x1b[31m.tif": "a\\nb\\x1b[31m.tif",
        r"C:\data\sar.tif": "sar.tif",
        "x" * 500 + ".tif": "x" * 20 + "..." + "x" * 21 + ".tif",
        "/": "/",
    }.items():
        assert f"<Raster {told}: 1 band" in repr(replace(result.moving, name=name))


def test_many_control_points_are_counted() -> None:
    rng = np.random.default_rng(0)
    points = tuple((x, y, 10 * x, 5 - 10 * y) for x, y in rng.uniform(0, 99, (400, 2)).tolist())
    control = GroundControl(points, "polynomial", (0.0, 0.0, 99.0, 99.0))
    assert repr(control) == "<GroundControl 400 points, polynomial>"
    grid = Grid(100, 100, control.transform, "EPSG:32633", control)
    assert repr(grid).startswith("<Grid 100 x 100 px, EPSG:32633 by 400 ground control points, pixel 10 x 10")


@pytest.mark.parametrize("decision", DECISIONS)
def test_the_fragment(shown: Callable[..., Result], decision: str) -> None:
    result = shown(decision)
    text = result._repr_html_()
    assert text is not None and len(text) < 300_000
    fragment = Elements(text)
    assert {name for name, _ in fragment.elements}.isdisjoint({"script", "style", "link", "iframe", "html", "body"})
    pictures = [told["src"] or "" for name, told in fragment.elements if name == "img"]
    assert len(pictures) == 4
    for uri in pictures:
        assert uri.startswith("data:image/jpeg;base64,")
        image = cv2.imdecode(np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)
        assert image is not None and image.shape[1] > 200
    assert pictures[0] == pictures[2] and len(set(pictures)) == 3  # the reference below both, before and after above
    assert " ".join(result.verdict.headline.split()) in fragment.text
    assert "89 of 104" in fragment.text and ("0.46 px (4.6 m)" in fragment.text) is (decision == "go")
    assert not re.search(r"\bon\w+=", re.sub(r'src="[^"]*"', "", text))


def test_the_fragment_escapes_what_files_say(shown: Callable[..., Result]) -> None:
    evil = "<script>alert(1)&\"'.tif"
    result = shown()
    verdict = replace(result.verdict, reasons=("<img src=x onerror=alert(1)>",), worst="<b>")
    hostile = replace(result, moving=replace(result.moving, name=evil, path=None), verdict=verdict)
    text = hostile._repr_html_()
    assert text is not None
    for raw in ("<script", "<img src=x", "<b>"):
        assert raw not in text
    assert "&lt;script&gt;" in text and evil in Elements(text).text


@pytest.mark.parametrize("shape", [(1024, 1024, 3), (1024, 1024), (20, 1024, 3), (1024, 7), (1, 1)])
def test_pictures_are_small_whatever_they_show(shown: Callable[..., Result], shape: tuple[int, ...]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (3, *shape), dtype=np.uint8)
    uris = small_pictures(list(noise))
    assert len(uris[0]) + sum(map(len, uris)) <= PICTURES_BYTES
    result = shown()
    case = replace(result, previews=Previews(*noise, step=1.0))
    assert len(case._repr_html_() or "") < 300_000


def test_a_result_made_by_hand_falls_back_to_its_line(result: Result) -> None:
    assert result._repr_html_() is None
    with pytest.raises(RuntimeError, match=r"somareg\.register"):
        result.plot()


@pytest.mark.parametrize("decision", DECISIONS)
def test_panels_in_the_order_that_was_asked(shown: Callable[..., Result], decision: str) -> None:
    result = shown(decision)
    figure = result.plot("error", "arrows", "reference")
    titles = [axes.get_title().split("\n")[0].split(";")[0] for axes in figure.axes]
    assert titles[:3] == ["Expected error", "Displacement", "Reference"]
    assert figure.get_suptitle() == result.verdict.headline
    assert figure.axes[0].get_xlim() == (-0.5, 299.5) and figure.axes[0].get_ylim() == (219.5, -0.5)
    assert len(figure.axes) == (3 if decision == "no-go" else 4)  # the fourth is the key of the error


def test_the_usual_figure_shows_what_lines_up(shown: Callable[..., Result], tmp_path: Path) -> None:
    result = shown()
    figure = result.plot()
    before, after = (axes.get_images()[0].get_array() for axes in figure.axes[:2])
    assert before is not None and after is not None and not np.array_equal(before, after)
    squares = checkerboard(result.previews.reference, result.previews.after)
    np.testing.assert_array_equal(after, squares)
    np.testing.assert_array_equal(squares[:30, :30], result.previews.reference[:30, :30])
    np.testing.assert_array_equal(squares[:30, 40:70, 0], result.previews.after[:30, 40:70])
    figure.savefig(tmp_path / "figure.png")
    png: bytes = figure._repr_png_()  # type: ignore[attr-defined]
    assert png.startswith(b"\x89PNG") and (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_panel(shown: Callable[..., Result]) -> None:
    with pytest.raises(ConfigError, match=r"unknown panel 'befor'.*before"):
        shown().plot("befor")  # type: ignore[arg-type]


def test_a_figure_without_matplotlib_names_the_extra(
    shown: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        UnsupportedError, match=r"needs matplotlib, which is not installed; pip install 'somareg\[plot\]'"
    ):
        shown().plot()


def test_plotting_leaves_pyplot_alone_and_the_fragment_needs_no_matplotlib() -> None:
    code = (
        "import sys; from dataclasses import replace\n"
        "from tests.t70_report.conftest import make_result\n"
        "from somareg.report.show import show\n"
        "result = replace(make_result(), shower=show)\n"
        "result._repr_html_(); print('matplotlib' in sys.modules)\n"
        "result.plot()._repr_png_(); print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["False", "True", "False"]


def test_estimates_are_told_in_a_line(result: Result) -> None:
    estimate: Estimate = result.estimate
    assert repr(estimate) == "<Estimate 300 x 220 px onto 300 x 220 px, EPSG:32633, affine and local, go>"
