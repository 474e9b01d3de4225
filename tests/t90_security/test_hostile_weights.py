"""A checkpoint or model from a stranger: an error, and not one instruction of it runs."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from somareg.errors import ReadError, WeightsError
from somareg.lab.train.export import export_checkpoint
from somareg.soma.weights import load_network, load_weights, save_weights
from tests.t80_cli.conftest import Cli

FIELDS = dict.fromkeys(("minutes", "seed", "steps"), 0) | {"network": {}, "scores": {}}
FIELDS |= {"name": "a", "data": [], "synthetic_share": None, "device": "cpu", "licence": "none"}


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def torch_zip(path: Path, bomb: Bomb) -> None:
    torch.save({"state_dict": {"network.a": torch.ones(1)}, "somareg": bomb}, path)


def torch_legacy(path: Path, bomb: Bomb) -> None:
    torch.save({"somareg": bomb}, path, _use_new_zipfile_serialization=False)


def bare_pickle(path: Path, bomb: Bomb) -> None:
    path.write_bytes(pickle.dumps({"state_dict": bomb}))


def torch_script(path: Path, bomb: Bomb) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(bomb))
        archive.writestr("a/constants.pkl", pickle.dumps(bomb))
        archive.writestr("a/version", "3")


WRITERS: list[Callable[[Path, Bomb], None]] = [torch_zip, torch_legacy, bare_pickle, torch_script]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "code-was-run"


@pytest.mark.parametrize("write", WRITERS[:3])
def test_the_bomb_is_a_bomb(trace: Path, tmp_path: Path, write: Callable[[Path, Bomb], None]) -> None:
    """Without this the tests below could pass with a dud."""
    write(tmp_path / "a.ckpt", Bomb(trace))
    if write is bare_pickle:
        pickle.loads((tmp_path / "a.ckpt").read_bytes())
    else:
        torch.load(tmp_path / "a.ckpt", weights_only=False)
    assert trace.is_dir()


@pytest.mark.parametrize("write", WRITERS)
def test_export_runs_no_code(cli: Cli, trace: Path, tmp_path: Path, write: Callable[[Path, Bomb], None]) -> None:
    checkpoint, out = tmp_path / "a.ckpt", tmp_path / "a.safetensors"
    write(checkpoint, Bomb(trace))
    with pytest.raises(ReadError, match=r"a\.ckpt is damaged, or holds Python objects that could run code"):
        export_checkpoint(checkpoint, out)
    done = cli("export", checkpoint, "-o", out)
    assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_the_environment_cannot_switch_the_safe_reader_off(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch_zip(tmp_path / "a.ckpt", Bomb(trace))
    with pytest.raises(ReadError):
        export_checkpoint(tmp_path / "a.ckpt", tmp_path / "a.safetensors")
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".pt", ".bin"])
@pytest.mark.parametrize("write", WRITERS)
def test_loading_a_model_runs_no_code(
    trace: Path, tmp_path: Path, write: Callable[[Path, Bomb], None], suffix: str
) -> None:
    """Even a card that vouches for the pickle does not get it opened."""
    save_weights({"a": torch.ones(2)}, FIELDS, tmp_path / "a.safetensors")
    card = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.safetensors").unlink()
    path = tmp_path / f"a{suffix}"
    write(path, Bomb(trace))
    card["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "a.json").write_text(json.dumps(card))
    for load in (load_weights, load_network):
        with pytest.raises(WeightsError, match=r"not a safetensors file|never loaded"):
            load(path)
    assert not trace.exists()


def test_card_cannot_smuggle_lines_into_the_terminal(cli: Cli, tmp_path: Path) -> None:
    """Texts of a checkpoint's record are escaped where they are printed."""
    from somareg.config import to_mapping
    from somareg.soma.network import NetworkCfg, Soma

    soma = Soma(NetworkCfg())
    record = {key: FIELDS[key] for key in ("minutes", "seed", "steps", "data")}
    record |= {
        "config": {"network": to_mapping(soma.cfg)},
        "device": "cpu\n\x1b[31mfine",
        "scores": {"a\nb": "\x1b[2J"},
    }
    state = {f"network.{name}": tensor for name, tensor in soma.state_dict().items()}
    torch.save({"state_dict": state, "somareg": record}, tmp_path / "a.ckpt")
    done = cli("export", tmp_path / "a.ckpt", "-o", tmp_path / "a.safetensors")
    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    assert not any(line.startswith(("b", "fine")) for line in done.out.splitlines())
