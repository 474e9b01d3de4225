"""Mask files in a batch: columns, one for all references, and bad values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

import somareg
from somareg.batches import work
from somareg.errors import ConfigError
from tests.t65_register.conftest import Files
from tests.t68_batches.conftest import LIGHT, fill


def cloudy(folder: Path, like: Path, rows: int) -> Path:
    """A mask of the size of an image: class 9 in its first rows, 4 below."""
    with rasterio.open(like) as file:
        profile = {**file.profile, "count": 1, "dtype": "uint8", "nodata": None}
    classes = np.full((profile["height"], profile["width"]), 4, np.uint8)
    classes[:rows] = 9
    folder.mkdir(exist_ok=True)
    with rasterio.open(folder / "scl.tif", "w", **profile) as file:
        file.write(classes, 1)
    return folder / "scl.tif"


def test_masks_are_columns_relative_to_the_table(places: list[Files], tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", places).parent
    cloudy(folder / "masks", places[0].moving, 80)
    table = folder / "masked.csv"
    names = "name,moving,reference,moving_mask,moving_mask_values"
    rows = ['p0,sar0.tif,optical.tif,masks/scl.tif,"3,8-10"', "p1,sar1.tif,optical.tif,,"]
    table.write_text("\n".join([names, *rows]) + "\n")
    out = tmp_path / "out"
    assert somareg.batch(table, out, **LIGHT).counts.get("failed") is None
    reports = [json.loads((out / name / "report.json").read_text()) for name in ("p0", "p1")]
    assert [r["moving"]["valid_share"] < 0.8 for r in reports] == [True, False]
    assert reports[0]["settings"]["moving_mask"] == str(folder / "masks" / "scl.tif")
    assert somareg.batch(table, out, **LIGHT).redone == ()
    cloudy(folder / "masks", places[0].moving, 60)  # another mask: another result
    assert somareg.batch(table, out, **LIGHT).redone == ("p0",)


def test_a_mask_for_all_references_of_a_series(places: list[Files], tmp_path: Path) -> None:
    mask = cloudy(tmp_path / "masks", places[0].reference, 60)
    pairs = [(places[0].moving, places[0].reference), (places[1].moving, places[0].reference)]
    work.REFERENCES.clear()
    options = {"reference_mask": mask, "reference_mask_values": "9", **LIGHT}
    result = somareg.batch(pairs, tmp_path / "out", **options)
    assert work.REFERENCES.reads == 1
    for entry in result.entries:
        with rasterio.open(result.folder / entry.name / "displacement.tif") as file:
            assert not file.read(3)[:55].any()
        assert str(mask) in {mark.path for mark in entry.files}


def test_classes_without_a_mask_end_the_batch_before_it_begins(table: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="moving_mask_values lists classes of a mask"):
        somareg.batch(table, tmp_path / "out", moving_mask_values="3", **LIGHT)
    assert not (tmp_path / "out").exists()
