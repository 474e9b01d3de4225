"""`docs/stac-xarray.md`: its examples run, in its order, and do what it says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import xarray

from tests.t65_register.conftest import UTM, moving_grid, write_pair
from tests.t80_cli.conftest import Cli

PAGE = Path(__file__).parents[2] / "docs" / "stac-xarray.md"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sar.tif and optical.tif, and their Items s1.json and s2.json."""
    folder = tmp_path_factory.mktemp("page")
    files = write_pair(folder, moving_grid(UTM, 10.0))
    for name, path, key, fields in (
        ("s1", files.moving, "vv", {"sar:polarizations": ["VV"]}),
        ("s2", files.reference, "visual", {"eo:bands": [{"name": c} for c in "RGB"]}),
    ):
        scene = pystac.Item(name, None, None, pystac.utils.str_to_datetime("2024-05-06T07:08:09Z"), {})
        scene.add_asset(
            key, pystac.Asset(f"./{path.name}", media_type="image/tiff", roles=["data"], extra_fields=fields)
        )
        (folder / f"{name}.json").write_text(json.dumps(scene.to_dict()))
    return folder


@pytest.fixture(scope="module")
def blocks() -> list[tuple[str, str]]:
    if not PAGE.exists():
        pytest.skip("the documentation does not ship with an installed package")
    return re.findall(r"```(python|console)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_examples_run(
    place: Path, blocks: list[tuple[str, str]], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    names: dict[str, Any] = {}
    commands = 0
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, PAGE.name, "exec"), names)
            continue
        for line in re.findall(r"^\$ somareg (.*)$", text, re.MULTILINE):
            commands += 1
            assert cli(*shlex.split(line)).code in (0, 3), line
    assert commands == 2

    assert names["result"].verdict.decision == "go"
    item = pystac.Item.from_file(str(place / "aligned" / "item.json"))
    assert item.properties["datetime"] == "2024-05-06T07:08:09Z"
    assert names["item"].to_dict()["collection"] == "alignments"
    assert names["both"].shape == (192, 192)
    assert isinstance(names["cross_polarised"], xarray.DataArray)
    np.testing.assert_array_equal(names["cross_polarised"], names["aligned"])
    with rasterio.open(place / "shifts.tif") as shifts, rasterio.open(place / "out" / "displacement.tif") as whole:
        np.testing.assert_array_equal(shifts.read(), whole.read()[:2])
    assert (place / "warped.tif").is_file()
