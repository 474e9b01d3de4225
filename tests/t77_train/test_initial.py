"""A run that starts from trained weights: what is taken, what stays random, what is refused, what the card says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from somareg.errors import ConfigError, WeightsError
from somareg.lab.train.config import TrainCfg, load_config
from somareg.lab.train.engine import train
from somareg.lab.train.export import export_checkpoint, read_checkpoint
from somareg.lab.train.initial import freeze, start_from
from somareg.soma.fge import FgeCfg
from somareg.soma.network import NetworkCfg, Soma
from tests.small_network import save_network
from tests.t77_train.standin import read

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = (
    "network.encoder.compact={band_channels: 4, widths: [8, 8, 8, 8], depths: [1, 1, 1, 1], outputs: [8, 8, 8, 8]}",
)


@pytest.fixture(scope="module")
def cfg() -> TrainCfg:
    synthetic = ("data.synthetic_share=1", "data.synthetic_pool=2", "data.synthetic_chunk=2", "data.synthetic_size=128")
    run = ("data.draw.crop=96", "run.batch=1", "run.max_steps=1", "run.accelerator=cpu", "optimiser.schedule=constant")
    return load_config(None, (*SMALL, *synthetic, *run, "optimiser.lr=1e-9", "network.encoder.fge=null"))


def saved(network: Soma, path: Path) -> Path:
    return save_network(network, path, name="earlier")


def made(cfg: NetworkCfg, seed: int) -> Soma:
    torch.manual_seed(seed)
    return Soma(cfg)


def test_shared_parts_are_copied_and_the_rest_is_named(cfg: TrainCfg, tmp_path: Path) -> None:
    enhanced = replace(cfg.network, encoder=replace(cfg.network.encoder, fge=FgeCfg(sigmas=(1.0,))))
    path = saved(made(enhanced, 1), tmp_path / "a.safetensors")
    plain = made(cfg.network, 2)
    line = start_from(plain, str(path))
    theirs = {key: tensor.half().float() for key, tensor in made(enhanced, 1).state_dict().items()}
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(tensor.float(), theirs[name], rtol=0, atol=0)
    assert line.startswith("started from earlier (sha256 ")
    assert "left out: encoder.branches.optical.enhancers, encoder.branches.sar.enhancers" in line
    assert "new" not in line


def test_parts_that_the_weights_lack_stay_random(cfg: TrainCfg, tmp_path: Path) -> None:
    path = saved(made(cfg.network, 1), tmp_path / "a.safetensors")
    enhanced = replace(cfg.network, encoder=replace(cfg.network.encoder, fge=FgeCfg(sigmas=(1.0,))))
    network, before = made(enhanced, 2), made(enhanced, 2).state_dict()
    assert "new: encoder.branches.optical.enhancers, encoder.branches.sar.enhancers" in start_from(network, str(path))
    after = network.state_dict()
    new = [name for name in after if ".enhancers." in name]
    assert new
    assert all(torch.equal(after[name], before[name]) for name in new)
    assert not all(torch.equal(after[name], before[name]) for name in after if name not in new)


def test_another_shape_or_nothing_in_common_is_refused(cfg: TrainCfg, tmp_path: Path) -> None:
    path = saved(made(cfg.network, 1), tmp_path / "a.safetensors")
    compact = replace(cfg.network.encoder.compact, widths=(8, 8, 8, 12))
    wider = made(replace(cfg.network, encoder=replace(cfg.network.encoder, compact=compact)), 2)
    before = {name: tensor.clone() for name, tensor in wider.state_dict().items()}
    with pytest.raises(WeightsError, match="does not fit the network: wrong"):
        start_from(wider, str(path))
    assert all(torch.equal(tensor, before[name]) for name, tensor in wider.state_dict().items())
    with pytest.raises(WeightsError, match="shares no tensor"):
        start_from(torch.nn.Linear(2, 2), str(path))
    with pytest.raises(ConfigError, match="unknown model 'compct'"):
        start_from(wider, "compct")


def test_a_run_begins_there_and_its_card_says_so(cfg: TrainCfg, tmp_path: Path) -> None:
    path = saved(made(cfg.network, 1), tmp_path / "a.safetensors")
    lines: list[str] = []
    begun = replace(cfg, initial=str(path))
    train(begun, tmp_path / "run", report=lines.append)
    state, theirs = read(tmp_path / "run" / "last.ckpt")["state_dict"], made(cfg.network, 1).state_dict()
    for name, tensor in theirs.items():  # one step at a rate of 1e-9 changes next to nothing
        torch.testing.assert_close(state[f"network.{name}"].float(), tensor.half().float(), rtol=0, atol=1e-6)
    assert lines[0].startswith("started from earlier (sha256 ")
    path.unlink()  # a run that goes on has its own weights
    train(replace(begun, run=replace(cfg.run, max_steps=2)), tmp_path / "run", resume=True)
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["somareg"]["notes"] == lines[0]
    card = export_checkpoint(tmp_path / "run" / "last.ckpt", tmp_path / "b.safetensors")
    assert card.notes == f"averaged weights (EMA); {lines[0]}"


def test_frozen_parts_keep_every_number(cfg: TrainCfg, tmp_path: Path) -> None:
    part = "encoder.branches.sar.backbone"
    frozen = replace(cfg, frozen=(part,), optimiser=replace(cfg.optimiser, lr=1e-2, warmup_steps=0))
    train(frozen, tmp_path / "run")
    torch.manual_seed(cfg.seed)
    before = Soma(cfg.network).state_dict()
    content = read(tmp_path / "run" / "last.ckpt")
    changed = [
        name for name, tensor in before.items() if not torch.equal(content["state_dict"][f"network.{name}"], tensor)
    ]
    assert any(name.startswith("encoder.branches.optical.backbone") for name in changed)
    assert not any(name.startswith(part) for name in changed)
    assert all(torch.equal(content["ema"][name], before[name]) for name in before if name.startswith(part))


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (("encoder.branches.radar",), "no part 'encoder.branches.radar'.*encoder.branches.sar"),
        (("",), "no part ''"),
        (("encoder", "glam"), "encoder, glam leave nothing to train"),
    ],
)
def test_nothing_is_frozen_by_mistake(cfg: TrainCfg, parts: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        freeze(made(cfg.network, 0), parts)
