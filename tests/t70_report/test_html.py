"""report.html: one file that asks the network for nothing, escapes what it is given and shows every number."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from somareg.errors import OutputError
from somareg.report import build_record, load_report, render_report, write_report
from somareg.report.words import length
from somareg.types import Decision, Previews, Result
from somareg.types.words import percent, pixels

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'{{7*7}}\n%s.tif"


class Page(HTMLParser):
    """Tags, attributes and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.inside: list[str] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag in self.raw:
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.raw[self.inside[-1]].append(data)
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def policy(self) -> str:
        return next(a["content"] for t, a in self.tags if a.get("http-equiv") == "Content-Security-Policy")


def page_of(result: Result, outputs: dict[str, Path] | None = None) -> Page:
    return Page(render_report(result, build_record(result, outputs or {})))


Render = Callable[..., tuple[Result, str]]


def test_nothing_is_fetched(rendered: Render) -> None:
    page = Page(rendered()[1])
    links = [a[k] for _, a in page.tags for k in ("src", "srcset", "href", "action", "data", "poster") if k in a]
    assert len(links) > 12
    assert all(link.startswith("data:") or link.startswith("#") for link in links)
    assert not any(tag in {"iframe", "object", "embed", "base", "form"} for tag, _ in page.tags)
    assert "@import" not in "".join(page.raw["style"]) and "url(" not in "".join(page.raw["style"])
    assert {value[:5] for _, a in page.tags for value in a.values() if "url(" in value} == {"url(#"}
    for word in ("fetch(", "XMLHttpRequest", "WebSocket", "sendBeacon", "eval(", "innerHTML", "import("):
        assert word not in "".join(page.raw["script"])


def test_policy_holds_the_hashes_of_what_is_in_the_page(rendered: Render) -> None:
    page = Page(rendered()[1])
    assert "default-src 'none'" in page.policy
    assert "unsafe" not in page.policy
    for kind in ("script", "style"):
        (text,) = page.raw[kind]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in page.policy


def test_no_inline_styles_or_handlers_which_the_policy_would_block(rendered: Render) -> None:
    for _, attributes in Page(rendered()[1]).tags:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]


def test_policy_comes_before_anything_it_governs(rendered: Render) -> None:
    tags = [a.get("http-equiv") or t for t, a in Page(rendered()[1]).tags]
    assert tags.index("Content-Security-Policy") < min(tags.index(t) for t in ("link", "style", "script", "img"))


def test_hostile_names_stay_text(result: Result) -> None:
    nasty = replace(
        result,
        moving=replace(result.moving, name=HOSTILE, path=Path(HOSTILE), descriptions=(HOSTILE,)),
        verdict=replace(result.verdict, reasons=(HOSTILE,)),
        notes=(HOSTILE, "</script></style><h1>x"),
        settings={HOSTILE: HOSTILE},
        timings={HOSTILE: 1.0},
    )
    page = page_of(nasty)
    assert [t for t, _ in page.tags].count("script") == 1
    assert not [a for t, a in page.tags if t == "img" and a["src"] == "x"]
    assert [t for t, _ in page.tags].count("h1") == 1
    assert "alert(1)" not in "".join(page.raw["script"])
    assert page.text.count("<script>alert(1)</script>") >= 4
    assert "{{7*7}}" in page.text


@pytest.mark.parametrize("decision", ["go", "review", "no-go"])
def test_where_and_by_how_much_unless_nothing_is_claimed(rendered: Render, decision: Decision) -> None:
    result, text = rendered(decision, True)
    page = Page(text)
    pictures = [a for t, a in page.tags if t == "a" and a.get("class") == "closeup"]
    if decision == "no-go":
        assert not pictures and result.quality.worst_place == ""
        assert "Where, and by how much" not in page.text and "Expected error" not in page.text
        return
    assert page.text.count(result.quality.worst_place) == 1  # at the end of the headline
    assert [(float(a["data-x"]), float(a["data-span"])) for a in pictures] == [
        (250.0, 96.0),
        (150.0, 96.0),
        (20.0, 96.0),
    ]
    predicted = result.predicted_rmse_px
    assert f"The south-east corner, expected error {pixels(1.3 * predicted)}" in page.text
    assert "The north side, a tie point 1.92 px (19.2 m) off" in page.text
    order = ["verdict-title", "compare-title", "figure-error", "look-title", "figure-arrows", "checks-title"]
    places = [text.index(f'id="{name}"') for name in order]
    assert places == sorted(places)


def test_one_ce90_everywhere(rendered: Render) -> None:
    result, text = rendered()
    expected = pixels(result.quality.predicted_ce90_px)
    told = re.findall(r"CE90\D{0,9}?:? ([\d.]+ px)", Page(text).text)
    assert len(told) == 3 and set(told) == {expected}  # at the top, in the checks, in the drawing


def test_a_page_of_a_result_without_places_has_no_pictures_of_them(result: Result) -> None:
    page = page_of(replace(result, previews=replace(result.previews, closeups=())))
    assert "Look here first" not in page.text and result.quality.worst_place in page.text


