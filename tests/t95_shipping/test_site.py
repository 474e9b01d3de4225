"""The documentation site: it builds without a warning, holds every page, and asks no other server for anything."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

import somareg
from tests.t95_shipping.pages import tool

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not (ROOT / "mkdocs.yml").exists(), reason="not in a checkout")

LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "srcset", "link": "href", "form": "action"}


class Loads(HTMLParser):
    """What a page loads: scripts, styles, pictures; and its text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.words: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))
        self.text = " ".join(self.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag == "link" and told.get("rel") in ("prev", "next", "canonical"):
            return
        self.found.append(told.get(LOADS.get(tag, ""), "") or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return tool("reference")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = {**os.environ, "PYTHONPATH": "src", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_page_is_there(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert len(pages) > 15
    assert not {page for page in pages if not (site / f"{page}.html").is_file()}
    start = (site / "index.html").read_text(encoding="utf-8")
    assert not {page for page in pages if f'href="{page}.html"' not in start}


def test_the_search_knows_pages_commands_and_functions(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    found = {entry["location"].partition("#")[0]: entry for entry in index["docs"]}
    assert {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} <= found.keys()
    titles = {entry["title"] for entry in index["docs"]}
    assert {"somareg.register", "somareg register", "somareg.types.Verdict"} <= titles


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    for page in pages:
        for address in Loads(page).found:
            assert not re.match(r"(\w+:)?//", address), f"{page.name} loads {address}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", style.read_text(encoding="utf-8")), style
    assert not [page for page in pages if 'class="mermaid"' in page.read_text(encoding="utf-8")]  # fetched, if there


def test_the_command_reference_is_that_of_the_program(site: Path) -> None:
    text = Loads(site / "commands.html").text
    for option in ("--search-radius-m", "--tie-points-use", "--resume", "--max-minutes", "--skip-bad-rows"):
        assert option in text
    assert "somareg tie-points convert" in text


def test_the_python_reference_has_all_that_is_public(site: Path) -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in set(somareg.__all__) - {"__version__"}:
        assert re.search(rf"^### somareg\.(\w+\.)*{name}$", page, re.MULTILINE), name
    text = Loads(site / "api.html").text
    assert "Expected error of the alignment" in text  # a docstring
    for option in ("search_radius_px", "moving_nodata", "max_pixels"):
        assert option in text


@pytest.mark.parametrize("name", ["docs/commands.md", "docs/api.md"])
def test_the_reference_is_committed_as_the_code_says_now(reference: ModuleType, name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    assert page.count("<!-- end -->") == page.count("<!-- reference: ") > 0
    assert reference.current(page) == page, "run `make reference`"


def test_no_page_needs_a_build_to_be_read() -> None:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.startswith(":::")], path.name
        emptied = [
            line for line, after in itertools.pairwise(lines) if "<!-- reference" in line and "<!-- end" in after
        ]
        assert not emptied, path.name


def test_a_page_is_mended_and_its_own_words_stay(reference: ModuleType) -> None:
    page = "# Mine\n\n<!-- reference: somareg.assess -->\n\nold\n\n<!-- end -->\n\nwords\n"
    made = reference.current(page)
    assert made.startswith("# Mine\n\n<!-- reference: somareg.assess -->\n\n### somareg.assess\n")
    assert made.endswith("<!-- end -->\n\nwords\n") and "old" not in made
    assert "`moving`, `reference`" in made and "**Returns** " in made
    assert reference.current(made) == made


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    return tool("site")


@pytest.mark.parametrize(
    ("page", "link", "becomes"),
    [
        ("training.md", "[a](../benchmarks/README.md#x)", "[a](benchmarks/README.md#x)"),
        ("benchmarks/README.md", "[a](../docs/weights.md)", "[a](../weights.md)"),
        ("configs/README.md", "[a](base.yaml)", "a"),  # in the repository, not on the site
        ("benchmarks/README.md", "[a](results)", "a"),
        ("configs/README.md", "[a](gone.yaml)", "[a](gone.yaml)"),  # the strict build complains
        ("tutorial.md", "[a](report.md), [b](#c), ![d](images/e.png)", "[a](report.md), [b](#c), ![d](images/e.png)"),
    ],
)
def test_links_work_on_the_site_as_in_the_repository(hook: ModuleType, page: str, link: str, becomes: str) -> None:
    assert hook.rewrite_links(link, page) == becomes
