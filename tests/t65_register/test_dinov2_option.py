"""`dinov2=`: a model that needs a frozen DINOv2 registers with the one that is named, checked, and recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import somareg
from somareg.batches.pairs import options_in
from somareg.config import make_config
from somareg.errors import ConfigError, WeightsError
from somareg.lab.evaluate.peers import make_methods
from somareg.register import api
from somareg.register.choose import choose_device, choose_model
from somareg.soma.dinov2_files import in_folder
from somareg.soma.weights.card import card_path
from somareg.soma.weights.frozen import UNCHECKED
from tests.small_network import save_network, two_looks
from tests.synthetic import SyntheticPair, affine_map
from tests.t65_register.conftest import Files
from tests.tiny_dinov2 import network_on, saved

pytest.importorskip("transformers")
OPTIONS: dict[str, Any] = {"moving_modality": "optical", "device": "cpu", "local": False}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("encoder") / "tiny-dinov2")


@pytest.fixture(scope="module")
def model(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(network_on(encoder), tmp_path_factory.mktemp("model") / "heath.safetensors")


@pytest.fixture(scope="module")
def pair() -> SyntheticPair:
    return two_looks(*affine_map((112, 112), rotation_deg=2, shift=(4.4, -3.2)), (112, 112))


def test_it_registers_and_the_report_names_the_encoder(
    model: Path, encoder: Path, pair: SyntheticPair, tmp_path: Path
) -> None:
    result = somareg.register(pair.moving, pair.reference, model=model, dinov2=encoder, **OPTIONS)
    assert pair.rmse(result.displacement.array) < 1.0
    folder = result.save(tmp_path / "out")
    for settings in (result.settings, json.loads((folder / "report.json").read_text())["settings"]):
        assert settings["dinov2"] == str(encoder)
        assert settings["dinov2_used"] == "tiny-dinov2"
        assert settings["dinov2_sha256"] == in_folder(encoder).identity().sha256
        assert settings["model_version"] == "heath"
    assert UNCHECKED not in result.notes


def test_a_relative_folder_is_recorded_whole(
    model: Path, encoder: Path, pair: SyntheticPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers of a scene may run in another folder."""
    monkeypatch.chdir(encoder.parent)
    asked = api._asked((None, None), {"dinov2": "tiny-dinov2"} | OPTIONS | {"reference_modality": "optical"})  # type: ignore[arg-type]
    assert asked.cfg.dinov2 == str(encoder)
    named = api._asked((None, None), {"dinov2": "somebody/dinov2"} | OPTIONS | {"reference_modality": "optical"})  # type: ignore[arg-type]
    assert named.cfg.dinov2 == "somebody/dinov2"


@pytest.mark.parametrize("call", ["register", "assess", "register_many", "plan", "load_model"])
def test_another_encoder_is_refused_before_an_image_is_matched(
    call: str, model: Path, files: Files, tmp_path: Path
) -> None:
    wrong = str(saved(tmp_path / "wrong-dinov2", seed=1))
    both = {"model": str(model), "dinov2": wrong}
    images = files.moving, files.reference
    calls: dict[str, Any] = {
        "register": lambda: somareg.register(*images, **both),
        "assess": lambda: somareg.assess(*images, **both),
        "register_many": lambda: list(somareg.register_many([images, images], **both)),
        "plan": lambda: api.plan(*images, **both),
        "load_model": lambda: somareg.load_model(both["model"], dinov2=wrong),
    }
    with pytest.raises(
        WeightsError, match=r"heath\.safetensors learned with DINOv2 tiny-dinov2.*wrong-dinov2.*--dinov2"
    ):
        calls[call]()


def test_the_plan_names_the_encoder(model: Path, encoder: Path, files: Files) -> None:
    found = api.plan(files.moving, files.reference, model=str(model), dinov2=str(encoder))
    assert found["dinov2"] == f"tiny-dinov2 (sha256 {in_folder(encoder).identity().sha256})"
    assert "dinov2" not in api.plan(files.moving, files.reference, model="orientation")


@pytest.mark.parametrize("name", ["auto", "compact", "orientation"])
@pytest.mark.parametrize("modality", ["sar", "optical"])
def test_models_without_dinov2_refuse_one(name: str, modality: str, encoder: Path) -> None:
    cfg = make_config({"model": name, "dinov2": encoder, "moving_modality": modality})
    with pytest.raises(ConfigError, match=r"dinov2 is given, but the model '.*' has no DINOv2; leave it out") as caught:
        choose_model(cfg, choose_device("cpu"))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="has no DINOv2"):
        somareg.load_model(name, dinov2=encoder)


def test_models_without_dinov2_record_none() -> None:
    chosen = choose_model(make_config({"model": "compact"}), choose_device("cpu"))
    assert chosen.settings["dinov2_used"] is chosen.settings["dinov2_sha256"] is None


def test_a_card_without_checksum_is_noted(model: Path, encoder: Path, tmp_path: Path) -> None:
    path = tmp_path / "early.safetensors"
    shutil.copy(model, path)
    card = json.loads(card_path(model).read_text())
    del card["dinov2"]
    card_path(path).write_text(json.dumps(card))
    chosen = choose_model(make_config({"model": path, "dinov2": encoder}), choose_device("cpu"))
    assert UNCHECKED in chosen.notes
    assert chosen.settings["dinov2_sha256"] == in_folder(encoder).identity().sha256


def test_a_column_of_a_list_means_a_folder_beside_it_or_a_name(encoder: Path) -> None:
    def read(cell: str) -> Any:
        return options_in({"dinov2": cell}, (), encoder.parent, "line 2")["dinov2"]

    assert read("tiny-dinov2") == str(encoder)
    assert read(str(encoder)) == str(encoder)
    assert read("somebody/dinov2") == "somebody/dinov2"
    np.testing.assert_equal(options_in({"dinov2": ""}, (), encoder.parent, "line 2"), {})


def test_the_benchmark_gives_it_to_the_models_that_need_it(model: Path, encoder: Path) -> None:
    heath, ours = make_methods([f"heath={model}", "ours"], str(encoder))
    assert (getattr(heath, "dinov2"), getattr(ours, "dinov2")) == (str(encoder), None)  # noqa: B009
    with pytest.raises(ConfigError, match="no method is a file of weights that needs DINOv2"):
        make_methods(["ours", "orientation"], str(encoder))
