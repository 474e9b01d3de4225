"""The verdict's calibration: what is observed is what `register` does with that model; the fit, its tables."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import pytest
import torch

import somareg
from somareg.config import make_config
from somareg.errors import ConfigError, InputError, ReadError
from somareg.lab.data.pairs import PairEntry
from somareg.lab.evaluate.metrics import point_errors, rmse
from somareg.lab.evaluate.peers.base import Known
from somareg.lab.evaluate.sample import Sample
from somareg.lab.evaluate.verdict import fit as fitting
from somareg.lab.evaluate.verdict import observations, run
from somareg.lab.evaluate.verdict.fit import fit, left_out, predictions, probabilities, table_of
from somareg.lab.evaluate.verdict.observe import observe
from somareg.lab.evaluate.verdict.questions import Images, Question, elsewhere, part, place
from somareg.lab.evaluate.verdict.situations import SITUATIONS, one_direction, repeated
from somareg.lab.evaluate.verdict.tables import bars, by_set, judged, markdown, upper_limit
from somareg.quality import calibration
from somareg.quality.calibration import load_calibration
from somareg.quality.signs import SIGNS, vector
from somareg.register.choose import choose_model
from tests.small_network import save_network, small_network
from tests.synthetic import make_pair

CPU = torch.device("cpu")
SIDE = 96
FIGURES = {
    **{
        "windows": 60.0,
        "independent": 8.0,
        "correlation": 0.2,
        "correlation_before": 0.0,
        "seen": 1.0,
        "peak_offset": 1.0,
    },
    **{
        "split_half": 0.5,
        "forward_backward": 0.4,
        "support": 1.5,
        "ridge": 0.1,
        "part": 0.8,
        "spread": 1.0,
        "coverage": 0.8,
    },
    **{"bend": 0.0, "turn": 1.0, "growth": 0.01, "local": 0.0, "local_spread": 0.0},
    "unexplained": 1.0,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_network(small_network(), tmp_path_factory.mktemp("model") / "meadow.safetensors")


def drawn(count=300, seed=0, weights=None):
    """Observations of three sets whose figures tell success from failure, and one of them the error."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        related = i % 2 == 0
        good = related and i % 10 != 4
        second = float(np.exp(rng.normal(-1.0 if good else 1.0, 0.4)))
        figures = {
            **FIGURES,
            "zscore": float(rng.normal(3.0 if good else 1.0, 0.4)),
            "sharpness": float(rng.normal(0.7 if good else 0.0, 0.1)),
            "hit_ratio": 0.8 if good else 0.1,
            "likelihood": float(rng.normal(1.5 if good else 0.3, 0.3)),
            "rival": float(rng.normal(0.4 if good else 0.9, 0.08)),
            "second": second,
            "free": float(np.exp(rng.normal(-1.0 if good else 2.0, 0.4))),
            "residual": 0.5 if good else 8.0,
        }
        error = (
            float(2.0 * second * np.exp(rng.normal(0, 0.2))) if good else float(rng.uniform(5, 40)) if related else None
        )
        cells = [[error * float(np.exp(rng.normal(0, 0.2))), 0.8, 0.0, 0.4] for _ in range(9)] if related else []
        rows.append(
            {
                **{"key": f"{i}", "set": f"set{i % 3}", "level": "m" if related else "unrelated", "place": f"{i // 2}"},
                **{"exact": True, "placed": False, "related": related, "rmse": error, "weights": weights},
                **{"left_out": False, "failed": False, "figures": figures, "cells": cells},
            }
        )
    return rows


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_unrelated_pairs_need_two_places():
    entry = PairEntry("mini", "a", "val", "a", 9000, 9000, (0.0, 0.0))
    samples = [Sample(entry, "m", i, SIDE, (10 * i, 0), np.eye(2, 3)) for i in range(3)]
    with pytest.raises(InputError, match="samples of mini show one place"):
        elsewhere(samples, samples[0], 0, 900)
    far = Sample(entry, "m", 1, SIDE, (8000, 0), np.eye(2, 3))
    assert elsewhere([*samples, far], samples[0], 0, 900) is far
    assert place(far) == place(samples[0]) and part(far) != part(samples[0])


