"""The report in a real browser: what is seen at once, on narrow and wide screens, in both themes; nothing complains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from somareg.types import Result
from tests.t78_view.browser import Browser, find_chromium

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: sudo apt-get install chromium"),
]
Render = Callable[..., tuple[Result, str]]
VIEW = "document.getElementById('stage').dataset.view"


@pytest.fixture(scope="module", params=["go", "no-go"])
def address(request: pytest.FixtureRequest, rendered: Render, tmp_path_factory: pytest.TempPathFactory) -> str:
    file: Path = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(rendered(request.param)[1], encoding="utf-8")
    return file.as_uri()


@pytest.fixture
def show(address: str) -> Iterator[Callable[..., Browser]]:
    """Opens the report at a size and in a theme; at the end nothing may have been complained of or fetched."""
    opened: list[Browser] = []

    def start(size: tuple[int, int], dark: bool = False) -> Browser:
        assert CHROMIUM is not None
        browser = Browser(CHROMIUM, size, dark)
        opened.append(browser)
        browser.open(address)
        browser.wait("document.getElementById('stage').dataset.ready === 'yes'")
        frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        browser.run(frames)
        return browser

    yield start
    for browser in opened:
        with browser:
            assert browser.complaints == []
            assert all(url == address or url.startswith("data:") for url in browser.requests)


def box(page: Browser, chosen: str) -> dict[str, Any]:
    found: dict[str, Any] = page.run(f"document.querySelector('{chosen}').getBoundingClientRect().toJSON()")
    return found


@pytest.mark.parametrize("size", [(390, 844), (768, 1024), (1280, 800), (2200, 1300)])
def test_no_screen_scrolls_sideways_or_stays_half_empty(show: Callable[..., Browser], size: tuple[int, int]) -> None:
    page = show(size)
    assert page.run("document.documentElement.scrollWidth") <= size[0]
    assert box(page, "main")["width"] > 0.9 * size[0]
    boxes = "[...document.querySelectorAll('.figures figure')].map((figure) => figure.getBoundingClientRect())"
    figures = page.run(f"{boxes}.map((box) => [box.left, box.right])")
    assert min(left for left, _ in figures) < 0.1 * size[0] and max(right for _, right in figures) > 0.85 * size[0]
    wide = page.run("[...document.querySelectorAll('.plot')].map((p) => p.getBoundingClientRect().width)")
    assert min(wide) > 300  # letters of 12 units in 480 stay readable


@pytest.mark.parametrize("size", [(1280, 800), (1366, 768), (1920, 1080), (2200, 1300)])
def test_verdict_and_picture_are_seen_at_once(show: Callable[..., Browser], size: tuple[int, int]) -> None:
    page = show(size)
    stage, verdict = box(page, "#stage"), box(page, ".verdict")
    assert verdict["top"] >= 0 and verdict["bottom"] < size[1]
    assert stage["bottom"] <= size[1] and stage["height"] > 0.45 * size[1] and stage["left"] > verdict["right"]


def test_one_drawing_serves_both_themes(show: Callable[..., Browser]) -> None:
    colours = []
    for dark in (False, True):
        page = show((1280, 800), dark)
        of = "((chosen, what) => getComputedStyle(document.querySelector(chosen))[what])"
        colours.append([page.run(f"{of}('{chosen}', '{what}')") for chosen, what in (
            ("body", "backgroundColor"), ("#figure-scatter .axes text", "fill"), ("#figure-histogram .bars", "fill"),
            ("#figure-arrows .arrow", "fill"),
        )])  # fmt: skip
        count = page.run(
            "[...document.querySelectorAll('figure[id^=figure-]')].map((f) => f.querySelectorAll('svg.plot').length)"
        )
        assert set(count) == {1}
    light, dark_ones = colours
    assert all(one != other for one, other in zip(light[:3], dark_ones[:3], strict=True))
    assert light[3] == dark_ones[3]  # it lies on a picture


def test_views_pairs_and_keys(show: Callable[..., Browser]) -> None:
    page = show((1280, 800))
    stage = box(page, "#stage")
    rows, columns = slice(int(stage["top"]), int(stage["bottom"])), slice(int(stage["left"]), int(stage["right"]))

    def look() -> np.ndarray:
        page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return page.picture()[rows, columns].astype(int)

    seen = {"swipe": look()}
    for mode in ("checker", "mix"):
        page.run(f"document.querySelector('[value={mode}]').click()")
        seen[mode] = look()
        assert str(page.run(VIEW)).startswith(f"{mode} reference after")
    assert all(np.abs(seen[a] - seen[b]).mean() > 3 for a, b in (("swipe", "checker"), ("checker", "mix")))
    page.run("document.querySelector('[value=swipe]').click()")
    page.run("document.querySelector('[value=\"reference,before\"]').click()")
    half, changed = seen["swipe"].shape[1] // 2, np.abs(look() - seen["swipe"]).max(axis=2)
    assert (changed[:, half + 30 :] > 24).mean() > 0.05 and (changed[70:-90, : half - 30] > 24).mean() < 0.001
    page.run("document.getElementById('canvas').focus()")
    for key, view in (
        ("2", "checker reference before 35"),
        ("]", "checker reference before 37"),
        (" ", "checker before reference 37"),
    ):
        page.key(key)
        page.wait(f"{VIEW} === '{view}'")
    page.key("3")
    page.wait(f"{VIEW}.startsWith('blink')")
    tag = "document.getElementById('tag-left').textContent"
    for name in ("Reference", "Moving, before", "Reference"):
        page.wait(f"{tag} === '{name}'", 10)


def test_the_divider_is_dragged_and_the_picture_moved(show: Callable[..., Browser]) -> None:
    page = show((1280, 800))
    stage = box(page, "#stage")
    x, y = stage["left"] + stage["width"] / 2, stage["top"] + stage["height"] / 2
    page.drag((x, y), (x + 0.2 * stage["width"], y))
    page.wait(f"{VIEW} === 'swipe reference after 70'")
    zoom = "parseInt(document.getElementById('zoom').textContent)"
    before = page.run(zoom)
    page.run("document.getElementById('zoom-in').click()")
    page.wait(f"{zoom} > {before}")
    page.run("document.getElementById('actual').click()")
    page.wait(f"{zoom} === 100")
    page.run("document.getElementById('fit').click()")
    page.wait(f"{zoom} === {before}")
    links = page.run("document.querySelectorAll('a.closeup').length")
    if links:
        page.run("document.querySelector('a.closeup').click()")
        page.wait(f"{zoom} > {before}")
        assert box(page, "#stage")["bottom"] <= 800  # it leads to the comparison
