"""`somareg train` from the shell, the protocol's judge, and SOMA itself for a step or two."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from somareg.cli.main import main
from somareg.cli.train import device_settings
from somareg.lab.data.stacks import ProtocolSamples, SampleStack
from somareg.lab.train import engine
from somareg.lab.train.config import load_config
from somareg.lab.train.engine import train
from somareg.lab.train.judge import ProtocolValidator
from tests.t77_train.standin import FixedValidator, parts, read

CONFIGS = Path(__file__).parents[2] / "configs"
Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shell(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr(engine, "own_parts", lambda: parts(validator=lambda cfg: FixedValidator()))

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main(["train", *map(str, arguments)])
        out, err = capfd.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, out, err

    return call


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "quick.yaml"
    path.write_text("optimiser: {schedule: cosine, lr: 1e-2}\nrun: {batch: 2, max_steps: 3, accelerator: cpu}\n")
    return path


def test_train_then_resume(shell: Shell, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, printed, _ = shell("-c", config, "-o", out, "--data", "a", "--data", "b", "--set", "run.log_every_steps=1")
    assert code == 0
    lines = dict(line.split(maxsplit=1) for line in printed.splitlines() if line.strip())
    assert lines["cmr_3"].strip() == "0.5"
    assert lines["next:"].strip() == f"somareg export {out / 'best.ckpt'} -o {out / 'model.safetensors'}"
    saved = load_config(out / "config.yaml")
    assert saved.data.tiles == ("a", "b")
    assert saved.run.log_every_steps == 1
    # the folder's own settings, with one changed
    code, printed, _ = shell("-o", out, "--resume", "--set", "run.max_steps=5", "--json")
    assert code == 0
    assert json.loads(printed)["steps"] == 5
    assert read(out / "last.ckpt")["somareg"]["config"]["data"]["tiles"] == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "missing option '--config'"),
        (["--resume"], "missing option '--config'"),
        (["-c", "nothing.yaml"], "nothing.yaml cannot be read"),
        (["-c", "CONFIG", "--set", "run.bach=1"], "Did you mean 'batch'?"),
        (["-c", "CONFIG", "--device", "tpu"], "unknown --device 'tpu'"),
        (["-c", "CONFIG", "--resume", "--overwrite"], "not both"),
        (["-c", "CONFIG", "--max-minutes", "0"], "max_minutes is 0"),
    ],
)
def test_wrong_usage(shell: Shell, config: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    filled = [str(config) if argument == "CONFIG" else argument for argument in arguments]
    code, printed, errors = shell("-o", tmp_path / "run", *filled)
    assert (code, printed) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_device_names() -> None:
    assert device_settings("auto") == {}
    assert device_settings("cuda:1") == {"run.accelerator": "cuda", "run.devices": [1]}


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_committed_configurations_are_valid(name: str) -> None:
    cfg = load_config(CONFIGS / f"{name}.yaml")
    assert cfg.data.tiles
    assert cfg.data.validation


# --- the judge --------------------------------------------------------------------------------------------------------


class Knowing(nn.Module):
    """Answers with the affine that it was told."""

    def __init__(self, affine: Tensor) -> None:
        super().__init__()
        self.affine = affine
        self.asked: list[tuple[Tensor, ...]] = []

    def forward(self, *images: Any) -> Any:
        self.asked.append(images)
        affine = self.affine.expand(len(images[0]), 2, 3)
        return type("Output", (), {"affine": affine})()


def samples(path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)

    def stack(level: str, count: int) -> SampleStack:
        moving = torch.randint(0, 256, (count, 64, 64), dtype=torch.uint8, generator=generator)
        reference = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=generator)
        matrix = torch.eye(2, 3, dtype=torch.float64).repeat(count, 1, 1) + torch.arange(count).view(-1, 1, 1)
        return SampleStack("a", "val", level, moving, reference, matrix, tuple(range(count)), ("g",) * count, 1.0)

    return ProtocolSamples((stack("m", 6), stack("H", 3))).save(path)


def test_the_judge_shows_normalised_pairs_and_draws_the_raw_ones(tmp_path: Path) -> None:
    judge = ProtocolValidator(str(samples(tmp_path / "val.safetensors")), 5, 2)
    batches = list(judge.batches(torch.device("cpu")))
    assert [len(batch) for batch in batches] == [3, 2]  # the limit is shared by sets and levels
    assert batches[0].modalities == ("optical", "sar")
    torch.testing.assert_close(batches[0].truth[2], torch.eye(2, 3) + 2)
    for image in (batches[0].reference, batches[0].moving):
        torch.testing.assert_close(image.mean((-2, -1)), torch.zeros(image.shape[:2]), atol=1e-4, rtol=0)
        torch.testing.assert_close(image.std((-2, -1)), torch.ones(image.shape[:2]), atol=1e-2, rtol=0)
    network = Knowing(torch.eye(2, 3)[None])
    pictures = judge.pictures(network, torch.device("cpu"))
    assert set(pictures) == {"a-m/0", "a-m/1", "a-H/0", "a-H/1"}
    drawn = pictures["a-m/0"]
    assert torch.equal(drawn[:, :, :64], drawn[:, :, -64:])  # the identity changes nothing
    assert 0.0 <= float(drawn.min()) < float(drawn.max()) <= 1.0


# --- SOMA itself ------------------------------------------------------------------------------------------------------

SMALL = [
    "data.tiles=[]",
    "data.validation=null",
    "data.draw.crop=64",
    "data.synthetic_share=1.0",
    "data.synthetic_pool=4",
    "data.synthetic_chunk=2",
    "data.synthetic_size=96",
    "data.synthetic_refresh_steps=1",
    "optimiser.schedule=cosine",
    "optimiser.total_steps=2",
    "run.batch=2",
    "run.max_minutes=null",
    "run.threads=1",
]


def test_soma_resumes_exactly(tmp_path: Path) -> None:
    """The network's and the objective's own random numbers follow the step number too."""

    def cfg(steps: int) -> Any:
        return load_config(CONFIGS / "tiny.yaml", [*SMALL, f"run.max_steps={steps}"])

    train(cfg(2), tmp_path / "straight")
    train(cfg(1), tmp_path / "halves")
    train(cfg(2), tmp_path / "halves", resume=True)
    one, other = read(tmp_path / "straight" / "last.ckpt"), read(tmp_path / "halves" / "last.ckpt")
    for key in ("state_dict", "ema"):
        assert one[key].keys() == other[key].keys()
        assert all(torch.equal(one[key][name], other[key][name]) for name in one[key])
    assert one["somareg"]["synthetic_share"] == 1.0


def test_the_diagnosis_is_written_and_its_place_told(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of SOMA itself, on pairs that training has not seen; a new run clears the file away."""
    monkeypatch.undo()
    settings = [word for text in (*SMALL, "run.max_steps=1") for word in ("--set", text)]
    out = tmp_path / "run"
    code, printed, _ = shell("-c", CONFIGS / "tiny.yaml", "-o", out, *settings, "--diagnose", "--json")
    assert code == 0
    told = json.loads(printed)
    assert told["diagnosis"] == str(out / "diagnosis.json")
    record = json.loads((out / "diagnosis.json").read_text())
    assert record["samples"] == 16 and record["alarms"] == told["alarms"]
    assert [stage["name"] for stage in record["stages"]][:2] == ["start", "coarse"]
    code, printed, _ = shell("-o", out, "--resume", *settings, "--set", "run.max_steps=2", "--diagnose")
    assert code == 0
    assert f"diagnosis {out / 'diagnosis.json'}" in [" ".join(line.split()) for line in printed.splitlines()]
    code, printed, _ = shell("-c", CONFIGS / "tiny.yaml", "-o", out, *settings, "--overwrite")
    assert code == 0 and not any(line.startswith("diagnosis") for line in printed.splitlines())
    assert not (out / "diagnosis.json").exists()
