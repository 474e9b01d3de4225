"""The page in a real browser: what is seen changes as it should, and nothing complains."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from .browser import Browser, find_chromium
from .conftest import Made

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: sudo apt-get install chromium"),
]
QUIET = "for (const id of ['show-arrows']) document.getElementById(id).click()"


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with Browser(CHROMIUM) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Browser]:
    """A fresh page with everything drawn; at the end nothing may have been complained of or fetched elsewhere."""
    browser.open(address)
    browser.wait("Number(document.getElementById('stage').dataset.drawn) > 0")
    yield browser
    assert browser.complaints == []
    assert all(url.startswith((address, "data:")) for url in browser.requests)


def stage(page: Browser) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the map on the screen."""
    box = page.run(
        "(({left, top, right, bottom}) => [left, top, right, bottom])"
        "(document.getElementById('stage').getBoundingClientRect())"
    )
    left, top, right, bottom = (round(v) for v in box)
    return left, top, right, bottom


def look(page: Browser) -> np.ndarray:
    """The map once it holds still: tiles come one after another."""
    left, top, right, bottom = stage(page)
    seen, deadline = None, time.monotonic() + 60
    while True:
        picture = page.picture()[top:bottom, left:right].astype(int)
        if seen is not None and (np.array_equal(seen, picture) or time.monotonic() > deadline):
            return picture
        seen = picture
        page.run("new Promise((done) => setTimeout(done, 300))")


