"""The page's scripts: one comparison for the report and the viewer, and keys that the documentation knows."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from somareg.report.html import asset
from somareg.view import page

from .conftest import Asked, Made

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(name for name in page._OWN if name.endswith(".js") and not name.startswith("ol/"))


def test_both_pages_compare_with_the_same_file(ask: Asked, georeferenced: Made) -> None:
    served: Any = ask("assets/compare.js")
    report = (georeferenced.folder / "report.html").read_text(encoding="utf-8")
    assert served.text == asset("compare.js")
    assert report.count(asset("compare.js")) == 1
    style: Any = ask("assets/compare.css")
    assert style.text in report


@pytest.mark.parametrize("name", ["report.js", *SCRIPTS])
def test_no_other_script_compares(name: str) -> None:
    """Which part of the picture belongs to which image, and what keys of views do, is told in compare.js alone."""
    folder = files("somareg.report").joinpath("templates") if name == "report.js" else files("somareg.view") / "assets"
    text = folder.joinpath(name).read_text(encoding="utf-8")
    for word in (
        "checker",
        "swipe",
        "setInterval",
        ".rect(",
        'addEventListener("keydown", (event) => {\n    if (event.ctrl',
    ):
        assert word not in text


def test_every_script_is_served_and_imported(ask: Asked) -> None:
    answers: dict[str, Any] = {name: ask(f"assets/{name}") for name in SCRIPTS}
    assert all(answer.status_code == 200 for answer in answers.values())
    on_disk = {file.name for file in (files("somareg.view") / "assets").iterdir() if file.name.endswith(".js")}
    assert on_disk == set(SCRIPTS)
    imported = "".join(answer.text for answer in answers.values())
    assert all(f'"./{name}"' in imported for name in SCRIPTS if name != "view.js")


def test_the_documentation_tells_every_key() -> None:
    text = (ROOT / "docs" / "viewer.md").read_text(encoding="utf-8")
    for keys, _ in page.KEYS:
        for key in keys.split():
            assert f"`{key}`" in text, key
