"""Weights on the disk: what is written comes back, and nothing else is believed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from somareg.config import to_mapping
from somareg.errors import ConfigError, OutputError, SomaregError, UnsupportedError, WeightsError
from somareg.matching import weights
from somareg.matching.network import NetworkCfg, Soma
from somareg.matching.weights import store
from somareg.matching.weights.card import card_path

FIELDS: dict[str, Any] = {
    "name": "tiny",
    "network": {"encoder": {"widths": [8, 16]}},
    "data": [{"set": "meadow", "role": "train", "pairs": 12, "licence": "CC-BY-4.0"}],
    "synthetic_share": 0.25,
    "minutes": 5.0,
    "device": "cpu",
    "seed": 7,
    "steps": 300,
    "scores": {"meadow val": {"cmr@1": 0.5, "ce90_px": float("nan")}},
    "licence": "Apache-2.0",
}


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3),
        "norm.bias": torch.randn(4).double(),
        "scale": torch.tensor(0.5),
        "seen": torch.tensor(70_000),  # beyond fp16, exact as a whole number
        "turned": torch.randn(5, 6).T,  # not contiguous
    }


@pytest.fixture
def saved(state: dict[str, Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    weights.save_weights(state, FIELDS, path)
    return path


def edit_card(path: Path, **changes: Any) -> None:
    """Change fields of the card; the value `...` removes one."""
    beside = card_path(path)
    content = json.loads(beside.read_text()) | changes
    beside.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def replace_weights(path: Path, data: bytes) -> None:
    """Other bytes with a card that vouches for them: what a forger would do."""
    path.write_bytes(data)
    edit_card(path, sha256=hashlib.sha256(data).hexdigest())


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


# What is read is checked


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def disguise_pickle(path: Path) -> None:
    replace_weights(path, pickle.dumps({"conv.weight": [1.0]}))


def with_header(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def overlapping() -> bytes:
    entry = {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}
    return with_header(json.dumps({"a": entry, "b": entry}).encode(), b"\0" * 4)


def too_wide() -> bytes:
    entry = {"dtype": "F16", "shape": [2**40, 2**40], "data_offsets": [0, 4]}
    return with_header(json.dumps({"a": entry}).encode(), b"\0" * 4)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "last byte": (lambda p: flip(p, -1), "sha256 differs"),
    "header byte": (lambda p: flip(p, 12), "sha256 differs"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-7]), "sha256 differs"),
    "truncated and vouched for": (lambda p: replace_weights(p, p.read_bytes()[:-7]), "damaged"),
    "empty and vouched for": (lambda p: replace_weights(p, b""), "damaged"),
    "huge header": (lambda p: replace_weights(p, struct.pack("<Q", 2**63) + b"{}"), "damaged"),
    "header longer than the file": (lambda p: replace_weights(p, struct.pack("<Q", 5000) + b"{}"), "damaged"),
    "header is no JSON": (lambda p: replace_weights(p, with_header(b"\xff" * 64)), "damaged"),
    "overlapping tensors": (lambda p: replace_weights(p, overlapping()), "damaged"),
    "shape beyond the data": (lambda p: replace_weights(p, too_wide()), "damaged"),
    "pickle": (disguise_pickle, "damaged or not a safetensors file"),
    "zip": (lambda p: replace_weights(p, b"PK\x03\x04" + b"\0" * 200), "damaged or not a safetensors file"),
    "NaN": (lambda p: replace_weights(p, save({"a\nb": torch.tensor([1.0, float("nan")])})), r"'a\\nb' holds NaN"),
    "complex": (lambda p: replace_weights(p, save({"a": torch.ones(2, dtype=torch.complex64)})), "complex"),
    "other count": (lambda p: edit_card(p, parameters=3), "holds 143 numbers, its card says 3"),
    "no card": (lambda p: card_path(p).unlink(), "tiny.json does not exist"),
    "card is a folder": (lambda p: (card_path(p).unlink(), card_path(p).mkdir()), "is a folder"),
    "card is no JSON": (lambda p: card_path(p).write_text("{"), "not valid JSON"),
    "card is not UTF-8": (lambda p: card_path(p).write_bytes(b'{"name": "\xff"}'), "not valid JSON"),
    "card is a list": (lambda p: card_path(p).write_text("[]"), "not a model card"),
    "card nests deeply": (lambda p: card_path(p).write_text("[" * 100_000), "not valid JSON"),
    "card is huge": (lambda p: card_path(p).write_text(" " * (1024 * 1024 + 1)), "more than the limit"),
    "unknown field": (lambda p: edit_card(p, colour="red"), "'colour'"),
    "missing field": (lambda p: edit_card(p, seed=...), "'seed'"),
    "negative minutes": (lambda p: edit_card(p, minutes=-1), "'minutes'"),
    "hash is no hash": (lambda p: edit_card(p, sha256="0" * 63), "'sha256'"),
    "another hash": (lambda p: edit_card(p, sha256="0" * 64), "sha256 differs"),
    "weights missing": (lambda p: p.unlink(), "tiny.safetensors does not exist"),
    "weights are a folder": (lambda p: (p.unlink(), p.mkdir()), "is a folder"),
    "broken link": (lambda p: (p.unlink(), p.symlink_to("nowhere.safetensors")), "does not exist"),
    "link to itself": (lambda p: (p.unlink(), p.symlink_to(p.name)), "cannot be read"),
    "pipe": (lambda p: (p.unlink(), os.mkfifo(p)), "not a regular file"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_spoilt_model(saved: Path, kind: str) -> None:
    spoil, says = SPOILT[kind]
    spoil(saved)
    with pytest.raises(WeightsError, match=says) as caught:
        weights.load_weights(saved)
    message = str(caught.value)
    assert str(saved.with_suffix("")) in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(saved))


def test_links_to_whole_models_are_followed(saved: Path, tmp_path: Path) -> None:
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"link{suffix}").symlink_to(saved.with_suffix(suffix))
    assert weights.load_weights(tmp_path / "link.safetensors")[1].name == "tiny"


def test_a_later_format_is_told_as_such(saved: Path) -> None:
    edit_card(saved, format_version=2)
    with pytest.raises(UnsupportedError, match=r"card format 2; somareg .* reads 1"):
        weights.load_weights(saved)


def test_large_files_are_refused_before_they_are_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = saved.stat().st_size
    assert weights.load_weights(saved, max_bytes=size)
    opened: list[Path] = []
    monkeypatch.setattr(Path, "open", lambda self, *_: opened.append(self))
    with pytest.raises(WeightsError, match=f"{size} bytes, more than the limit of {size - 1}"):
        weights.load_weights(saved, max_bytes=size - 1)
    with pytest.raises(WeightsError, match="more than the limit"):
        os.truncate(saved, store.MAX_BYTES + 1)  # sparse
        weights.load_weights(saved)
    assert opened == []


@pytest.mark.parametrize("suffix", ["pt", "pth", "ckpt", "bin", "pkl", "PT"])
def test_pickled_formats_are_refused_unopened(
    saved: Path, suffix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = saved.rename(tmp_path / f"tiny.{suffix}")
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("opened"))
    with pytest.raises(WeightsError, match=f"run 'somareg export .*tiny.{suffix} -o tiny.safetensors'"):
        weights.load_weights(path)


@pytest.mark.parametrize("name", ["tiny.onnx", "tiny", "a\0b.safetensors"])
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError):
        weights.load_weights(tmp_path / name)


# Names, shapes and kinds


def test_check_state_names_what_differs() -> None:
    expected = {name: torch.zeros(2, 3) for name in "abcdef"}
    weights.check_state(expected, {name: t.half() for name, t in reversed(expected.items())})
    found: Mapping[str, Tensor] = {
        "a": torch.zeros(3, 2),
        "b": torch.zeros(2, 3, dtype=torch.int64),
        "x\n": expected["a"],
    }
    with pytest.raises(WeightsError) as caught:
        weights.check_state(expected, found, "m.safetensors")
    message = str(caught.value)
    assert message.startswith("m.safetensors: does not fit the network: ")
    assert "missing 'c', 'd', 'e' and 1 more" in message
    assert r"unexpected 'x\n'" in message
    assert "wrong 'a' (3x2, not 2x3), 'b' (2x3 int64, not 2x3)" in message


# Which file a name means


@pytest.fixture
def shipped(saved: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder with one model, `tiny`."""
    monkeypatch.setattr(store, "files", lambda package: saved.parent)
    return saved


