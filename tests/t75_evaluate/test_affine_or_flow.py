"""The script that compares affine and flow: its maps are the engine's, and its table counts what it is given."""

import numpy as np
import pytest

import somareg
from somareg.geometry import AffineTransform
from somareg.lab.evaluate.sample import LoadedSample
from tests.programs import program
from tests.synthetic import affine_map, make_pair


@pytest.fixture(scope="module")
def script():
    return program("benchmarks/questions/affine_or_flow.py")


def loaded(rotation_deg, shift):
    pair = make_pair(3, 160, rotation_deg=rotation_deg, shift=shift)
    move, _ = affine_map((160, 160), rotation_deg=rotation_deg, shift=shift)
    corner, right, down = move(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    return LoadedSample(pair.moving, pair.reference, np.column_stack([right - corner, down - corner, corner]))


def test_every_way_finds_a_small_shift_and_flow_cannot_turn_a_pair_from_nothing(script, one_thread):
    near = script.errors(loaded(0.0, (3.0, -2.0)), "orientation")
    assert tuple(near) == script.WAYS and max(near.values()) < 2.0, near
    turned = script.errors(loaded(14.0, (3.0, -2.0)), "orientation")
    assert turned["affine"] < 1.0 and turned["flow from nothing"] > 5.0, turned


def test_affine_is_what_register_finds_without_local_displacement(one_thread):
    sample = loaded(4.0, (3.0, -2.0))
    both, off = (
        somareg.register(sample.moving, sample.reference, model="orientation", local=local) for local in (True, False)
    )
    assert isinstance(both.affine, AffineTransform)
    assert np.allclose(both.affine.matrix, off.transform.matrix, atol=1e-9)


def row(amplitude, **errors):
    filled = {"both, unjudged": 1.0, "flow from nothing": 9.0, **errors}
    return {"set": "mini", "group": f"g{amplitude}{errors['both']}", "amplitude_px": amplitude, **filled}


def test_rows_have_their_bin_and_count_what_differs_by_more_than_the_labels_error(script):
    records = [
        row(0.0, affine=0.5, both=0.6, flow=1.5),
        row(1.0, affine=1.0, both=0.7, flow=0.9),
        row(1.5, affine=1.5, both=0.5, flow=2.5),
        row(2.0, affine=2.5, both=0.9, flow=1.5),
        row(4.0, affine=4.2, both=4.1, flow=3.0),
    ]
    rows = {each["bin"]: each for each in script.summarise(records)}
    assert {name: each["n"] for name, each in rows.items()} == {"0": 1, "0-1": 1, "1-2": 2, "2-4": 1}
    assert rows["1-2"]["median_px"]["affine"] == 2.0 and rows["1-2"]["cmr"]["both"] == [100, 100, 100]
    assert rows["1-2"]["cmr"]["affine"] == [0, 50, 100]
    counts = {name: each["both against affine"][:2] for name, each in rows.items()}
    assert counts == {"0": [0, 0], "0-1": [1, 0], "1-2": [2, 0], "2-4": [0, 0]}
    assert rows["2-4"]["flow against affine"][:2] == [1, 0] and rows["0"]["flow against affine"][:2] == [0, 1]
    assert rows["1-2"]["both against flow"][:2] == [2, 0]
    lines = script.table(list(rows.values()))
    assert len(lines) == 6 and len({line.count("|") for line in lines}) == 1


def test_the_picture_is_small(script, tmp_path):
    records = [row(px, affine=px + 0.5, both=0.5 + px / 4, flow=1.0) for px in (0.0, 1.0, 4.0)]
    script.draw(records, tmp_path / "picture.png")
    assert 2_000 < (tmp_path / "picture.png").stat().st_size < 60_000
