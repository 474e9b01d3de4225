"""The script that makes one image coarser: its truth and its georeferences are exact, its counts are right."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from somareg.errors import ConfigError
from somareg.geometry import AffineTransform
from somareg.geometry.lattice import pixel_centres
from somareg.lab.data.pairs import PairEntry, StoredPair
from somareg.register import api
from tests.synthetic import make_pair

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "questions" / "resolution.py"
SIDE, OFFSET = 288, (2.0, -4.0)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("resolution", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored(sar, optical, offset=(0.0, 0.0)):
    entry = PairEntry("mini", "a.png", "val", "g", SIDE, SIDE, offset)
    return StoredPair(entry, sar, optical, np.ones((SIDE, SIDE), bool))


@pytest.fixture(scope="module")
def ramps():
    """Two bands, so that values tell where on the ground a pixel lies: 2 grey values per 3 pixels."""
    row, column = np.mgrid[:SIDE, :SIDE] * 2 / 3
    # aligned_sar(x, y) = sar(x - dx, y - dy): SAR position p lies on the ground at p + offset
    sar = [np.rint(column + 2 / 3 * OFFSET[0] + 10), np.rint(row + 2 / 3 * OFFSET[1] + 10)]
    optical = np.stack([column + 10, row + 10, row]).round().astype(np.uint8)
    return [stored(band.astype(np.uint8), optical, OFFSET) for band in sar]


@pytest.mark.parametrize("coarse", ["sar", "optical"])
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_the_truth_joins_equal_values_and_equal_places(script, ramps, factor, coarse):
    for band, pair in enumerate(ramps):
        case = script.make_case(pair, (0, 0), SIDE, factor, coarse, 3.0, np.random.default_rng(5))
        height, width = case.reference.grid.shape
        points = pixel_centres(0, 0, width, height)
        there = case.truth(points)
        limit = np.array(case.moving.grid.shape[::-1]) - 1
        inside = ((there >= 0) & (there <= limit)).all(axis=1)
        assert inside.mean() > 0.5
        x, y = np.rint(there[inside]).astype(int).T
        step = case.fine_scale
        beside = 2 / 3 * step * (there[inside] - np.rint(there[inside]))[:, band]  # of the pixel that is read
        values = case.moving.data[0][y, x] + beside
        difference = values - case.reference.data[band].ravel()[inside]
        assert abs(difference.mean()) < 0.3 and np.abs(difference).max() < 1.7, (factor, coarse, band)
        apart = case.moving.grid.to_map(there) - case.reference.grid.to_map(points)
        assert np.allclose(np.hypot(*apart.T), 3.0 * factor)


def test_images_below_the_least_side_are_left_out(script, ramps):
    assert script.make_case(ramps[0], (0, 0), SIDE, 6, "sar", 3.0, np.random.default_rng(5)) is None


@pytest.mark.parametrize(("coarse", "fine"), [("sar", 4.0), ("optical", 1.0)])
def test_an_error_of_a_moving_pixel_is_told_in_fine_ones(script, ramps, coarse, fine):
    case = script.make_case(ramps[0], (0, 0), SIDE, 4, coarse, 3.0, np.random.default_rng(5))
    off = AffineTransform.from_parameters(shift=(0.6, -0.8)).after(case.truth)
    assert script.error_of(SimpleNamespace(transform=off), case) == pytest.approx(fine, abs=1e-4)


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
    def records(coarse, found):
        return [
            {"set": "mini", "way": "placed", "coarse": coarse, "factor": 4, "error_px": error, "decision": decision}
            for error, decision in found
        ]

    found = [(1.0, "go"), (3.0, "go"), (9.0, "go"), (9.0, "review"), (None, "refused")]
    sar, optical = script.summarise([*records("sar", found), *records("optical", found)])
    assert (sar["n"], sar["held"], sar["go"], sar["review"], sar["refused"]) == (5, 2, 3, 1, 1)
    assert (sar["fine_px"], sar["wrong go"], sar["badly wrong go"]) == (9.0, 2, 1)
    assert (optical["wrong go"], optical["badly wrong go"]) == (1, 1)
    lines = script.table([sar, optical])
    assert "| 9.00 | 2.25 | 2 | 3 / 1 / 0 / 1 | 2 | 1 |" in lines[2]
    bare = [{**row, "way": "bare"} for row in (sar, optical)]
    script.draw([sar, optical, *bare], tmp_path / "picture.png")
    assert 2_000 < (tmp_path / "picture.png").stat().st_size < 60_000
