"""`docs/network.md` names tests and modules; they must be there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "network.md"


@pytest.fixture(scope="module")
def page() -> str:
    if not PAGE.exists():
        pytest.skip("the documentation does not ship with an installed package")
    return PAGE.read_text(encoding="utf-8")


def test_every_fault_is_answered_by_tests_that_exist(page: str) -> None:
    rows = [line for line in page.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(row.split("|")[1]) for row in rows] == list(range(1, 19))
    for row in rows:
        named = re.findall(r"`(t\d\d_\w+/test_\w+\.py)::(test_\w+)`", row)
        assert named, row
        for path, name in named:
            source = (ROOT / "tests" / path).read_text(encoding="utf-8")
            assert f"def {name}(" in source, f"{path} has no {name}"


def test_every_module_that_is_named_exists(page: str) -> None:
    named = set(re.findall(r"`((?:soma|matching|lab|runtime|configs)/[\w/-]+\.(?:py|yaml))`", page))
    assert len(named) > 12
    for path in named:
        assert (ROOT / path).exists() or (ROOT / "src" / "somareg" / path).exists(), path
    for other in re.findall(r"\]\((\w+\.md)\)", page):
        assert (PAGE.parent / other).exists(), other
