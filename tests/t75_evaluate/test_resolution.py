"""The script that makes one image coarser: its truth and its georeferences are exact, its counts are right."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from somareg.errors import ConfigError
from somareg.geometry import AffineTransform
from somareg.geometry.lattice import pixel_centres
from somareg.lab.data.pairs import PairEntry, StoredPair
from somareg.register import api
from tests.programs import program
from tests.synthetic import make_pair

SIDE, OFFSET = 288, (2, -4)


@pytest.fixture(scope="module")
def script():
    return program("benchmarks/questions/resolution.py")


def stored(sar, optical, offset=(0.0, 0.0)):
    entry = PairEntry("mini", "a.png", "val", "g", SIDE, SIDE, offset)
    return StoredPair(entry, sar, optical, np.ones((SIDE, SIDE), bool))


def slope(position):
    """2 grey values per pixel, so that means over 2 and 4 pixels are whole numbers; clipped away from the middle."""
    return np.clip(2 * (position - 80), 0, 250)


@pytest.fixture(scope="module")
def ramps():
    """Pairs whose values tell the place on the ground, of one axis each."""
    row, column = np.mgrid[:SIDE, :SIDE]
    # aligned_sar(x, y) = sar(x - dx, y - dy): SAR position p lies on the ground at p + offset
    sar = slope(column + OFFSET[0]), slope(row + OFFSET[1])
    optical = np.stack([slope(column), slope(row), slope(row)]).astype(np.uint8)
    return [stored(band.astype(np.uint8), optical, OFFSET) for band in sar]


@pytest.mark.parametrize("coarse", ["sar", "optical"])
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_the_truth_joins_equal_values_and_equal_places(script, ramps, factor, coarse):
    for band, pair in enumerate(ramps):
        case = script.make_case(pair, (0, 0), SIDE, factor, coarse, 3.0, np.random.default_rng(5))
        height, width = case.optical.grid.shape
        points = pixel_centres(0, 0, width, height)
        there = case.truth(points)
        limit = np.array(case.sar.grid.shape[::-1]) - 1
        inside = ((there >= 0) & (there <= limit)).all(axis=1)
        x, y = np.rint(there[inside]).astype(int).T
        beside = (
            2 * (factor if coarse == "sar" else 1) * (there[inside] - np.rint(there[inside]))[:, band]
        )  # of the pixel that is read
        values, expected = case.sar.data[0][y, x], case.optical.data[band].ravel()[inside]
        unclipped = (values > 10) & (values < 240) & (expected > 10) & (expected < 240)
        assert unclipped.mean() > 0.2
        assert np.allclose((values + beside)[unclipped], expected[unclipped], atol=1e-6), (factor, coarse, band)
        apart = case.sar.grid.to_map(there) - case.optical.grid.to_map(points)
        assert np.allclose(np.hypot(*apart.T), 3.0 * factor)


def test_images_below_the_least_side_are_left_out(script, ramps):
    assert script.make_case(ramps[0], (0, 0), SIDE, 6, "sar", 3.0, np.random.default_rng(5)) is None


@pytest.mark.parametrize(
    ("way", "coarse", "fine"),
    [("placed", "sar", 4.0), ("placed", "optical", 1.0), ("swapped", "sar", 1.0), ("swapped", "optical", 4.0)],
)
def test_an_error_of_a_moving_pixel_is_told_in_fine_ones(script, ramps, monkeypatch, way, coarse, fine):
    case = script.make_case(ramps[0], (0, 0), SIDE, 4, coarse, 3.0, np.random.default_rng(5))

    def register(moving, reference, *, model, **modalities):
        assert moving is (case.sar if way == "placed" else case.optical)
        assert modalities.get("moving_modality", "sar") == ("sar" if way == "placed" else "optical")
        truth = case.truth if way == "placed" else case.truth.inverse
        transform = AffineTransform.from_parameters(shift=(0.6, -0.8)).after(truth)
        return SimpleNamespace(transform=transform, verdict=SimpleNamespace(decision="review"))

    monkeypatch.setattr(api, "register", register)
    found = script.run(case, way, "auto")
    assert found == {"error_px": pytest.approx(fine, abs=1e-3), "decision": "review"}


def test_a_placed_pair_is_registered_and_a_refusal_is_kept(script, one_thread, monkeypatch):
    pair = make_pair(2, SIDE)
    sar = np.clip(10 * np.log10(pair.moving[0]) * 8 + 200, 0, 255).astype(np.uint8)
    case = script.make_case(stored(sar, pair.reference), (0, 0), SIDE, 2, "sar", 3.0, np.random.default_rng(5))
    found = script.run(case, "placed", "orientation")
    assert found["error_px"] < 2.0 and found["decision"] in {"go", "review"}, found

    def refuse(*images, **options):
        raise ConfigError("not so")

    monkeypatch.setattr(api, "register", refuse)
    assert script.run(case, "bare", "auto") == {"error_px": None, "decision": "refused", "why": "not so"}


def test_rows_count_wrong_goes_in_pixels_of_the_reference_and_of_the_coarse_image(script, tmp_path):
    found = [(1.0, "go"), (3.0, "go"), (9.0, "go"), (9.0, "review"), (None, "refused")]
    records = [
        {"set": "mini", "way": way, "coarse": "sar", "factor": 4, "error_px": error, "decision": decision}
        for way in script.WAYS
        for error, decision in found
    ]
    rows = {row["way"]: row for row in script.summarise(records)}
    placed, swapped = rows["placed"], rows["swapped"]
    assert (placed["n"], placed["held"], placed["go"], placed["review"], placed["refused"]) == (5, 2, 3, 1, 1)
    assert (placed["fine_px"], placed["wrong"], placed["badly wrong"]) == (9.0, 2, 1)  # the reference is fine
    assert (swapped["wrong"], swapped["badly wrong"]) == (1, 1)  # the reference is coarse
    json.dumps(list(rows.values()))
    lines = script.table(list(rows.values()))
    assert "| mini | placed | sar | 2/5, 2.25 px; 3/1/0 | 2 | 1 |" in lines
    script.draw(list(rows.values()), tmp_path / "picture.png")
    assert 2_000 < (tmp_path / "picture.png").stat().st_size < 60_000