@pytest.mark.parametrize("decision", ["go", "review", "no-go"])
@pytest.mark.parametrize("georeferenced", [True, False])
def test_every_number_is_on_the_page(rendered: Render, decision: Decision, georeferenced: bool) -> None:
    result, text = rendered(decision, georeferenced)
    record, page = build_record(result, {}), Page(text)
    figures = record.figures
    for value in (figures.misregistration_before, figures.predicted_rmse, figures.predicted_ce90):
        assert pixels(value.px) in page.text
    for value in (figures.local_rms, record.affine.shift_x, record.affine.shift_y):
        assert length(value) in page.text
    if georeferenced:
        assert "(48.3 m)" in page.text or "48.3 m" in page.text
    assert percent(result.verdict.probability) in page.text
    quality = result.quality
    for shown in ("84 %", "71 %", "17.31", "0.84", "87 %", "0.31 px", "0.28 px", "+0.088", "0.141 to 0.229", "95 %"):
        assert shown in page.text
    assert f"{quality.residual_median_px:.2f} px" in page.text
    for reason in result.verdict.reasons:
        assert reason[1:] in page.text
    for note in result.notes:
        assert note in page.text
    assert "ab" * 32 in page.text and "cd" * 32 in page.text
    assert f"{record.tie_points.inliers} of 104" in page.text


@pytest.mark.parametrize(
    ("decision", "words"),
    [("go", "Ready to use"), ("review", "Look before you use it"), ("no-go", "Do not use it")],
)
def test_verdict_is_said_in_words_and_not_by_colour_alone(rendered: Render, decision: Decision, words: str) -> None:
    page = Page(rendered(decision)[1])
    assert words in page.text
    assert rendered(decision)[0].verdict.headline in page.text
    assert f"Verdict: {decision.capitalize()}" in page.text
    assert [a for t, a in page.tags if t == "section" and a.get("class") == f"verdict {decision}"]


def test_no_go_claims_no_error_and_no_certainty(rendered: Render) -> None:
    page = Page(rendered("no-go")[1])
    assert "the error is not known" in page.text
    assert "All are pale: no reliable alignment was found." in page.text
    for claim in (
        "Pale arrows have no match",
        "round and centred",
        "usually wider than the predicted error",
        "explains everything",
    ):
        assert claim not in page.text
    assert not [a for t, a in page.tags if t == "img" and "expected error" in a["alt"]]
    assert not [a for _, a in page.tags if "expected error" in a.get("aria-label", "")]


def test_no_go_with_pictures_of_places_shows_none(result: Result) -> None:
    """Whoever makes a no-go of another verdict."""
    page = page_of(replace(result, verdict=replace(result.verdict, decision="no-go")))
    assert not [a for t, a in page.tags if t == "a" and a.get("class") == "closeup"]
    assert result.quality.worst_place not in page.text


def test_next_steps_follow_what_was_written(build: Callable[..., Result], outputs: dict[str, Path]) -> None:
    assert "aligned.tif was not written" in page_of(build("no-go")).text
    forced = page_of(build("no-go"), outputs).text
    assert "aligned.tif was written because it was asked for" in forced
    assert outputs["aligned.tif"].name in forced and "1.1 kB" in forced


def test_images_have_alternatives_and_controls_have_names(rendered: Render) -> None:
    page = Page(rendered()[1])
    assert all(a.get("alt") for t, a in page.tags if t == "img")
    drawings = [a for t, a in page.tags if t == "svg" and a.get("role") == "img"]
    assert len(drawings) == 6 and all(a["aria-label"] for a in drawings)
    ids = {a["id"] for _, a in page.tags if "id" in a}
    references = [
        word
        for _, a in page.tags
        for k in ("aria-labelledby", "aria-describedby", "for")
        for word in a.get(k, "").split()
    ]
    assert set(references) <= ids
    assert len(ids) == sum("id" in a for _, a in page.tags)
    headings = [int(t[1]) for t, _ in page.tags if re.fullmatch(r"h[1-6]", t)]
    assert headings[0] == 1 and all(b - a <= 1 for a, b in pairwise(headings))


def test_pictures_decode_to_what_went_in(rendered: Render) -> None:
    import cv2

    result, text = rendered()
    uri = next(a["src"] for t, a in Page(text).tags if a.get("id") == "picture-after")
    assert uri.startswith("data:image/png")
    pixels_in = cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(pixels_in, result.previews.after)
    uri = next(a["src"] for t, a in Page(text).tags if a.get("id") == "picture-reference")
    bgr = cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(bgr[..., ::-1], result.previews.reference)


def test_page_stays_small_with_large_noisy_previews(build: Callable[..., Result]) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (1800, 1800), dtype=np.uint8)
    colour = rng.integers(0, 256, (1800, 1800, 3), dtype=np.uint8)
    result = build(previews=Previews(colour, noise, noise, 4.0))
    text = render_report(result, build_record(result, {}))
    assert len(text) < 6_000_000
    assert text.count("data:image/jpeg") == 3 + 2  # and beneath arrows and points


def test_unmeasured_values_are_said_so(build: Callable[..., Result]) -> None:
    result = build("no-go", points=0)
    page = page_of(
        replace(result, quality=replace(result.quality, split_half_px=float("nan"), predicted_ce90_px=float("nan")))
    )
    assert "not measured" in page.text
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)
    told = [value for _, a in page.tags for name, value in a.items() if name not in ("href", "src")]
    assert not [value for value in told if re.search(r"\bnan\b", value, re.IGNORECASE)]


def test_write_report_writes_both_files(result: Result, outputs: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.mkdir()
    write_report(result, folder, outputs)
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]
    record = load_report(folder / "report.json")
    assert set(record.outputs) == set(outputs)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert html.escape(record.outputs["aligned.tif"].sha256) in text


def test_write_report_names_the_folder_that_is_missing(result: Result, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"report\.json"):
        write_report(result, tmp_path / "nowhere", {})
