"""Learning the features of another network: what counts, what does not, and that a lighter network comes closer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from somareg.errors import ConfigError
from somareg.lab.data.batch import PairBatch
from somareg.lab.train.config import load_config
from somareg.lab.train.engine import train
from somareg.lab.train.imitation import imitation
from somareg.lab.train.objective import ObjectiveCfg, objective
from somareg.soma.fge import FgeCfg
from somareg.soma.network import Soma
from tests.small_network import save_network
from tests.t77_train.standin import read, rows

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = (
    "network.encoder.compact={band_channels: 4, widths: [8, 8, 8, 8], depths: [1, 1, 1, 1], outputs: [8, 8, 8, 8]}",
    "network.encoder.fge=null",
    "network.encoder.detail=9",
    *("data.synthetic_share=1", "data.synthetic_pool=2", "data.synthetic_chunk=2", "data.synthetic_size=128"),
    *("data.draw.crop=96", "run.batch=2", "run.accelerator=cpu", "run.ema=0", "data.synthetic_refresh_steps=0"),
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with an FGE, whose features the network without one cannot have by itself."""
    cfg = load_config(None, SMALL).network
    torch.manual_seed(3)
    network = Soma(replace(cfg, encoder=replace(cfg.encoder, fge=FgeCfg(sigmas=(1.0,), gain=1.0)))).eval()
    return save_network(network, tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


def batch(seed: int = 0) -> PairBatch:
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randn(2, bands, 96, 96, generator=generator) for bands in (3, 1)]
    mask = torch.ones(2, 1, 96, 96)
    return PairBatch(*(images[0], mask, images[1], mask), torch.eye(2, 3).repeat(2, 1, 1), None, ("optical", "sar"))


def made(seed: int, fge: FgeCfg | None = None) -> Soma:
    cfg = load_config(None, SMALL).network
    torch.manual_seed(seed)
    return Soma(replace(cfg, encoder=replace(cfg.encoder, fge=fge)))


def test_the_teacher_itself_has_no_loss_and_the_truth_no_part(teacher: Path) -> None:
    same = made(3, FgeCfg(sigmas=(1.0,), gain=1.0))
    loss, figures = imitation(same, batch(), str(teacher))
    assert float(loss.detach()) < 1e-4  # the file holds half precision
    assert figures.keys() == {"features_optical", "features_sar"}
    other = made(4)
    loss, figures = imitation(other, batch(), str(teacher))
    assert 0.5 < float(loss.detach()) < 10  # nothing in common: about the sum of both variances
    assert float(loss.detach()) == pytest.approx(sum(float(value.detach()) for value in figures.values()) / 2)
    turned = replace(batch(), truth=torch.randn(2, 2, 3), flow=torch.randn(2, 2, 96, 96))
    cfg = ObjectiveCfg(imitate=str(teacher))
    assert torch.equal(objective(other, turned, cfg, step=0, progress=0.0)[0], loss)


def test_masked_pixels_and_smooth_parts_do_not_count(teacher: Path) -> None:
    network, pair = made(4), batch()
    mask = pair.moving_mask.clone()
    mask[..., :48] = 0
    half = replace(pair, moving_mask=mask)
    spoilt = replace(half, moving=pair.moving * mask + 9.0 * (1 - mask))
    assert float(imitation(network, spoilt, str(teacher))[0]) == float(imitation(network, half, str(teacher))[0])
    with torch.no_grad():
        before = imitation(network, pair, str(teacher))[0]
        head = network.encoder.branches["sar"].backbone.head[0]
        head.bias += 5.0
    torch.testing.assert_close(imitation(network, pair, str(teacher))[0], before, rtol=1e-3, atol=1e-4)


def test_a_run_comes_closer_and_an_unknown_teacher_is_told(teacher: Path, tmp_path: Path) -> None:
    extra = ("run.max_steps=30", "optimiser.schedule=constant", "optimiser.lr=0.003", "run.log_every_steps=1")
    cfg = load_config(None, (*SMALL, *extra, "optimiser.warmup_steps=5", f"objective.imitate={teacher}"))
    assert train(cfg, tmp_path / "run").skipped == 0
    assert read(tmp_path / "run" / "last.ckpt")["somareg"]["notes"] == "learned the features of teacher"
    losses = [float(loss) for (loss,) in rows(tmp_path / "run", "loss")]
    assert len(losses) == 30
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    with pytest.raises(ConfigError, match="unknown model 'nobody'"):
        imitation(made(0), batch(), "nobody")