def test_default_weights_that_are_missing(shipped: Path) -> None:
    with pytest.raises(WeightsError, match=r"'compact' are not in this installation; install .* model='orientation'"):
        weights.resolve(weights.DEFAULT_WEIGHTS)
    for ending in (".safetensors", ".json"):
        shipped.with_suffix(ending).rename(shipped.with_name(weights.DEFAULT_WEIGHTS + ending))
    assert weights.resolve(weights.DEFAULT_WEIGHTS) == shipped.with_name("compact.safetensors")


def test_every_embedded_model_loads() -> None:
    for path in weights.embedded().values():
        weights.load_network(path)


def test_resolve_knows_names_and_paths(shipped: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert weights.embedded() == {"tiny": shipped}
    assert weights.resolve("tiny") == shipped
    assert weights.resolve("some/where.safetensors") == Path("some/where.safetensors")
    assert weights.resolve("old.ckpt") == Path("old.ckpt")  # loading it tells how to export it
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare").touch()
    assert weights.resolve("bare") == Path("bare")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("tny", "Did you mean 'tiny'"),
        ("orientaton", "Did you mean 'orientation'"),
        ("zzz", "Choose from auto, orientation, tiny"),
        ("", "Choose from"),
        ("compct", "Choose from auto, orientation, tiny"),  # what this installation lacks is not suggested
        ("tiny\0", "tiny"),
    ],
)
def test_unknown_models(shipped: Path, model: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        weights.resolve(model)


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

    monkeypatch.setattr("somareg.matching.network.Soma", lacks_a_part)
    with pytest.raises(SomaregError, match=r"^needs transformers$"):
        weights.build_network({}, "m.safetensors")


def test_imports_without_raster_library() -> None:
    code = (
        "import sys; sys.modules['rasterio'] = None\n"
        "import somareg.matching.weights, somareg.lab.train.export\n"
        "assert 'lightning' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
