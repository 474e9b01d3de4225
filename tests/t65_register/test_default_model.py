"""`model="auto"`: the weights that ship where they were trained for, else the weight-free engine; it says which.

The weights that "ship" here are small and random, see `conftest.shipped`; those that really do are in
`test_shipped_weights.py`.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import somareg
from somareg.cli.main import main
from somareg.errors import ConfigError, WeightsError
from somareg.quality import calibration
from somareg.quality.signs import SIGNS
from somareg.register import api, choose, result, whole
from somareg.soma.network import Soma
from somareg.soma.weights import DEFAULT_WEIGHTS, store
from somareg.types import Result
from tests.small_network import save_network, small_network
from tests.synthetic import SyntheticPair, make_pair
from tests.t65_register.conftest import Files

FREE = "orientation"
LIGHT: dict[str, Any] = {"local": False, "preset": "fast", "search": "local", "device": "cpu"}


@pytest.fixture(scope="module")
def small() -> SyntheticPair:
    """96 px, SAR on optical."""
    return make_pair(1, 96, shift=(3.0, -2.0))


def same(first: Result, second: Result) -> bool:
    return bool((first.displacement.array == second.displacement.array).all()) and first.quality == second.quality


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("weights were read")


# --- SAR against optical ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("swapped", [False, True])
def test_auto_is_the_weights_that_ship(shipped: Path, small: SyntheticPair, swapped: bool) -> None:
    images = (small.reference, small.moving) if swapped else (small.moving, small.reference)
    roles = ("optical", "sar") if swapped else ("sar", "optical")
    options = {"moving_modality": roles[0], "reference_modality": roles[1], **LIGHT}
    network = somareg.load_model(device="cpu")
    assert network is not None
    seen: list[str] = []
    handle = network.encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[2]))
    try:
        found = somareg.register(*images, **options)
    finally:
        handle.remove()
    assert set(seen) == {"sar", "optical"}
    assert same(found, somareg.register(*images, model=DEFAULT_WEIGHTS, **options))
    assert found.settings["model"] == "auto"
    assert found.settings["model_used"] == DEFAULT_WEIGHTS
    assert found.settings["model_version"] == "meadow-3"
    assert found.settings["model_sha256"] == digest(shipped)
    assert not any("without weights" in note for note in found.notes)


def test_load_model_gives_what_auto_uses(shipped: Path) -> None:
    network = somareg.load_model()
    assert isinstance(network, Soma)
    assert network is somareg.load_model("auto") is somareg.load_model(DEFAULT_WEIGHTS)
    assert not network.training
    for name, tensor in small_network().state_dict().items():
        np.testing.assert_array_equal(network.state_dict()[name].cpu(), tensor.half().float())


def test_a_batch_of_pairs_builds_the_network_once(
    shipped: Path, small: SyntheticPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_network(small_network(9), shipped.with_name("other.safetensors"))  # nothing else has loaded these
    shipped.with_name("other.safetensors").replace(shipped)
    shipped.with_name("other.json").replace(shipped.with_suffix(".json"))
    built: list[str] = []
    build = store.build_network

    def counted(settings: Any, where: str) -> Soma:
        built.append(where)
        return build(settings, where)

    monkeypatch.setattr(store, "build_network", counted)
    for _ in range(3):
        somareg.register(small.moving, small.reference, **LIGHT)
    assert built == [str(shipped)]


# --- anything else ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "roles", [("optical", "optical"), ("sar", "sar"), ("other", "optical"), ("sar", "other"), ("other", "other")]
)
def test_other_sensors_are_matched_by_both_engines_and_a_note(
    shipped: Path, small: SyntheticPair, roles: tuple[str, str]
) -> None:
    image = small.moving if roles[0] == "sar" else small.reference
    options = {"moving_modality": roles[0], "reference_modality": roles[1], **LIGHT}
    found = somareg.register(image, image, **options)
    free = somareg.register(image, image, model=FREE, **options)
    kept = found.settings["model_used"]
    assert kept in {FREE, DEFAULT_WEIGHTS}
    assert (found.settings["model_sha256"] is None) == (kept == FREE)
    assert same(found, free) == (kept == FREE)
    (note,) = set(found.notes) - set(free.notes)
    assert note.startswith("matched without weights" if kept == FREE else f"{DEFAULT_WEIGHTS} explains")
    assert f"{roles[0]} against {roles[1]}" in note


def test_a_narrow_pair_is_matched_without_weights_and_a_note(shipped: Path, small: SyntheticPair) -> None:
    moving, reference = np.tile(small.moving[:, :72], (1, 1, 13)), np.tile(small.reference[:, :72], (1, 1, 13))
    found = somareg.register(moving, reference, **LIGHT)  # 1248 x 72 px: matched at half of that
    free = somareg.register(moving, reference, model=FREE, **LIGHT)
    assert same(found, free)
    assert (found.settings["model_used"], found.settings["model_sha256"]) == (FREE, None)
    (note,) = set(found.notes) - set(free.notes)
    assert "without weights: compact needs 64 px a side" in note
    assert "624 x 36" in note
    with pytest.raises(ConfigError, match="624 x 36"):
        somareg.register(moving, reference, model=DEFAULT_WEIGHTS, **LIGHT)


def test_an_installation_without_weights(package: Path, small: SyntheticPair) -> None:
    found = somareg.register(small.moving, small.reference, **LIGHT)
    free = somareg.register(small.moving, small.reference, model=FREE, **LIGHT)
    assert same(found, free)
    assert found.settings["model_used"] == FREE
    assert set(found.notes) - set(free.notes) == {"matched without weights: none are in this installation"}
    assert somareg.load_model() is None
    for call in (somareg.load_model, partial(somareg.register, small.moving, small.reference)):
        with pytest.raises(WeightsError, match=r"'compact' are not in this installation.*model='orientation'"):
            call(model="compact")


def test_the_weight_free_engine_by_name_needs_no_note(shipped: Path, small: SyntheticPair) -> None:
    found = somareg.register(small.moving, small.reference, model=FREE, **LIGHT)
    assert found.settings["model_used"] == FREE
    assert not any("weights" in note for note in found.notes)


def test_damaged_default_weights_are_an_error_and_no_silent_change_of_method(
    shipped: Path, small: SyntheticPair
) -> None:
    shipped.write_bytes(shipped.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError, match="sha256 differs"):
        somareg.register(small.moving, small.reference, **LIGHT)


# --- who says so ------------------------------------------------------------------------------------------------------


def test_plan_says_what_register_would_take(shipped: Path, files: Files) -> None:
    plan = api.plan(files.moving, files.reference)
    assert plan["model"] == DEFAULT_WEIGHTS
    plan = api.plan(files.moving, files.reference, moving_modality="optical")
    assert plan["model"] == FREE
    assert "optical against optical" in plan["notes"][0]
    assert "notes" not in api.plan(files.moving, files.reference, model=FREE)


def test_plan_refuses_a_narrow_pair_as_register_does(
    shipped: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(choose.LONGEST, "base", 60)
    assert api.plan(files.moving, files.reference)["model"] == FREE
    with pytest.raises(ConfigError, match=r"48 x 48 \(reference\) and \d+ x \d+ px"):
        api.plan(files.moving, files.reference, model=DEFAULT_WEIGHTS)


def test_report_and_command_name_the_weights(
    shipped: Path, files: Files, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(SystemExit):
        main(["register", str(files.moving), str(files.reference), "-o", str(out), "--json", "--preset", "fast"])
    settings = json.loads(capfd.readouterr().out)["settings"]
    assert settings["model_used"] == "compact"
    assert settings["model_sha256"] == digest(shipped)
    assert json.loads((out / "report.json").read_text())["settings"] == settings
    page = (out / "report.html").read_text()
    assert digest(shipped) in page
    assert "meadow-3" in page


# --- the verdict ------------------------------------------------------------------------------------------------------


@pytest.fixture
def calibrated(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str | None], None]:
    """Make the calibration of an engine one that was fitted with the weights of a hash, and say "go" always."""

    def change(engine: str, weights: str | None) -> None:
        none = (0.0,) * len(SIGNS)
        made = calibration.Calibration((*none, 9.0), (*none, 0.0), 0.5, 0.1, 1.5, weights)
        load, fitted = calibration.load_calibration, calibration.calibrated_weights
        monkeypatch.setattr(choose, "calibrated_weights", lambda name: weights if name == engine else fitted(name))
        for module in (result, whole):
            monkeypatch.setattr(module, "load_calibration", lambda name: made if name == engine else load(name))

    return change


@pytest.mark.parametrize(("model", "engine"), [("auto", "learned"), (DEFAULT_WEIGHTS, "learned"), (FREE, FREE)])
def test_the_verdict_is_of_the_engine_that_ran(
    model: str, engine: str, shipped: Path, small: SyntheticPair, calibrated: Callable[[str, str | None], None]
) -> None:
    other = FREE if engine == "learned" else "learned"
    for changed, is_told in ((other, False), (engine, True)):
        calibrated(changed, None)
        result = somareg.register(small.moving, small.reference, model=model, **LIGHT)
        assert (result.verdict.probability == pytest.approx(1 / (1 + np.exp(-9.0)))) == is_told
        assert (result.predicted_rmse_px == pytest.approx(1.0)) == is_told


def test_a_verdict_calibrated_for_other_weights_says_so(
    shipped: Path, small: SyntheticPair, calibrated: Callable[[str, str | None], None]
) -> None:
    for weights, is_told in ((digest(shipped), False), ("0" * 64, True), (None, True)):
        calibrated("learned", weights)
        result = somareg.register(small.moving, small.reference, **LIGHT)
        assert any("calibrated for other weights" in note for note in result.notes) == is_told


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_importing_opens_no_weights() -> None:
    code = (
        "import sys\nopened = []\n"
        "sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == 'open' else None)\n"
        "import somareg.register.api, somareg.cli.main, somareg.lab.evaluate.peers\n"
        "weights = [path for path in opened if '.safetensors' in path or 'calibration-' in path]\n"
        "assert opened and not weights, weights"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
