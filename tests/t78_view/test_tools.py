"""What helps to find and show a fault, in a real browser: edges, loupe, worst places, links; on every screen."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from somareg.report.edges import EDGE
from somareg.view import Scene, find_folder
from somareg.view.pyramid import Area

from .browser import Browser, find_chromium
from .conftest import SIDE, Made

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: sudo apt-get install chromium"),
]
LINK = "document.getElementById('stage').dataset.link"
CENTRE = f"({LINK} ?? 'at=').match(/at=([^&]*)/)[1]"


@pytest.fixture
def show(address: str) -> Iterator[Callable[..., Browser]]:
    """Opens the page at a size and in a theme; at the end nothing may have been complained of or fetched elsewhere."""
    opened: list[Browser] = []

    def start(size: tuple[int, int] = (1280, 800), dark: bool = False, link: str = "") -> Browser:
        assert CHROMIUM is not None
        browser = Browser(CHROMIUM, size, dark)
        opened.append(browser)
        browser.open(address + link)
        browser.wait("Number(document.getElementById('stage').dataset.drawn) > 0")
        return browser

    yield start
    for browser in opened:
        with browser:
            assert browser.complaints == []
            assert all(url.startswith((address, "data:")) for url in browser.requests)


def click(page: Browser, name: str) -> None:
    page.run(f"document.getElementById('{name}').click()")


def box(page: Browser, chosen: str) -> dict[str, float]:
    found: dict[str, float] = page.run(f"document.querySelector('{chosen}').getBoundingClientRect().toJSON()")
    return found


def held(page: Browser) -> np.ndarray:
    """The screen once it holds still (h, w, 3) BGR."""
    seen, deadline = None, time.monotonic() + 30
    while True:
        picture = page.picture().astype(int)
        if seen is not None and (np.array_equal(seen, picture) or time.monotonic() > deadline):
            return picture
        seen = picture
        page.run("new Promise((done) => setTimeout(done, 250))")


def is_inside(inner: dict[str, float], outer: dict[str, float]) -> bool:
    return (
        inner["left"] >= outer["left"]
        and inner["right"] <= outer["right"]
        and inner["top"] >= outer["top"]
        and inner["bottom"] <= outer["bottom"]
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [(390, 844), (768, 1024), (1280, 800), (2200, 1300)])
def test_no_screen_scrolls_sideways_or_stays_half_empty(
    show: Callable[..., Browser], size: tuple[int, int], dark: bool
) -> None:
    page = show(size, dark)
    assert page.run("document.documentElement.scrollWidth") <= size[0]
    stage, panel, tools = box(page, "#stage"), box(page, "#panel"), box(page, ".tools")
    assert tools["left"] >= 0 and tools["right"] <= size[0]
    assert not page.run("[...document.querySelectorAll('button')].some((b) => b.scrollWidth > b.clientWidth + 1)")
    if size[0] >= 1280:
        assert tools["height"] < 60  # one row
        assert panel["right"] == size[0] and stage["left"] == 0 and abs(stage["right"] - panel["left"]) <= 1
        assert stage["bottom"] == panel["bottom"] == size[1]
    if size[0] > 1700:  # no wide empty rim beside a square image: words stand in two columns
        assert stage["width"] < 1.3 * stage["height"]
        first, second = page.run("[...document.querySelectorAll('.side')].map((e) => e.getBoundingClientRect().left)")
        assert second > first + 300
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is not dark


def test_edges_are_drawn_over_the_other_image_only(show: Callable[..., Browser]) -> None:
    page = show()
    for name in ("show-arrows", "show-error"):
        click(page, name)
    without = held(page)
    page.settle(lambda: click(page, "show-edges-after"))
    with_it = held(page)
    stage = box(page, "#stage")
    rows, middle = slice(int(stage["top"]) + 60, int(stage["bottom"]) - 70), int(stage["left"] + stage["width"] / 2)
    near = np.abs(with_it - np.array(EDGE[::-1])).max(axis=2) < 60
    changed = np.abs(with_it - without).max(axis=2) > 24
    left, right = slice(0, middle - 30), slice(middle + 30, int(stage["right"]))
    assert near[rows, left].mean() > 0.01 and (changed & near)[rows, left].sum() > 0.9 * near[rows, left].sum()
    assert changed[rows, right].mean() < 0.001
    # Before and after: neither is the reference, so that edges are seen on both.
    page.settle(lambda: page.run("document.querySelector('[value=\"before,after\"]').click()"))
    near = np.abs(held(page) - np.array(EDGE[::-1])).max(axis=2) < 60
    assert near[rows, left].mean() > 0.01 and near[rows, right].mean() > 0.01


def wait_for(page: Browser, x: float, y: float) -> None:
    """Until a reference pixel lies straight above the middle of the map, beside the handle of the divider."""
    across = f"Math.abs({CENTRE}.split(',')[0] - {x + 0.5}) < 0.02"
    down, height = f"({CENTRE}.split(',')[1] - {y + 0.5})", box(page, "#stage")["height"]
    page.wait(f"{across} && {down} > 0 && {down} < {0.1 * height / 2 + 1}")


def test_next_worst_place_leads_through_the_error_map(show: Callable[..., Browser], georeferenced: Made) -> None:
    page = show()
    cells = sorted((c for c in georeferenced.result.quality.cells if c.is_seen), key=lambda c: -c.error_px)
    told = "document.getElementById('told-words').textContent"
    assert page.run("document.getElementById('told').hidden") is True
    click(page, "worst")
    for number, step in ((0, lambda: page.key("n")), (1, lambda: page.key("N")), (0, lambda: page.key("N"))):
        page.wait(f"{told}.startsWith('Worst place {number + 1} of {len(cells)}: ')")
        words = str(page.run(told))
        assert f"expected error {cells[number].error_px:.2f} px (" in words and words.endswith(" m)")
        wait_for(page, cells[number].x, cells[number].y)
        step()
    page.wait(f"{told}.startsWith('Worst place {len(cells)} of {len(cells)}: ')")
    page.key("Escape")
    page.wait("document.getElementById('told').hidden")
    click_place = "document.querySelectorAll('button.place')[2].click()"
    page.run(click_place)
    place = page.run("({...document.querySelectorAll('button.place')[2].dataset})")
    assert page.run(told) == place["words"]
    wait_for(page, float(place["x"]), float(place["y"]))


def picture_of(page: Browser, name: str) -> np.ndarray:
    """(h, w, 3) RGB of a picture of the loupe."""
    script = f"document.querySelector('#loupe [data-name={name}] canvas').toDataURL()"
    data = base64.b64decode(str(page.run(script)).partition(",")[2])
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))[..., ::-1]


def test_the_loupe_shows_the_same_ground_of_both_images(show: Callable[..., Browser], georeferenced: Made) -> None:
    page = show()
    click(page, "show-loupe")
    stage = box(page, "#stage")
    page.mouse("mouseMoved", stage["left"] + 0.45 * stage["width"], stage["top"] + 0.4 * stage["height"])
    at = "document.getElementById('loupe').dataset.at"
    page.wait(f"{at} && {at} !== '{SIDE / 2:.1f} {SIDE / 2:.1f}'")
    held(page)
    x, y = map(float, str(page.run(at)).split())
    assert page.run("document.querySelector('#loupe [data-name=before]').hidden") is True
    scale = max(3.0, 2 * float(page.run("parseInt(document.getElementById('zoom').textContent)")) / 100)
    with Scene(find_folder(georeferenced.folder)) as scene:
        for name in ("reference", "after"):
            shown = picture_of(page, name).mean(axis=2)
            half = len(shown) / 2 / scale
            area = Area(x - half, y - half, 1 / scale, len(shown), len(shown))
            image, _ = scene.tile(name, Area(0, 0, 1, SIDE, SIDE))
            grey = image.mean(axis=2) if image.ndim == 3 else image
            u, v = np.clip(np.rint(np.moveaxis(area.points, -1, 0)), 0, SIDE - 1).astype(int)
            agree = np.corrcoef(shown.ravel(), grey[v, u].ravel())[0, 1]
            assert agree > 0.97, name
    page.key("b")
    page.wait("!document.querySelector('#loupe [data-name=before]').hidden")
    page.wait("document.getElementById('loupe').getBoundingClientRect().width > 400")


@pytest.mark.parametrize("size", [(390, 844), (1280, 800)])
def test_loupe_and_popup_never_leave_the_map(
    show: Callable[..., Browser], size: tuple[int, int], georeferenced: Made
) -> None:
    page = show(size)
    click(page, "show-loupe")
    click(page, "loupe-before")
    stage = box(page, "#stage")
    for x, y in ((0.02, 0.02), (0.98, 0.05), (0.02, 0.97), (0.98, 0.98), (0.5, 0.5)):
        page.mouse("mouseMoved", stage["left"] + x * stage["width"], stage["top"] + y * stage["height"])
        held(page)
        assert is_inside(box(page, "#loupe"), stage)
    click(page, "show-loupe")
    click(page, "show-points")
    page.wait("Number(document.getElementById('stage').dataset.points) > 4")
    ties = georeferenced.result.tie_points.reference_xy
    scale = min(stage["width"] - 16, stage["height"] - 16) / SIDE
    middle = stage["left"] + stage["width"] / 2, stage["top"] + stage["height"] / 2
    for corner in ((0, 0), (SIDE, 0), (0, SIDE), (SIDE, SIDE)):
        nearest = ties[int(np.argmin(np.abs(ties - corner).sum(axis=1)))]
        x, y = (m + (place + 0.5 - SIDE / 2) * scale for m, place in zip(middle, nearest, strict=True))
        page.run("new Promise((done) => setTimeout(done, 500))")  # two clicks in a moment would zoom
        centre = page.run(CENTRE)
        page.click(x, y)
        page.wait("!document.getElementById('popup').hidden && document.querySelectorAll('#popup tr').length === 7")
        popup = box(page, "#popup")
        assert is_inside(popup, stage) and popup["width"] > 200
        assert page.run(CENTRE) == centre  # the map stays where the reader put it
    # It goes with its point, and away where the point is out of sight.
    click(page, "actual")
    page.run("document.getElementById('map').focus()")
    for _ in range(4):
        for _ in range(3):
            click(page, "zoom-in")
            page.run("new Promise((done) => setTimeout(done, 200))")
        if page.run("document.getElementById('popup').hidden"):
            break
    assert page.run("document.getElementById('popup').hidden") is True
    click(page, "fit")
    page.wait("!document.getElementById('popup').hidden")


def state(page: Browser) -> dict[str, Any]:
    """What is chosen, as the controls say."""
    chosen: dict[str, Any] = page.run(
        "({view: document.getElementById('stage').dataset.view, zoom: document.getElementById('zoom').textContent,"
        " layers: [...document.querySelectorAll('[data-layer]:checked')].map((e) => e.dataset.layer),"
        " pair: document.querySelector('[name=pair]:checked').value, opacity: document.getElementById('opacity').value,"
        " loupe: document.getElementById('loupe').hidden})"
    )
    return chosen


def test_a_link_brings_the_same_view_back(show: Callable[..., Browser], address: str) -> None:
    page = show()
    page.run("document.querySelector('[value=checker]').click()")
    page.run("document.querySelector('[value=\"reference,before\"]').click()")
    click(page, "swap")
    for name in ("show-edges-before", "show-arrows", "show-points", "show-loupe", "loupe-before"):
        click(page, name)
    page.run(
        "(o => { o.value = 80; o.dispatchEvent(new Event('input')); o.dispatchEvent(new Event('change')); })"
        "(document.getElementById('opacity'))"
    )
    click(page, "worst")
    page.wait(f"{LINK}?.includes('loupe=on') && {LINK}.includes('opacity=80') && {LINK}.includes('zoom=')")
    page.run("new Promise((done) => setTimeout(done, 900))")
    click(page, "link")
    link = str(page.run(LINK))
    assert page.run("location.href") == address + link
    assert "view=checker," in link and "pair=before,reference" in link
    assert "layers=edges-before,points,error,loupe-before" in link
    first = state(page)
    other = show(link=link)
    other.wait(f"{LINK} === '{link}'")
    assert state(other) == first
    # An address that is typed into the open page is read, too.
    other.run("location.hash = 'view=mix,30&layers=arrows&loupe=off'")
    other.wait("document.getElementById('stage').dataset.view === 'mix before reference 30'")
    assert state(other)["layers"] == ["arrows"] and state(other)["loupe"] is True


@pytest.mark.parametrize(
    "link",
    [
        "#panel",
        "#at=1e999,nan&zoom=-5&view=nothing,1&pair=a,b&layers=constructor&opacity=x&loupe=2",
        "#at=&zoom=0&view=swipe,&layers=%00<script>&pair=reference",
        "#=&&=&at",
    ],
)
def test_a_link_of_nonsense_changes_nothing(show: Callable[..., Browser], link: str) -> None:
    page = show(link=link)
    page.wait(f"{LINK}?.includes('view=swipe,50')")
    assert state(page)["pair"] == "reference,after" and state(page)["loupe"] is True
    assert f"at={SIDE // 2},{SIDE // 2}" in page.run(LINK)


def test_keys_are_told_and_do_what_they_say(show: Callable[..., Browser]) -> None:
    page = show()
    page.key("?")
    page.wait("document.getElementById('keys').open")
    assert is_inside(box(page, "#keys"), {"left": 0, "top": 0, "right": 1280, "bottom": 800})
    page.key("e")  # belongs to the open dialog
    assert page.run("document.getElementById('show-edges-after').checked") is False
    page.key("Escape")
    page.wait("!document.getElementById('keys').open")
    # A control that was used last keeps only keys of its own.
    page.run("document.querySelector('[value=swipe]').focus()")
    for key, name in (("e", "edges-after"), ("E", "edges-before"), ("x", "error"), ("a", "arrows"), ("p", "points")):
        before = page.run(f"document.getElementById('show-{name}').checked")
        page.key(key)
        assert page.run(f"document.getElementById('show-{name}').checked") is not before
    page.key("l")
    assert page.run("document.getElementById('loupe').hidden") is False
    page.key("c")
    page.wait(f"location.hash && location.hash === {LINK}")
    zoom = "parseInt(document.getElementById('zoom').textContent)"
    fitted = page.run(zoom)
    page.key("+")
    page.wait(f"{zoom} > 1.4 * {fitted}")
    page.key("-")  # while the first step still runs, maybe: steps add up
    page.wait(f"Math.abs({zoom} - {fitted}) < 2")
    for key in "++--":
        page.key(key)
    page.wait(f"Math.abs({zoom} - {fitted}) < 2")
    page.run("document.getElementById('map').focus()")
    for key, sign in (("ArrowRight", 1), ("ArrowLeft", -1)):
        before = float(page.run(CENTRE).split(",")[0])
        page.key(key)
        page.wait(f"{sign} * ({CENTRE}.split(',')[0] - {before}) > 20")
