"""`somareg export`: the network of a checkpoint, averaged, as weights that load; and the command around it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from somareg.config import to_mapping
from somareg.errors import ConfigError, OutputError, ReadError, WeightsError
from somareg.lab.train.export import export_checkpoint
from somareg.soma.network import NetworkCfg, Soma
from somareg.soma.weights import load_network, load_weights
from tests.t80_cli.conftest import Cli

Content = dict[str, Any]
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def soma() -> Soma:
    torch.manual_seed(0)
    return Soma(NetworkCfg())


@pytest.fixture(scope="module")
def averages(soma: Soma) -> dict[str, Tensor]:
    return {name: tensor * 0.5 for name, tensor in soma.state_dict().items()}


@pytest.fixture
def content(soma: Soma, averages: dict[str, Tensor]) -> Content:
    """What the training engine saves, with the parts that an export leaves out."""
    state = {f"network.{name}": tensor for name, tensor in soma.state_dict().items()}
    record = {
        "config": {"network": to_mapping(soma.cfg), "seed": 7},
        "data": [{"set": "meadow", "role": "train", "pairs": 12, "licence": "CC-BY-4.0"}],
        "synthetic_share": 0.5,
        "minutes": 12.5,
        "steps": 300,
        "device": "cpu",
        "seed": 7,
        "scores": {"meadow val": {"cmr@1": 0.625, "ce90_px": float("inf")}},
    }
    return {
        "state_dict": state | {"loss.weight": torch.ones(3)},
        "ema": averages,
        "somareg": record,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}],
        "epoch": 0,
        "global_step": 300,
    }


@pytest.fixture
def write(content: Content, tmp_path: Path) -> Write:
    """Save the checkpoint with some keys changed; the value `...` removes one."""

    def save(**changes: Any) -> Path:
        whole = {key: value for key, value in (content | changes).items() if value is not ...}
        torch.save(whole, tmp_path / "last.ckpt")
        return tmp_path / "last.ckpt"

    return save


# The export


def test_averaged_weights_are_exported(soma: Soma, averages: dict[str, Tensor], write: Write, tmp_path: Path) -> None:
    card = export_checkpoint(write(), tmp_path / "model.safetensors")
    state, kept = load_weights(tmp_path / "model.safetensors")
    assert kept == card
    assert state.keys() == averages.keys()
    assert all(torch.equal(state[name], tensor.half().float()) for name, tensor in averages.items())
    assert (card.name, card.licence, card.steps, card.minutes) == ("model", "not stated", 300, 12.5)
    assert card.parameters == sum(tensor.numel() for tensor in averages.values())
    assert card.synthetic_share == 0.5
    assert card.scores == {"meadow val": {"cmr@1": 0.625, "ce90_px": None}}
    assert card.notes == "averaged weights (EMA)"
    network = load_network(tmp_path / "model.safetensors")
    assert network.cfg == soma.cfg
    assert torch.equal(network.state_dict()[next(iter(state))], next(iter(state.values())))


@pytest.mark.parametrize(("raw", "ema"), [(True, None), (False, ...), (False, {})])
def test_weights_of_the_last_step(soma: Soma, write: Write, tmp_path: Path, raw: bool, ema: Any) -> None:
    checkpoint = write() if ema is None else write(ema=ema)
    card = export_checkpoint(checkpoint, tmp_path / "model.safetensors", raw=raw)
    state, _ = load_weights(tmp_path / "model.safetensors")
    assert all(torch.equal(state[name], tensor.half().float()) for name, tensor in soma.state_dict().items())
    # The training engine validates the averaged weights; the card says so where others are shipped.
    assert card.notes == "weights of the last step" + raw * "; the scores are those of the averaged weights"


def test_a_checkpoint_of_lightning_itself(soma: Soma, content: Content, tmp_path: Path) -> None:
    """What Lightning adds to the file (loops, callbacks, optimisers, its version) does not stop the safe reader."""
    lightning = pytest.importorskip("lightning.pytorch")

    class Task(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = soma
            self.loss = nn.Linear(2, 2)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters())

        def on_save_checkpoint(self, checkpoint: Content) -> None:
            checkpoint["somareg"] = content["somareg"]

    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[lightning.callbacks.ModelCheckpoint(dirpath=tmp_path / "kept")],
    )
    trainer.strategy.connect(Task())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    card = export_checkpoint(tmp_path / "last.ckpt", tmp_path / "model.safetensors")
    assert card.parameters == sum(tensor.numel() for tensor in soma.state_dict().values())


def change_record(content: Content, **changes: Any) -> Content:
    return {key: value for key, value in (content["somareg"] | changes).items() if value is not ...}


BAD: dict[str, tuple[Callable[[Content], Content], type[Exception], str]] = {
    "no record": (lambda c: {"somareg": ...}, ReadError, "no record 'somareg'"),
    "record is a list": (lambda c: {"somareg": [1]}, ReadError, "no record 'somareg'"),
    "no seed": (lambda c: {"somareg": change_record(c, seed=...)}, ReadError, "lacks 'seed'"),
    "no network settings": (lambda c: {"somareg": change_record(c, config={})}, ReadError, "no config of the network"),
    "other settings": (
        lambda c: {"somareg": change_record(c, config={"network": {"encoder": {"fge": None}}})},
        WeightsError,
        "does not fit the network: unexpected 'encoder",
    ),
    "unknown settings": (
        lambda c: {"somareg": change_record(c, config={"network": {"glan": {}}})},
        WeightsError,
        "Did you mean 'glam'",
    ),
    "data without a licence": (
        lambda c: {"somareg": change_record(c, data=[{"set": "a", "role": "train", "pairs": 1}])},
        ConfigError,
        "licence",
    ),
    "no state": (lambda c: {"state_dict": ...}, ReadError, "state_dict is not a mapping"),
    "no network": (lambda c: {"state_dict": {"model.a": torch.ones(1)}}, ReadError, "starts with 'network.'"),
    "not tensors": (lambda c: {"state_dict": {"network.a": 1.0}}, ReadError, "state_dict is not a mapping of names"),
    "ema is a list": (lambda c: {"ema": [1]}, ReadError, "ema is not a mapping"),
    "ema lacks a tensor": (lambda c: {"ema": dict(list(c["ema"].items())[1:])}, WeightsError, "lack 'encoder.*--raw"),
    "ema has one more": (lambda c: {"ema": {**c["ema"], "x": torch.ones(1)}}, WeightsError, "an unknown 'x'.*--raw"),
    "ema of another shape": (
        lambda c: {"ema": {name: t.reshape(-1) for name, t in c["ema"].items()}},
        WeightsError,
        "wrong 'encoder",
    ),
    "diverged": (
        lambda c: {"ema": {name: t * float("nan") for name, t in c["ema"].items()}},
        WeightsError,
        "the training diverged",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_checkpoints_that_cannot_be_exported(content: Content, write: Write, tmp_path: Path, kind: str) -> None:
    change, error, says = BAD[kind]
    checkpoint = write(**change(content))
    with pytest.raises(error, match=says):
        export_checkpoint(checkpoint, tmp_path / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_damaged_files(write: Write, tmp_path: Path) -> None:
    checkpoint, out = write(), tmp_path / "model.safetensors"
    whole = checkpoint.read_bytes()
    for data in (b"", b"text", whole[: len(whole) // 2], whole[100:]):
        checkpoint.write_bytes(data)
        with pytest.raises(ReadError, match=r"last\.ckpt is damaged"):
            export_checkpoint(checkpoint, out)
    torch.save([1, 2], checkpoint)
    with pytest.raises(ReadError, match="holds no checkpoint but a list"):
        export_checkpoint(checkpoint, out)
    with pytest.raises(ReadError, match="is not a file"):
        export_checkpoint(tmp_path, out)
    assert not out.exists()


def test_earlier_models_are_kept(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    export_checkpoint(write(), out)
    before = out.read_bytes()
    with pytest.raises(OutputError, match="--overwrite"):
        export_checkpoint(write(), out, raw=True)
    assert out.read_bytes() == before
    export_checkpoint(write(), out, raw=True, overwrite=True)
    assert out.read_bytes() != before


# The command


def test_export_prints_what_was_written(cli: Cli, write: Write, tmp_path: Path) -> None:
    out = tmp_path / "field-a.safetensors"
    done = cli("export", write(), "-o", out, "--licence", "CC-BY-4.0 [red]")
    assert (done.code, done.err) == (0, "")
    _, card = load_weights(out)
    lines = {line.split("  ")[0]: line for line in done.out.splitlines()}
    assert "field-a" in lines["model"]
    assert f"{out} (3.8 MB)" in lines["weights"] or f"{out.stat().st_size / 1e6:.1f} MB" in lines["weights"]
    assert f"{card.parameters:,}" in lines["parameters"]
    assert "12.5 min, 300 steps on cpu" in lines["trained"]
    assert lines["sha256"].endswith(card.sha256)
    assert lines["licence"].endswith("CC-BY-4.0 [red]")
    assert lines["score meadow val cmr@1"].endswith(" 0.625")
    assert lines["score meadow val ce90_px"].endswith(" –")
    assert done.out.splitlines()[-1].endswith(f"--model {out}")


def test_export_as_json(cli: Cli, write: Write, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    done = cli("export", write(), "-o", out, "--name", "meadow-1", "--raw", "--json")
    document = json.loads(done.out)
    assert done.code == 0
    assert document["model"] == json.loads(out.with_suffix(".json").read_text())
    assert (document["weights"], document["bytes"]) == (str(out), out.stat().st_size)
    assert document["model"]["name"] == "meadow-1"
    assert document["model"]["notes"].startswith("weights of the last step")
    again = cli("export", tmp_path / "last.ckpt", "-o", out, "--json")
    assert again.code == json.loads(again.out)["error"]["exit_code"] == 1
    assert cli("export", tmp_path / "last.ckpt", "-o", out, "--overwrite", "-q").out == ""
    assert load_weights(out)[1].name == "model"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere.ckpt", "-o", "model.safetensors"], 1, "nowhere.ckpt does not exist"),
        (["last.ckpt", "-o", "model.pt"], 1, "must end in .safetensors"),
        (["last.ckpt", "-o", "model.safetensors", "--name", "a b"], 2, "'name'"),
        (["last.ckpt"], 2, "missing option '--out' / '-o'"),
        (["last.ckpt", "-o", "model.safetensors", "--raww"], 2, "Did you mean '--raw'"),
    ],
)
def test_wrong_usage(
    cli: Cli, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, says: str
) -> None:
    write()
    monkeypatch.chdir(tmp_path)
    done = cli("export", *arguments)
    assert (done.code, done.out, len(done.err.splitlines())) == (code, "", 1)
    assert says in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
