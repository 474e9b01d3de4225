"""What a notebook gets of a real registration, and what completion offers of the package."""

from __future__ import annotations

import subprocess
import sys

import somareg
from somareg.types import Result


def test_a_real_result_shows_itself(file_result: Result, result: Result, unrelated: Result) -> None:
    for each in (file_result, result, unrelated):
        text = each._repr_html_()
        assert text is not None and 10_000 < len(text) < 300_000
        assert each.verdict.headline.partition(":")[0] in text
        assert len(each.plot().axes) >= 3
        assert "\n" not in repr(each) and len(repr(each)) < 200
    assert repr(file_result).startswith("<Result go: sar.tif on optical.tif, expected error 0.")
    assert "m), " in repr(file_result)
    assert repr(result).startswith("<Result go: moving array on reference array, ")
    assert repr(file_result.moving) == "<Header sar.tif: 2 bands uint16, 242 x 242 px, EPSG:32633>"


def test_completion_offers_the_public_names() -> None:
    names = [name for name in dir(somareg) if not name.startswith("_")]
    assert names == sorted(name for name in somareg.__all__ if not name.startswith("_"))
    assert "register" in names and "annotations" not in names


def test_completion_loads_nothing() -> None:
    code = "import sys, somareg; dir(somareg); print([n for n in ('torch', 'rasterio', 'numpy') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
