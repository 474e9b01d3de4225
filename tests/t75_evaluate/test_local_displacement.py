"""The script that measures the local displacement, with an engine that is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from somareg.lab.evaluate.list_file import committed_list
from somareg.lab.evaluate.peers.base import affine_displacement
from somareg.lab.evaluate.protocol import WARPED_LEVELS
from somareg.lab.evaluate.sample import load_sample
from somareg.register import api
from tests.programs import program


@pytest.fixture
def script():
    return program("benchmarks/local_displacement.py")


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_samples_are_the_committed_ones_where_there_are_any(script, data_dir):
    found = script.samples_of(data_dir, "sih", "train", 512, 3)
    committed = committed_list("sih", "val").samples
    for level in ("m", *WARPED_LEVELS):
        assert [s.matrix.tolist() for s in found[level]] == [s.matrix.tolist() for s in committed[level][:3]]
    drawn = script.samples_of(data_dir, "mini", "test", 128, 4)
    assert {sample.crop for rows in drawn.values() for sample in rows} == {128}
    assert [len(drawn[level]) for level in ("m", *WARPED_LEVELS)] == [4] * 6


def test_rows_tell_what_local_displacement_leaves_and_adds(script, data_dir, monkeypatch):
    """An engine that knows the affine, follows half of the warp, and runs away by 2 px on one sample without."""
    samples = script.samples_of(data_dir, "mini", "test", 128, 4)
    loaded = [load_sample(data_dir, sample) for level in ("m", "N4") for sample in samples[level]]

    def register(moving, reference, *, model, local):
        assert model == "auto"
        i = next(i for i, each in enumerate(loaded) if np.array_equal(each.moving, moving))
        affine = affine_displacement(loaded[i].matrix, reference.shape)
        if not local:
            found = affine
        elif loaded[i].warp is None:
            found = affine + np.float32(2.0 * (i == 1)) * np.array([1, 0], np.float32)[:, None, None]
        else:
            found = (affine + loaded[i].truth().astype(np.float32)) / 2
        return SimpleNamespace(displacement=SimpleNamespace(array=found))

    monkeypatch.setattr(api, "register", register)
    warped = {level: samples[level] if level == "N4" else [] for level in WARPED_LEVELS}
    rows = [cells(line) for line in script.warp_rows(data_dir, "mini", warped, "auto")]
    assert [row[:4] for row in rows] == [["mini", "2", "4", "60"], ["mini", "2", "4", "120"]]
    for row in rows:
        off, on = (int(cell.rstrip("%")) for cell in row[6:])
        assert 80 < off < 120 and abs(on - off / 2) <= 1, row
    row = cells(script.affine_row(data_dir, "mini", samples["m"], "auto"))
    assert row == ["mini, level m", "4", "0.00", "0.00", "+0.500", "2.00", "1"]
