"""Weights from the disk: nothing is believed that is not checked, and a name means one file."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from somareg.errors import ConfigError, UnsupportedError, WeightsError
from somareg.soma import weights
from somareg.soma.weights import store
from somareg.soma.weights.card import card_path
from tests.t42_soma.model_files import edit_card, flip


def replace_weights(path: Path, data: bytes) -> None:
    """Other bytes with a card that vouches for them: what a forger would do."""
    path.write_bytes(data)
    edit_card(path, sha256=hashlib.sha256(data).hexdigest())


# What is read is checked


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
