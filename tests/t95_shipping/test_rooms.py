"""The plan of the house: DESIGN names every room, as the import contract does, and no file imports its importer."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("somareg", exclude_type_checking_imports=False, cache_dir=None)


def test_no_circle_between_files(graph: grimp.ImportGraph) -> None:
    """Imports inside functions and for types only count, too; `prepare` raises `CycleError` with the circle."""
    files = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert len(files) > 200
    TopologicalSorter(files).prepare()


def test_every_room_stands_in_the_table_and_on_the_arrow(graph: grimp.ImportGraph) -> None:
    rooms = {name.removeprefix("somareg.") for name in graph.find_children("somareg")}
    design = (ROOT / "DESIGN.md").read_text(encoding="utf-8")
    table = {
        name for row in re.findall(r"^\| (`[^|]*) \|", design, re.MULTILINE) for name in re.findall(r"`(\w+)", row)
    }
    assert rooms <= table, f"not in DESIGN's table: {sorted(rooms - table)}"
    assert rooms == set(re.findall(r"\w+", design.split("```")[1])), "the arrow"


def test_no_private_part_of_another_package_is_imported() -> None:
    """Names that begin with an underscore may go away with any release, outside of somareg and the `__future__`."""
    private = []
    for file in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            private += [
                f"{file.name}: {name}"
                for name in names
                if not name.startswith(("somareg.", "__future__.")) and any(p.startswith("_") for p in name.split("."))
            ]
    assert private == []