def test_before_and_after_are_one_place():
    one, two = (
        Sample(PairEntry("ombria", name, "val", name, 256, 256, (0.0, 0.0)), "m", 0, SIDE, (0, 0), np.eye(2, 3))
        for name in ("BEFORE_7", "after_7")
    )
    assert place(one) == place(two)


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_situation_is_drawn_at_the_same_pixels_of_both(name):
    rng = np.random.default_rng(0)
    moving, reference = rng.integers(1, 255, (SIDE, SIDE), np.uint8), rng.integers(1, 255, (3, SIDE, SIDE), np.uint8)
    here, there = SITUATIONS[name].on(moving, reference, 4)
    assert here.shape == moving.shape and there.shape == reference.shape and here.dtype == there.dtype == np.uint8
    assert (here != moving).any()
    again = SITUATIONS[name].on(moving, reference, 4)
    np.testing.assert_array_equal(here, again[0])


def test_ambiguous_pairs_have_the_truth_that_they_say():
    pair = make_pair(2, SIDE)
    moving, reference = (np.clip(60 * image + 120, 0, 255).astype(np.uint8) for image in (pair.moving, pair.reference))
    moving = moving.reshape(SIDE, SIDE)
    for make in (repeated, one_direction):
        for seed in range(4):
            away, near, truth = make(moving, reference, np.random.default_rng(seed))
            assert away.shape == moving.shape and near.shape == reference.shape
            same, _, again = make(near.mean(0).astype(np.uint8), reference, np.random.default_rng(seed))
            np.testing.assert_array_equal(truth, again)
            assert same.shape == moving.shape


# --- what is observed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learned", [False, True])
def test_what_is_observed_is_what_register_does(learned, model):
    name = str(model) if learned else "orientation"
    pair = make_pair(1, SIDE, shift=(3.0, -2.0))
    chosen = choose_model(make_config({"model": name}), CPU)
    truth = np.array([[1.0, 0.0, 3.0], [0.0, 1.0, -2.0]])
    row = observe(Images(pair.moving, pair.reference, truth), chosen, CPU)
    result = somareg.register(pair.moving, pair.reference, model=name, device="cpu")
    expected = rmse(point_errors(result.displacement.array, truth, (SIDE, SIDE)))
    assert row["rmse"] == pytest.approx(expected, rel=1e-4)
    assert row["figures"]["zscore"] == pytest.approx(result.quality.peak_zscore, rel=1e-4)
    assert row["figures"]["hit_ratio"] == pytest.approx(result.quality.hit_ratio, rel=1e-4)
    shipped = load_calibration(chosen.engine)
    logit = float(np.dot(shipped.success, [*vector(row["figures"]), 1.0]))
    assert result.verdict.probability == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-2, abs=1e-3)
    assert row["weights"] == (hashlib.sha256(model.read_bytes()).hexdigest() if learned else None)
    assert len(row["cells"]) > 20 and all(len(cell) == 4 for cell in row["cells"])
    unrelated = observe(Images(pair.moving, pair.reference, None), chosen, CPU, placed=True)
    assert unrelated["related"] is False and unrelated["rmse"] is None and unrelated["cells"] == []


def test_a_pair_of_which_too_little_is_left_is_a_failure():
    pair = make_pair(1, SIDE)
    few = np.zeros((SIDE, SIDE), bool)
    few[:20, :20] = True
    images = Images(pair.moving, pair.reference, None, Known("sar", "optical", moving_mask=few))
    row = observe(images, choose_model(make_config({"model": "orientation"}), CPU), CPU)
    assert row["failed"] and row["figures"] == {}


def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    asked = [Question(f"q{i}", "mini", "m", "a", True, lambda: None) for i in range(4)]
    done = []

    def answer(question, chosen, device):
        done.append(question.key)
        return {"key": question.key}

    monkeypatch.setattr(observations, "questions", lambda data, seed: asked)
    monkeypatch.setattr(observations, "answer", answer)
    log = tmp_path / "out" / "observations-learned.jsonl"
    observations.gather(tmp_path, log, None, CPU, limit=2)
    with log.open("a") as stream:
        stream.write('{"key": "q2", "rmse"')  # cut off by a kill
    observations.gather(tmp_path, log, None, CPU)
    assert done == ["q0", "q1", "q2", "q3"]
    assert [row["key"] for row in observations.read(log)] == done


# --- what is fitted ---------------------------------------------------------------------------------------------------


def test_the_fit_tells_success_and_error():
    rows = drawn()
    found = fit(rows)
    table = table_of(rows)
    probability = probabilities(table, found)
    assert probability[table.good].mean() > 0.9 and probability[~table.related].max() < 0.5
    assert 0.9 <= found.go <= 0.99 and found.review < found.go
    ratio = predictions(table, found)[table.good] / table.error[table.good]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.1) and np.mean((ratio > 0.5) & (ratio < 2)) > 0.95
    assert found.ce90_per_rmse > 1.0
    assert found.local.predicted == pytest.approx(1.0, abs=0.1)


