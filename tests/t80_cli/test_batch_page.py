"""`docs/batch.md`: its examples run, in its order, and do what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from tests.t65_register.conftest import UTM, moving_grid, write, write_pair
from tests.t80_cli.conftest import Cli

PAGE = Path(__file__).parents[2] / "docs" / "batch.md"


def test_the_examples_run(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    if not PAGE.exists():
        pytest.skip("the documentation does not ship with an installed package")
    for kind in ("s1", "s2"):
        (tmp_path / kind).mkdir()
    for name, shift in (("north", (3.0, -2.0)), ("south", (1.0, 2.5))):
        files = write_pair(tmp_path, moving_grid(UTM, 10.0), shift=shift)
        files.moving.rename(tmp_path / "s1" / f"{name}.tif")
        files.reference.rename(tmp_path / "s2" / f"{name}.tif")
    for name, gsd in (("B02", 10.0), ("B05", 20.0), ("B01", 60.0), ("SCL", 20.0)):
        grid = moving_grid(UTM, gsd)
        write(tmp_path / f"{name}.tif", np.ones((1, *grid.shape), np.uint8), grid)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(python|console|csv)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    said = []
    for kind, text in blocks:
        if kind == "csv":
            (tmp_path / "pairs.csv").write_text(text)
        elif kind == "python":
            exec(compile(text, PAGE.name, "exec"), names)
        for line in re.findall(r"^\$ somareg (.*)$", text if kind == "console" else "", re.MULTILINE):
            done = cli(*shlex.split(line))
            assert done.code == 0, (line, done.err)
            said.append(done.out)
    assert len(said) == 8
    assert "no report.html for 2 pairs" in said[0] and "no report.html" not in said[2]
    assert all((tmp_path / "out" / name / "report.html").is_file() for name in ("north", "south"))
    assert "(2 done before)" in said[4]  # the same command again
    assert names["result"].counts == {"go": 2}
    assert names["result"].redone == ()
    assert sorted(p.name for p in (tmp_path / "series").iterdir() if p.is_dir()) == ["north", "south"]
    assert sorted(p.name for p in (tmp_path / "by-points").iterdir()) == ["B02.tif", "B05.tif"]
    with rasterio.open(tmp_path / "bands" / "B01.tif") as band:
        assert band.res[0] == pytest.approx(60, rel=0.01)
