"""`somareg audit`: exit codes, what is printed, and the example of its page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import somareg
from somareg.batches.audit import run
from somareg.batches.audit.findings import SceneRecord
from somareg.batches.audit.names import Facts
from somareg.batches.audit.result import AuditResult
from somareg.cli.audit import TOLERANCE_PX, exit_code
from tests.t68_batches.archives import NAMES, write_archive, write_reference
from tests.t80_cli.conftest import Cli

PAGE = Path(__file__).parents[2] / "docs" / "audit.md"
FLAGS = ("--model", "orientation", "--preset", "fast", "--no-local")


def scene(finding: Any, name: str = "a") -> SceneRecord:
    return SceneRecord(name, "a.tif", "b.tif", Facts(), "", None, None, None, finding)


def result_of(*findings: str) -> AuditResult:
    return AuditResult(Path("out"), "pairs", "px", 2.0, tuple(map(scene, findings)))


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        (["fine", "fine"], 0),
        (["fine", "off"], 3),
        (["fine", "unmeasured"], 3),
        (["unsure"], 3),
        (["unmeasured", "unmeasured"], 4),
        (["fine", "failed"], 1),
        (["off", "pending"], 1),
    ],
)
def test_exit_codes(findings: list[str], code: int) -> None:
    assert exit_code(result_of(*findings)) == code


def test_an_outlier_wants_a_look() -> None:
    assert exit_code(replace(result_of(), scenes=(replace(scene("fine"), is_outlier=True),))) == 3


def test_the_command_says_its_default_as_the_library_has_it() -> None:
    assert TOLERANCE_PX == run.TOLERANCE_PX


def test_the_example_of_the_page_runs(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path / "scenes")
    write_reference(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = cli("audit", "scenes", "--reference", "reference.tif", "-o", "audit", *FLAGS)
    assert done.code == 3
    assert "step of 20." in done.out
    assert "baseline 02.14 to 04.00" in done.out
    assert "1 off" in done.out and "1 outlier" in done.out
    assert (tmp_path / "audit" / "audit.html").is_file()
    again = cli("audit", "scenes", "--reference", "reference.tif", "-o", "audit", "--json", *FLAGS)
    document = json.loads(again.out)
    assert document["outliers"] == [NAMES[2].removesuffix(".tif")]
    assert len(document["scenes"]) == len(NAMES)
    if not PAGE.exists():
        pytest.skip("the documentation does not ship with an installed package")
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    light = {"model": "orientation", "preset": "fast", "local": False}
    whole = run.audit
    monkeypatch.setattr(run, "audit", lambda *args, **more: whole(*args, **more, **light))
    names: dict[str, Any] = {}
    exec(compile(example, PAGE.name, "exec"), names)
    assert repr(names["result"]) in example
    assert somareg.audit is not None


def test_a_slip_is_one_line(tmp_path: Path, cli: Cli) -> None:
    write_archive(tmp_path / "scenes", NAMES[:1], [(0.0, 0.0)])
    done = cli("audit", tmp_path / "scenes", "-o", tmp_path / "out")
    assert done.code == 2
    assert "nothing to compare the scenes with" in done.err
    assert not (tmp_path / "out").exists()