def test_a_set_is_judged_by_the_others(monkeypatch):
    rows = drawn()
    fits = []
    coefficients = fitting._coefficients
    monkeypatch.setattr(fitting, "_coefficients", lambda table: fits.append(set(table.sets)) or coefficients(table))
    left_out(table_of(rows))
    assert fits == [{"set1", "set2"}, {"set0", "set2"}, {"set0", "set1"}]


def test_observations_of_two_models_are_not_mixed():
    with pytest.raises(InputError, match="of 2 models; observe anew"):
        fit([*drawn(), *drawn(seed=1, weights="a" * 64)])


def test_observations_need_success_and_failure():
    with pytest.raises(InputError, match="no success or no failure"):
        fit([row for row in drawn() if not row["related"]])


def test_observations_of_an_earlier_version_are_refused():
    rows = [{**row, "figures": {k: v for k, v in row["figures"].items() if k != "unexplained"}} for row in drawn()]
    with pytest.raises(InputError, match=r"lack the figure 'unexplained'.*in another folder"):
        fit(rows)


def test_the_upper_limit_is_that_of_clopper_and_pearson():
    assert upper_limit(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300), rel=1e-4)
    assert upper_limit(2, 465) == pytest.approx(0.01347, abs=2e-4)


def test_tables_say_what_is_met_and_what_is_missed():
    rows = drawn()
    found = judged(rows, fit(rows))
    told = {what: (value, met) for what, value, met in bars(found)}
    assert len(told) >= 8 and {met for _, met in told.values()} <= {"met", "missed"}
    spoilt = [
        {**row, "rmse": 30.0} if row["rmse"] and row["rmse"] < 2 and row["set"] == "set0" else row for row in rows
    ]
    spoilt_bars = bars(judged(spoilt, fit(rows)))
    assert [name for name, *_ in by_set(found)] == ["set0", "set1", "set2"]
    assert any(met == "missed" for *_, met in spoilt_bars)
    text = markdown(rows, fit(rows))
    assert text.count("| set0 |") == 1 and "| asked | measured |" in text


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["orientation", "learned"])
def test_the_command_writes_what_registration_reads(engine, model, tmp_path, monkeypatch):
    rows = drawn(weights=hashlib.sha256(model.read_bytes()).hexdigest() if engine == "learned" else None)

    def gather(data, log, chosen, device, **options):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(json.dumps(row) + "\n" for row in rows))

    monkeypatch.setattr(run, "gather", gather)
    name = str(model) if engine == "learned" else "orientation"
    found = run.calibrate(tmp_path, tmp_path / "out", [name], device="cpu")
    assert list(found) == [engine] and found[engine]["signs"] == list(SIGNS)
    again = run.calibrate(tmp_path, tmp_path / "out", [name], device="cpu", refit=True)
    assert again == found
    monkeypatch.setattr(calibration, "files", lambda package: tmp_path / "out")
    load_calibration.cache_clear()
    try:
        assert load_calibration(engine) == fit(rows)
    finally:
        load_calibration.cache_clear()


def test_refitting_needs_observations(tmp_path):
    with pytest.raises(ReadError, match=r"observations-orientation\.jsonl.*without --refit"):
        run.calibrate(tmp_path, tmp_path, ["orientation"], refit=True, device="cpu")


def test_a_calibration_of_other_signs_is_refused(tmp_path, monkeypatch):
    record = {"signs": ["zscore"], "success": [1, 0], "error": [1, 0], "go": 0.9, "review": 0.3}
    (tmp_path / "calibration-learned.json").write_text(json.dumps({**record, "ce90_per_rmse": 1.5, "weights": None}))
    monkeypatch.setattr(calibration, "files", lambda package: tmp_path)
    load_calibration.cache_clear()
    try:
        with pytest.raises(ConfigError, match="other signs"):
            load_calibration("learned")
    finally:
        load_calibration.cache_clear()


def test_signs_bear_what_is_missing():
    missing = vector(
        {
            **dict.fromkeys((*FIGURES, "zscore", "sharpness", "hit_ratio", "likelihood"), 0.0),
            **dict.fromkeys(("rival", "second", "free", "spread", "residual", "split_half", "unexplained"), math.nan),
        }
    )
    assert np.isfinite(missing).all()