def differs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Columns (share 0-1 of their pixels) that changed visibly."""
    return np.asarray((np.abs(one - other).max(axis=-1) > 24).mean(axis=0))


def bare(page: Browser) -> None:
    """The images alone: what is shown from the start is hidden."""
    for name in ("arrows", "error"):
        click = f"document.getElementById('show-{name}').click()"
        page.settle(lambda click=click: page.run(click))  # type: ignore[misc]


def test_the_swipe_moves_the_border_between_the_images(page: Browser) -> None:
    bare(page)
    left, top, right, bottom = stage(page)
    y, middle = (top + bottom) / 2, (left + right) / 2
    before = look(page)
    page.settle(lambda: page.drag((middle, y), (middle + 160, y)))
    after = look(page)
    assert page.run("document.getElementById('divider').getAttribute('aria-valuenow')") not in (None, "50")
    changed = differs(before, after)
    half = (right - left) // 2
    assert changed[half + 10 : half + 140].mean() > 0.3  # there the reference now shows
    assert changed[: half - 30].max() < 0.02
    assert changed[half + 190 :].max() < 0.02


def test_views_show_different_pictures(page: Browser) -> None:
    bare(page)
    seen = {"swipe": look(page)}
    for mode in ("checker", "mix"):
        page.settle(lambda mode=mode: page.run(f"document.querySelector('[value={mode}]').click()"))  # type: ignore[misc]
        seen[mode] = look(page)
    for one, other in (("swipe", "checker"), ("checker", "mix"), ("swipe", "mix")):
        assert differs(seen[one], seen[other]).mean() > 0.1
    assert str(page.run("document.getElementById('stage').dataset.view")).startswith("mix reference after")


def test_blink_turns_by_itself_and_pauses(page: Browser) -> None:
    bare(page)
    page.settle(lambda: page.run("document.querySelector('[value=blink]').click()"))
    tag = "document.getElementById('tag-left').textContent"
    for name in ("Reference", "Moving, aligned", "Reference"):
        page.wait(f"{tag} === '{name}'", 10)
    page.run("document.getElementById('play').click()")
    assert page.run("document.getElementById('play').textContent") == "Play"
    held = page.run(tag)
    page.run("new Promise((done) => setTimeout(done, 1500))")
    assert page.run(tag) == held


def test_the_error_map_is_shown_from_the_start(page: Browser) -> None:
    assert page.run("document.getElementById('show-error').checked") is True
    assert page.run("document.getElementById('legend-error').hidden") is False
    assert " px" in str(page.run("document.querySelector('#legend-error .high').textContent"))
    with_it = look(page)
    page.settle(lambda: page.run("document.getElementById('show-error').click()"))
    assert differs(with_it, look(page)).mean() > 0.05


def test_a_place_to_look_at_leads_there(page: Browser) -> None:
    bare(page)
    far = look(page)
    assert int(str(page.run("document.querySelectorAll('button.place').length"))) > 2
    page.settle(lambda: page.run("document.querySelector('button.place').click()"))
    assert differs(far, look(page)).mean() > 0.2
    assert int(str(page.run("parseInt(document.getElementById('zoom').textContent)"))) >= 200


@pytest.mark.parametrize("layer", ["arrows", "points", "error", "certainty", "local", "residual"])
def test_layers_toggle(page: Browser, layer: str) -> None:
    bare(page)
    without = look(page)
    click = f"document.getElementById('show-{layer}').click()"
    page.settle(lambda: page.run(click))
    if layer in ("arrows", "points"):
        page.wait(f"Number(document.getElementById('stage').dataset.{layer}) > 4")
        page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    with_it = look(page)
    assert differs(without, with_it).mean() > (0.005 if layer in ("arrows", "points") else 0.05)
    page.settle(lambda: page.run(click))
    assert differs(without, look(page)).max() < 0.02


def test_other_images_can_be_chosen_and_swapped(page: Browser) -> None:
    bare(page)
    first = look(page)
    page.settle(lambda: page.run("document.querySelector('[value=\"before,after\"]').click()"))
    divider = float(page.run("parseFloat(document.getElementById('divider').style.left) / 100"))
    half = round(first.shape[1] * divider)
    changed = differs(first, look(page))
    assert changed[: half - 5].mean() > 0.1 and changed[half + 25 :].max() < 0.02
    page.settle(lambda: page.run("document.getElementById('swap').click()"))
    assert str(page.run("document.getElementById('stage').dataset.view")).startswith("swipe after before")


def test_a_click_on_a_tie_point_shows_its_figures(page: Browser, georeferenced: Made) -> None:
    page.settle(lambda: page.run("document.getElementById('show-points').click()"))
    page.wait("Number(document.getElementById('stage').dataset.points) > 4")
    ties, (left, top, right, bottom) = georeferenced.result.tie_points, stage(page)
    scale = min(right - left - 16, bottom - top - 16) / 300
    centre = np.array([(left + right) / 2, (top + bottom) / 2])
    number = int(np.argmin(np.abs(ties.reference_xy - 110).sum(axis=1)))
    x, y = centre + (ties.reference_xy[number] + 0.5 - 150) * scale
    page.click(float(x), float(y))
    page.wait("document.getElementById('popup-rows')?.children.length === 7")
    text = page.run("document.getElementById('popup').textContent")
    assert f"{ties.reference_xy[number][0]:.1f}, {ties.reference_xy[number][1]:.1f}" in text
    page.key("Escape")
    page.wait(
        "!document.getElementById('popup') || document.getElementById('popup').getBoundingClientRect().width === 0"
    )


def test_zoom_fetches_finer_tiles_and_keys_work(page: Browser) -> None:
    page.requests.clear()
    page.settle(lambda: [page.run("document.getElementById('zoom-in').click()") for _ in range(2)])
    page.wait("parseInt(document.getElementById('zoom').textContent) > 250")
    page.run("document.getElementById('map').focus()")
    page.key("2")
    page.wait("document.getElementById('stage').dataset.view.startsWith('checker')")
    page.key("]")
    page.wait("document.getElementById('stage').dataset.view.endsWith(' 37')")
    page.key("0")
    page.wait("parseInt(document.getElementById('zoom').textContent) < 250")


def test_the_verdict_is_there(page: Browser, georeferenced: Made) -> None:
    text = page.run("document.getElementById('panel').textContent")
    assert georeferenced.result.verdict.reasons[0][1:] in text
    assert "Predicted error after" in text and "Inliers" in text
