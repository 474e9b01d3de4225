"""Weights to the disk and back into a network: what is written comes back, what cannot be written leaves nothing."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from somareg.config import to_mapping
from somareg.errors import ConfigError, OutputError, SomaregError, UnsupportedError, WeightsError
from somareg.soma import weights
from somareg.soma.network import NetworkCfg, Soma
from somareg.soma.weights.card import card_path
from tests.t42_soma.model_files import FIELDS, edit_card, flip

# What is written comes back


def test_round_trip_is_exact_to_fp16(state: dict[str, Tensor], saved: Path) -> None:
    found, card = weights.load_weights(saved)
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].shape == tensor.shape
        expected = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(found[name], expected), name
    assert found["norm.bias"].dtype == torch.float32
    assert found["seen"].dtype == torch.int64
    assert {t.dtype for n, t in load_file(saved).items() if n != "seen"} == {torch.float16}
    assert card.parameters == 4 * 27 + 4 + 1 + 30
    assert card.sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()


def test_card_keeps_every_field_and_no_nan(saved: Path) -> None:
    content = json.loads(card_path(saved).read_text(), parse_constant=pytest.fail)
    for key in ("name", "network", "data", "synthetic_share", "minutes", "device", "seed", "steps", "licence"):
        assert content[key] == FIELDS[key]
    assert content["scores"] == {"meadow val": {"cmr@1": 0.5, "ce90_px": None}}
    assert content["created"].endswith("Z")
    assert weights.read_card(saved).to_json() == card_path(saved).read_text()
    with pytest.raises(ValueError, match="frozen"):
        weights.read_card(saved).name = "other"  # type: ignore[misc]


def test_the_same_weights_give_the_same_bytes(state: dict[str, Tensor], saved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    weights.save_weights(dict(reversed(state.items())), FIELDS, again)
    assert again.read_bytes() == saved.read_bytes()


def test_tied_and_half_precision_weights_are_stored_apart(tmp_path: Path) -> None:
    tied = torch.arange(6.0).half()
    path = tmp_path / "tied.safetensors"
    weights.save_weights({"a": tied, "b": tied, "c": tied[2:4]}, FIELDS, path)
    found, _ = weights.load_weights(path)
    assert found["a"].tolist() == found["b"].tolist() == [0, 1, 2, 3, 4, 5]
    assert found["c"].tolist() == [2, 3]


# What cannot be written leaves nothing


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("nan"), "'bad' holds NaN"),
        (float("inf"), "'bad' holds NaN or infinite"),
        (65_520.0, "'bad' reaches 6.552e.04, beyond fp16"),
        (-1e300, "'bad' reaches 1e.300, beyond fp16"),
        (1j, "'bad' holds complex"),
    ],
)
def test_values_that_fp16_cannot_hold(state: dict[str, Tensor], tmp_path: Path, value: complex, says: str) -> None:
    dtype = torch.complex64 if isinstance(value, complex) else torch.float64
    bad = {**state, "bad": torch.tensor([1.0, value], dtype=dtype)}
    with pytest.raises(WeightsError, match=says):
        weights.save_weights(bad, FIELDS, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_the_largest_fp16_value_is_kept(tmp_path: Path) -> None:
    weights.save_weights({"a": torch.tensor([65_504.0, -65_504.0])}, FIELDS, tmp_path / "a.safetensors")
    assert weights.load_weights(tmp_path / "a.safetensors")[0]["a"].tolist() == [65_504.0, -65_504.0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "../evil"}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "tiny\n"}, "name"),
        ({"synthetic_share": 1.5}, "synthetic_share"),
        ({"minutes": float("nan")}, "minutes"),
        ({"data": [{"set": "a"}]}, "data.0.role"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_fields_of_the_card(state: dict[str, Tensor], tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        weights.save_weights(state, FIELDS | change, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights"):
        weights.save_weights({"count": torch.tensor(3)}, FIELDS, tmp_path / "a.safetensors")


def test_earlier_models_are_replaced_on_request_only(state: dict[str, Tensor], saved: Path) -> None:
    before = saved.read_bytes()
    other = {name: tensor + 1 for name, tensor in state.items()}
    with pytest.raises(OutputError, match="exists"):
        weights.save_weights(other, FIELDS, saved)
    assert saved.read_bytes() == before
    weights.save_weights(other, FIELDS, saved, overwrite=True)
    assert weights.load_weights(saved)[0]["scale"] == 1.5
    assert sorted(p.name for p in saved.parent.iterdir()) == ["tiny.json", "tiny.safetensors"]


def test_a_failure_half_way_puts_both_old_files_back(
    state: dict[str, Tensor], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of the two new files refuses to move."""
    before = {p.name: p.read_bytes() for p in saved.parent.iterdir()}
    moved: list[Path] = []
    rename = Path.rename

    def refuse_the_second(self: Path, target: Path) -> Path:
        if ".part" in self.parent.name and ".before" not in Path(target).parts and self.parent.name != ".before":
            moved.append(self)
            if len(moved) == 2:
                raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_the_second)
    with pytest.raises(OutputError, match="disk full"):
        weights.save_weights({n: t + 1 for n, t in state.items()}, FIELDS, saved, overwrite=True)
    assert len(moved) == 2
    assert {p.name: p.read_bytes() for p in saved.parent.iterdir()} == before


