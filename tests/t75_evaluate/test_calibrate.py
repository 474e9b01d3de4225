"""Calibration: what is observed is what `register` does with that model, and the coefficients go to its engine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import somareg
from somareg.config import make_config
from somareg.errors import InputError
from somareg.lab.data.pairs import PairEntry
from somareg.lab.evaluate import calibrate
from somareg.lab.evaluate.calibrate import fit, main, observe, record_of
from somareg.lab.evaluate.metrics import point_errors, rmse
from somareg.lab.evaluate.sample import Sample
from somareg.quality import calibration
from somareg.quality.calibration import FEATURES, load_calibration
from somareg.register.choose import Chosen, choose_model
from tests.small_network import save_network, small_network
from tests.synthetic import make_pair

CPU = torch.device("cpu")
SIDE = 96


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_network(small_network(), tmp_path_factory.mktemp("model") / "meadow.safetensors")


def drawn(count=240, seed=0, weights=None):
    """Observations whose evidence tells success from failure, and whose error falls with it."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        related = i % 2 == 0
        evidence = rng.normal(0, 1, len(FEATURES))
        evidence[0] += 4.0 * related
        error = float(np.exp(0.3 - 0.2 * evidence[1])) if related else None
        row = {"set": "mini", "pair": f"{i // 2}", "exact": True, "related": related, "rmse": error, "weights": weights}
        rows.append({**row, "evidence": evidence.tolist(), "failed": False})
    return rows


# --- what is observed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learned", [False, True])
def test_what_is_observed_is_what_register_does(learned, model):
    name = str(model) if learned else "orientation"
    pair = make_pair(1, SIDE, shift=(3.0, -2.0))
    chosen = choose_model(make_config({"model": name}), CPU)
    truth = np.array([[1.0, 0.0, 3.0], [0.0, 1.0, -2.0]])
    row = observe(pair.moving, pair.reference, truth, chosen, CPU)
    result = somareg.register(pair.moving, pair.reference, model=name, device="cpu")
    expected = rmse(point_errors(result.displacement.array, truth, (SIDE, SIDE)))
    assert row["rmse"] == pytest.approx(expected, rel=1e-4)
    evidence = dict(zip(FEATURES, row["evidence"], strict=True))
    assert evidence["zscore"] == pytest.approx(result.quality.peak_zscore, rel=1e-4)
    assert evidence["hit_ratio"] == pytest.approx(result.quality.hit_ratio, rel=1e-4)
    shipped = load_calibration(chosen.engine)
    logit = float(np.dot(shipped.success, [*row["evidence"], 1.0]))
    assert result.verdict.probability == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-3)
    assert row["weights"] == (hashlib.sha256(model.read_bytes()).hexdigest() if learned else None)
    assert observe(pair.moving, pair.reference, None, chosen, CPU)["related"] is False


# --- what is written --------------------------------------------------------------------------------------------------


def test_a_record_is_what_registration_reads(tmp_path, monkeypatch):
    rows = drawn(weights="a" * 64)
    (tmp_path / "calibration-learned.json").write_text(json.dumps(record_of(rows, "meadow", 0)))
    monkeypatch.setattr(calibration, "files", lambda package: tmp_path)
    load_calibration.cache_clear()
    try:
        found = load_calibration("learned")
    finally:
        load_calibration.cache_clear()
    assert found == replace(fit(rows), weights="a" * 64)
    assert found.success[0] > 2 * max(abs(weight) for weight in found.success[1:-1])
    assert found.error[1] == pytest.approx(-0.2, abs=0.02)


def test_observations_of_two_models_are_not_mixed():
    with pytest.raises(InputError, match="of 2 models; observe anew"):
        record_of([*drawn(), *drawn(seed=1, weights="a" * 64)], "meadow", 0)


@pytest.mark.parametrize("engine", ["orientation", "learned"])
def test_the_command_writes_the_one_of_its_model(engine, model, tmp_path, monkeypatch, capsys):
    asked = []

    def observations(data, seed, chosen: Chosen, device):
        asked.append((data, seed, chosen.engine, device.type))
        yield from drawn(seed=seed, weights=chosen.card.sha256 if chosen.card else None)

    monkeypatch.setattr(calibrate, "observations", observations)
    name = str(model) if engine == "learned" else "orientation"
    arguments = ["--data", "pairs", "--out", str(tmp_path), "--model", name, "--seed", "5", "--device", "cpu"]
    assert main(arguments) == 0
    assert asked[0][1:] == (5, engine, "cpu")
    assert {path.name for path in tmp_path.iterdir()} == {f"observations-{engine}.jsonl", f"calibration-{engine}.json"}
    record = json.loads((tmp_path / f"calibration-{engine}.json").read_text())
    assert record["model"] == ("meadow" if engine == "learned" else "orientation")
    assert record["weights"] == (hashlib.sha256(model.read_bytes()).hexdigest() if engine == "learned" else None)
    assert record["fitted_on"]["pairs"] == 240
    assert json.loads(capsys.readouterr().out)["go"] == record["go"]
    assert main([*arguments, "--refit"]) == 0
    assert len(asked) == 1
    assert json.loads((tmp_path / f"calibration-{engine}.json").read_text()) == record


@pytest.mark.parametrize("content", [None, "not json\n"])
def test_refitting_needs_observations(content, tmp_path, capsys):
    if content is not None:
        (tmp_path / "observations-orientation.jsonl").write_text(content)
    assert main(["--data", "pairs", "--out", str(tmp_path), "--refit", "--device", "cpu"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and "observations-orientation.jsonl" in told and "without --refit" in told
    assert not (tmp_path / "calibration-orientation.json").exists()


def test_unrelated_pairs_need_two_places():
    entry = PairEntry("mini", "a", "val", "a", 9000, 9000, (0.0, 0.0))
    samples = [Sample(entry, "m", i, SIDE, (10 * i, 0), np.eye(2, 3)) for i in range(3)]
    with pytest.raises(InputError, match="samples of mini show one place"):
        calibrate._elsewhere(samples, samples[0], 0, 900)
    far = replace(samples[1], origin=(1000, 0))
    assert calibrate._elsewhere([*samples, far], samples[0], 0, 900) is far


def test_an_unknown_model_is_one_line(tmp_path, capsys):
    assert main(["--data", "pairs", "--out", str(tmp_path / "out"), "--model", "orientaton"]) == 2
    assert "Did you mean 'orientation'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_places_are_told_apart_by_group_but_for_the_set_whose_group_is_its_source():
    def shown(set_name: str, name: str, group: str) -> tuple[str, str]:
        return calibrate.place(Sample(PairEntry(set_name, name, "val", group, 90, 90, (0, 0)), "m", 0, 8, (0, 0), None))

    assert shown("ombria", "1", "Flood_before") == shown("ombria", "2", "flood_AFTER".lower())
    assert shown("ombria", "1", "lake") != shown("ombria", "1", "hill")
    assert shown("vhr", "pair001", "srif") != shown("vhr", "pair007", "srif")
