"""A training step leaves the device alone: no value is read back while work is queued."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from somareg.features import masks
from somareg.lab.data.augment import AugmentCfg
from somareg.lab.data.draw import DrawCfg
from somareg.lab.data.synthetic.generator import SyntheticSource
from somareg.lab.train.config import DataCfg, OptimiserCfg, RunCfg, TrainCfg
from somareg.lab.train.engine import train
from somareg.lab.train.objective import ObjectiveCfg, objective
from somareg.lab.train.sources import PairSource, generator_for
from somareg.soma.network import Soma
from tests.small_network import SMALL

# `item`, `tolist` and truth values all end in the first of these.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal"}
WAITING |= {"_linalg_check_errors", "_linalg_svd", "_linalg_eigh"}
SMALL_CROP = DrawCfg(
    crop=96, aspect=(0.75, 1.33), near_aspect=(0.8, 1.25), smooth_share=0.5, swap_share=0.5, similar_share=0.5
)


class Listener(TorchDispatchMode):
    """Counts the operations whose value the host would wait for on a GPU.

    It hears what reaches the kernels, in whatever function. What a kernel of the CPU does by itself, such as the
    optimiser's that reads its own step numbers, stays unheard, and CUDA's does not do it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.heard: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING:
            self.heard[name] = self.heard.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def waits(work: Callable[[], object]) -> dict[str, int]:
    """Operations of `work` whose value the host would wait for on a GPU."""
    with Listener() as listener:
        work()
    return listener.heard


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "READY", ())


def step(number: int = 0) -> Callable[[], object]:
    device = torch.device("cpu")
    tiles = SyntheticSource().scenes(4, 160, generator_for(device, 1), device)
    tiles.valid[0, :20] = False
    draws = DataCfg(draw=SMALL_CROP, augment=AugmentCfg(edge_share=0.5, dropout_share=0.5))
    source = PairSource([tiles], None, draws, batch=3, seed=0, rank=0, device=device)
    network = Soma(SMALL).train()

    def work() -> None:
        loss, _ = objective(network, source.batch(number), ObjectiveCfg(), step=number, progress=0.9)
        loss.backward()

    work()  # what is made once (kernels, lattices) is made
    return work


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_step_waits_for_no_value() -> None:
    assert waits(step()) == {}


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_step_of_the_engine_waits_for_no_value(tmp_path: Path) -> None:
    """Clipping, optimiser, averaged weights and clock included: two steps more do not read two values more."""
    device = torch.device("cpu")
    path = SyntheticSource().scenes(4, 128, generator_for(device, 1), device).save(tmp_path / "tiles.safetensors")
    run = RunCfg(batch=2, accelerator="cpu", log_every_steps=1000, checkpoint_minutes=1000.0)
    data = DataCfg(tiles=(str(path),), draw=SMALL_CROP)
    counts = []
    for steps in (2, 4):
        cfg = TrainCfg(0, SMALL, data, ObjectiveCfg(), OptimiserCfg(schedule="cosine"), replace(run, max_steps=steps))
        counts.append(waits(lambda cfg=cfg, steps=steps: train(cfg, tmp_path / f"run-{steps}")))  # type: ignore[misc]
    assert all(counts[1][name] - counts[0][name] < 2 for name in counts[0])
    assert counts[0].keys() == counts[1].keys() == {"_local_scalar_dense"}  # of the last checkpoint


def test_the_listener_would_hear_it() -> None:
    """On a CPU the shortcuts ask; so the test above can fail."""
    assert waits(step()).get("_local_scalar_dense", 0) > 0


@pytest.mark.usefixtures("as_on_a_gpu")
def test_the_general_way_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    tiles = SyntheticSource().scenes(4, 160, generator_for(device, 1), device)
    draws = DataCfg(draw=replace(SMALL_CROP, swap_share=0.0))
    source = PairSource([tiles], None, draws, batch=3, seed=0, rank=0, device=device)
    network = Soma(SMALL).eval()
    outputs = []
    for ready in ((), ("cpu",)):
        monkeypatch.setattr(masks, "READY", ready)
        batch = source.batch(5)
        with torch.no_grad():
            found = network(batch.reference, batch.reference_mask, batch.moving, batch.moving_mask, batch.modalities)
        outputs.append((batch.reference, batch.moving, batch.truth, found.affine))
    for general, quick in zip(*outputs, strict=True):
        torch.testing.assert_close(general, quick, atol=2e-3, rtol=1e-3)