def test_other_programs_files_are_left_alone(state: dict[str, Tensor], tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text('{"epochs": 3}')
    with pytest.raises(OutputError, match="is no model card"):
        weights.save_weights(state, FIELDS, tmp_path / "train.safetensors", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["train.json"]


@pytest.mark.parametrize("name", ["a.pt", "a", "folder.safetensors"])
def test_bad_target(state: dict[str, Tensor], tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(OutputError, match=name):
        weights.save_weights(state, FIELDS, tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.safetensors"]


# The network


@pytest.fixture(scope="module")
def soma() -> Soma:
    torch.manual_seed(3)
    return Soma(NetworkCfg()).train()


@pytest.fixture
def model(soma: Soma, tmp_path: Path) -> Path:
    path = tmp_path / "soma.safetensors"
    weights.save_weights(soma.state_dict(), FIELDS | {"network": to_mapping(soma.cfg)}, path)
    return path


def test_load_network_has_the_saved_weights(soma: Soma, model: Path) -> None:
    found = weights.load_network(model)
    assert found.cfg == soma.cfg
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())
    kept = found.state_dict()
    for name, tensor in soma.state_dict().items():
        assert torch.equal(kept[name], tensor.half().float()), name
    torch.manual_seed(4)
    fresh = Soma(soma.cfg).state_dict()
    assert any(not torch.equal(kept[name], tensor) for name, tensor in fresh.items())


def test_load_network_builds_once_until_the_file_changes(soma: Soma, model: Path) -> None:
    first = weights.load_network(model)
    assert weights.load_network(str(model), torch.device("cpu")) is first
    state = {name: tensor * 0.5 for name, tensor in soma.state_dict().items()}
    weights.save_weights(state, FIELDS | {"network": to_mapping(soma.cfg)}, model, overwrite=True)
    second = weights.load_network(model)
    assert second is not first
    assert all(torch.equal(t, state[n].half().float()) for n, t in second.state_dict().items())
    flip(model, -1)
    with pytest.raises(WeightsError, match="sha256 differs"):
        weights.load_network(model)


def test_load_network_follows_an_edited_card(model: Path) -> None:
    weights.load_network(model)
    settings = json.loads(card_path(model).read_text())["network"]
    settings["encoder"]["coarse_channels"] += 1
    settings["encoder"]["fge"] = None
    edit_card(model, network=settings)
    with pytest.raises(WeightsError, match=r"unexpected 'encoder\.branches"):
        weights.load_network(model)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ({"encodr": {}}, "unknown option 'network.encodr'. Did you mean 'encoder'"),
        ({"encoder": {"coarse_channels": "many"}}, "network.encoder.coarse_channels"),
        ({"encoder": {"compact": {"widths": [-1, -1, -1, -1]}}}, "cannot build the network"),
        ({"encoder": {"compact": {"widths": [10**15, 8, 8, 8]}}}, "cannot build the network"),
    ],
)
def test_cards_of_impossible_networks(model: Path, network: dict[str, Any], says: str) -> None:
    edit_card(model, network=network)
    with pytest.raises(WeightsError, match=says) as caught:
        weights.load_network(model)
    assert str(model) in str(caught.value)


def test_errors_that_name_a_way_out_are_not_wrapped(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks_a_part(cfg: NetworkCfg) -> nn.Module:
        raise UnsupportedError("needs transformers")

    monkeypatch.setattr("somareg.soma.network.Soma", lacks_a_part)
    with pytest.raises(SomaregError, match=r"^needs transformers$"):
        weights.build_network({}, "m.safetensors")


def test_imports_without_raster_library() -> None:
    code = (
        "import sys; sys.modules['rasterio'] = None\n"
        "import somareg.soma.weights, somareg.lab.train.export\n"
        "assert 'lightning' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
