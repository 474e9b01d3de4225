"""`somareg export` of a network with DINOv2: its checksum goes from the training, or from the files, into the card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from somareg.config import to_mapping
from somareg.errors import ConfigError, UnsupportedError, WeightsError
from somareg.lab.train.export import export_checkpoint
from somareg.lab.train.export_onnx import export_onnx
from somareg.soma import dinov2_files
from somareg.soma.dinov2_files import in_folder
from somareg.soma.network import Soma
from somareg.soma.weights import load_network, read_card
from tests.small_network import small_network
from tests.t80_cli.conftest import Cli
from tests.tiny_dinov2 import network_on, saved

pytest.importorskip("transformers")
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("encoder") / "tiny-dinov2")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("encoder") / "other-dinov2", seed=1)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A checkpoint of a network, its record with some more keys."""

    def checkpoint(network: Soma, **more: Any) -> Path:
        record = {"config": {"network": to_mapping(network.cfg)}, "data": [], "minutes": 1.0, "steps": 3}
        record |= {"device": "cpu", "seed": 0, "scores": {}} | more
        state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
        torch.save({"state_dict": state, "somareg": record}, tmp_path / "last.ckpt")
        return tmp_path / "last.ckpt"

    return checkpoint


def recorded(folder: Path) -> dict[str, str]:
    found: dict[str, str] = to_mapping(in_folder(folder).identity())
    return found


def test_the_checksum_of_the_training_needs_no_files(encoder: Path, write: Write, tmp_path: Path) -> None:
    """Exported on another machine than the one that trained."""
    network, out = network_on(tmp_path / "of-the-trainer" / "tiny-dinov2"), tmp_path / "heath.safetensors"
    card = export_checkpoint(write(network, dinov2=recorded(encoder)), out)
    assert card.dinov2 is not None
    assert card.dinov2.model_dump() == recorded(encoder)
    text = out.with_suffix(".json").read_text()
    assert "of-the-trainer" not in text and str(tmp_path) not in text
    assert load_network(out, dinov2=str(encoder)).encoder.dinov2 is not None


def test_an_earlier_checkpoint_takes_the_files(encoder: Path, other: Path, write: Write, tmp_path: Path) -> None:
    out = tmp_path / "heath.safetensors"
    card = export_checkpoint(write(network_on(encoder)), out)  # the folder of the configuration
    assert card.dinov2 is not None and card.dinov2.model_dump() == recorded(encoder)
    moved = write(network_on(tmp_path / "absent"))
    with pytest.raises(WeightsError, match=r"absent.*--dinov2") as caught:
        export_checkpoint(moved, out, overwrite=True)
    assert "\n" not in str(caught.value)
    card = export_checkpoint(moved, out, dinov2=str(other), overwrite=True)
    assert card.dinov2 is not None and card.dinov2.model_dump() == recorded(other)


def test_another_encoder_than_in_training_is_refused(encoder: Path, other: Path, write: Write, tmp_path: Path) -> None:
    checkpoint, out = write(network_on(encoder), dinov2=recorded(encoder)), tmp_path / "heath.safetensors"
    with pytest.raises(WeightsError, match=r"last\.ckpt learned with DINOv2 tiny-dinov2.*other-dinov2.*--dinov2"):
        export_checkpoint(checkpoint, out, dinov2=str(other))
    assert not out.exists()
    export_checkpoint(checkpoint, out, dinov2=str(encoder))


def test_a_network_without_dinov2_refuses_one(encoder: Path, write: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no DINOv2"):
        export_checkpoint(write(small_network()), tmp_path / "a.safetensors", dinov2=str(encoder))
    assert export_checkpoint(write(small_network()), tmp_path / "a.safetensors").dinov2 is None


def test_the_command(encoder: Path, other: Path, write: Write, tmp_path: Path, cli: Cli) -> None:
    checkpoint, out = write(network_on(tmp_path / "absent")), tmp_path / "heath.safetensors"
    done = cli("export", str(checkpoint), "-o", str(out), "--dinov2", str(encoder))
    assert done.code == 0
    sha256 = recorded(encoder)["sha256"]
    assert f"tiny-dinov2, sha256 {sha256}" in done.out
    assert "--dinov2 PATH" in done.out
    again = cli("export", str(checkpoint), "-o", str(out), "--dinov2", str(encoder), "--overwrite", "--json")
    assert json.loads(again.out)["model"]["dinov2"] == {"name": "tiny-dinov2", "sha256": sha256}
    lost = cli("export", str(checkpoint), "-o", str(tmp_path / "no.safetensors"))
    assert (lost.code, lost.err.count("\n")) == (1, 1)
    assert "--dinov2" in lost.err
    onnx = cli("export", str(checkpoint), "-o", str(tmp_path / "no.onnx"), "--dinov2", str(encoder))
    assert (onnx.code, onnx.err.count("\n")) == (2, 1)


def test_onnx_is_refused_before_dinov2_is_looked_for(encoder: Path, write: Write, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    out = tmp_path / "heath.safetensors"
    checkpoint = write(network_on(encoder), dinov2=recorded(encoder))
    export_checkpoint(checkpoint, out)
    for source in (checkpoint, out):
        with pytest.raises(UnsupportedError, match="DINOv2, and no ONNX graph"):
            export_onnx(source, tmp_path / "heath.onnx")


def test_the_doctor_shows_the_encoders_of_the_cache(
    encoder: Path, cli: Cli, fake_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> str:
        check = json.loads(cli("doctor", "--json").out)["checks"]["dinov2"]
        assert check["ok"]
        text: str = check["found"]
        return text

    monkeypatch.setattr(dinov2_files, "cached_dinov2", lambda: (in_folder(encoder),))
    assert found() == f"in the local cache: tiny-dinov2, sha256 {recorded(encoder)['sha256']}"
    monkeypatch.setattr(dinov2_files, "cached_dinov2", lambda: ())
    assert found().startswith("none in the local cache")

    def absent() -> Any:
        raise UnsupportedError("no transformers")

    monkeypatch.setattr(dinov2_files, "cached_dinov2", absent)
    assert "pip install 'somareg[dinov2]'" in found()


def test_the_doctor_shows_the_encoder_of_an_installed_model(
    encoder: Path, write: Write, cli: Cli, fake_api: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from somareg.soma.weights import store

    card = export_checkpoint(write(network_on(encoder)), tmp_path / "compact.safetensors")
    assert read_card(tmp_path / "compact.safetensors") == card
    monkeypatch.setattr(store, "files", lambda package: tmp_path)
    check = json.loads(cli("doctor", "--json").out)["checks"]["weights"]
    assert check["ok"] is False and "tiny-dinov2" in check["found"] and "--dinov2" in check["found"]
