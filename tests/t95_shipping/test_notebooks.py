"""The notebooks in examples/: whole, without outputs, and their cells do what their words say."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from somareg.lab.evaluate.peers import make_method
from tests.t95_shipping.pages import ROOT

EXAMPLES = ROOT / "examples"
NAMES = ("sentinel_pair.ipynb", "your_matcher.ipynb")

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="not in a checkout")


def cells_of(name: str) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))["cells"]
    return content


def run(name: str) -> tuple[dict[str, Any], str, list[Any]]:
    """The names that the code cells define, what they print, and what the last lines of cells show."""
    names: dict[str, Any] = {}
    said, shown = io.StringIO(), []
    with contextlib.redirect_stdout(said):
        for number, cell in enumerate(cells_of(name)):
            if cell["cell_type"] != "code":
                continue
            tree, place = ast.parse("".join(cell["source"])), f"{name}, cell {number}"
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, place, "exec"), names)
            if isinstance(last, ast.Expr):
                shown.append(eval(compile(ast.Expression(last.value), place, "eval"), names))
    return names, said.getvalue(), shown


def test_every_notebook_is_looked_at() -> None:
    assert sorted(path.name for path in EXAMPLES.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_format(name: str) -> None:
    """What the schema of nbformat 4.5 asks, and no outputs, which would grow the repository with every run."""
    document = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))
    assert set(document) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    assert document["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in document["cells"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", each) for each in ids)
    for cell in document["cells"]:
        assert cell["cell_type"] in ("markdown", "code") and cell["metadata"] == {}
        assert all(line.endswith("\n") for line in cell["source"][:-1]) and cell["source"][-1].strip()
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    assert document["cells"][0]["source"][0].startswith("# ")


def test_a_sentinel_pair_becomes_aligned_bands(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        names, said, shown = run("sentinel_pair.ipynb")
    result = names["result"]
    assert result.verdict.decision == "go" and result.verdict.headline in said
    html = result._repr_html_()
    assert shown[0] is result and html.count("data:image/jpeg") == 4 and len(html) < 300_000
    assert any(hasattr(each, "_repr_png_") for each in shown)
    assert "aligned.tif" in next(each for each in shown if isinstance(each, list))
    assert "bands, rows, columns: (5, 672, 672)" in said
    with rasterio.open(tmp_path / "bright_aligned.tif") as bright:
        assert set(np.unique(bright.read())) == {0, 1}


def test_a_matcher_of_ones_own_without_the_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOMAREG_BENCHMARK_DATA", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with contextlib.chdir(tmp_path):
        names, said, _ = run("your_matcher.ipynb")
        mine = make_method(names["METHODS"][-1])
    monkeypatch.delitem(sys.modules, "my_matcher")
    assert said.startswith("skipped: set SOMAREG_BENCHMARK_DATA")
    assert not (tmp_path / "evaluation").exists()
    found = mine(names["moving"], names["reference"], level="m", seed=0).displacement
    assert np.abs(found.mean(axis=(1, 2)) - (7, -4)).max() < 0.2
    assert all(make_method(name) for name in names["METHODS"][:-1])
