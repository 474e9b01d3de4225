"""`somareg tie-points convert`, the options of `register`, and the page that explains both."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from somareg import read_tie_points, write_tie_points
from somareg.cli.sample import sample_pair
from somareg.types import TiePoints
from tests.t80_cli.conftest import Cli, FakeApi

PAGE = Path(__file__).parents[2] / "docs" / "tie-points.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the page speaks of: the demo pair and tie points that say they lie together."""
    monkeypatch.chdir(tmp_path)
    for source, name in zip(sample_pair(), ("sar.tif", "optical.tif"), strict=True):
        shutil.copy(source, name)
    xy = np.random.default_rng(0).uniform(20, 250, (20, 2))
    with rasterio.open("sar.tif") as moving, rasterio.open("optical.tif") as reference:
        there = [~moving.transform @ (reference.transform @ (x + 0.5, y + 0.5)) for x, y in xy]
    known = np.linspace(0.1, 1, 20)
    points = TiePoints(xy, np.array(there) - 0.5, 0 * xy, known, known, np.arange(20) % 5 > 0, known)
    images = {"reference": "optical.tif", "moving": "sar.tif"}
    Path("aligned").mkdir()
    for name in ("aligned/tie_points.geojson", "aligned/gcps.points", "clicks.csv"):
        write_tie_points(name, points, **images)
    return tmp_path


def test_every_command_of_the_page_runs(place: Path, cli: Cli) -> None:
    lines = [line[2:] for block in blocks("console") for line in block.splitlines()]
    converted = [shlex.split(line)[1:] for line in lines if line.startswith("somareg tie-points")]
    assert len(converted) == 4
    for arguments in converted:
        done = cli(*arguments)
        assert (done.code, done.err) == (0, ""), arguments
        assert Path(arguments[3]).exists() and " of 20 points" in done.out
    images = {"reference": "optical.tif", "moving": "sar.tif"}
    first = read_tie_points("clicks.csv")
    for name in ("points.gpkg", "points.csv"):
        np.testing.assert_allclose(read_tie_points(name, **images).moving_xy, first.moving_xy, atol=1e-3)
    for name in ("envi.pts", "sar_gcps.vrt"):
        np.testing.assert_allclose(read_tie_points(name, **images).moving_xy, first.moving_xy[first.inlier], atol=1e-3)
    for line in lines:
        if line.startswith("somareg register"):
            done = cli(*shlex.split(line)[1:], "--dry-run", "--json")
            assert done.code == 0 and json.loads(done.out)["tie_points"].startswith("clicks.csv")
    assert sum(line.startswith("somareg register") for line in lines) == 2


def test_the_python_of_the_page_runs(place: Path) -> None:
    (code,) = blocks("python")
    exec(compile(code, str(PAGE), "exec"), {})
    assert len(read_tie_points("points.gpkg")) == 20


def test_the_page_names_every_format_and_method() -> None:
    from typing import get_args

    from somareg.config import GcpMethod, TiePointsUse
    from somareg.tiepoints.formats import SUFFIXES

    text = PAGE.read_text(encoding="utf-8")
    for suffix in set(SUFFIXES) - {".json", ".tiff"}:
        assert f"`{suffix}`" in text
    for word in (*get_args(GcpMethod), *get_args(TiePointsUse)):
        assert word in text


def test_json(place: Path, cli: Cli) -> None:
    done = cli("tie-points", "convert", "clicks.csv", "a.pts", "--json")
    assert json.loads(done.out) == {"output": str(place / "a.pts"), "read": 20, "written": 16}
    assert cli("tie-points", "convert", "clicks.csv", "b.pts", "-q").out == ""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["none.csv", "a.gpkg"], 1, "none.csv does not exist"),
        (["clicks.csv", "aligned/gcps.points"], 1, "--overwrite"),
        (["clicks.csv", "clicks.csv"], 1, "input itself"),
        (["clicks.csv", "a.shp"], 2, "unknown suffix '.shp'"),
        (["clicks.csv", "a.vrt", "--reference", "optical.tif"], 1, "--moving"),
        (["clicks.csv", "a.vrt", "--moving", "sar.tif"], 1, "--reference"),
        (["bad.csv", "a.gpkg"], 1, "bad.csv, line 3"),
        (["clicks.csv"], 2, "Missing argument"),
    ],
)
def test_failures_are_one_line(place: Path, cli: Cli, arguments: list[str], code: int, words: str) -> None:
    Path("bad.csv").write_text("ref_x,ref_y,mov_x,mov_y\n1,2,3,4\n1,2,?,4\n")
    before = sorted(place.rglob("*"))
    done = cli("tie-points", "convert", *arguments)
    assert done.code == code and done.out == ""
    assert len([line for line in done.err.splitlines() if line.startswith("error: ")]) == 1
    assert words.lower() in done.err.lower()
    assert sorted(place.rglob("*")) == before


def test_bad_rows_can_be_left_out_and_are_named(place: Path, cli: Cli) -> None:
    Path("bad.csv").write_text("ref_x,ref_y,mov_x,mov_y\n1,2,3,4\n1,2,?,4\n5,6,7,8\n")
    done = cli("tie-points", "convert", "bad.csv", "a.gpkg", "--skip-bad-rows")
    assert done.code == 0 and "2 of 2 points" in done.out
    assert "bad.csv, line 3" in " ".join(done.err.split())
    assert len(read_tie_points("a.gpkg")) == 2


def test_register_passes_the_options_on(cli: Cli, fake_api: FakeApi) -> None:
    given = ["--tie-points", "p.gpkg", "--tie-points-use", "replace", "--gcp-method", "tps"]
    assert cli("register", "a.tif", "b.tif", "-o", "out", "--dry-run", *given).code == 0
    (_, asked), *_ = fake_api.calls
    assert (asked["tie_points"], asked["tie_points_use"], asked["gcp_method"]) == ("p.gpkg", "replace", "tps")
    done = cli("register", "a.tif", "b.tif", "-o", "out", "--tie-points-use", "replce")
    assert done.code == 2 and "'replace'" in done.err


def test_help_is_light_and_complete(cli: Cli) -> None:
    text = " ".join(cli("tie-points", "convert", "--help").out.split())
    for word in ("--reference", "--moving", "--skip-bad-rows", "--overwrite", ".gpkg", ".points", ".vrt"):
        assert word in text
    assert "convert" in cli("tie-points").out
