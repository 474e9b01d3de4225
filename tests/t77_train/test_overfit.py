"""A tiny network learns four pairs by heart: the whole chain from pixels to affine can be trained to sub-pixel."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from somareg.features.orientation import OrientationCfg
from somareg.lab.data.batch import PairBatch
from somareg.lab.train.objective import ObjectiveCfg, objective
from somareg.soma.encoder import EncoderCfg
from somareg.soma.fge import FgeCfg
from somareg.soma.glam.affine_flow import default_stages
from somareg.soma.glam.coarse import CoarseCfg
from somareg.soma.glam.matcher import GlamCfg
from somareg.soma.network import NetworkCfg, Soma
from somareg.soma.pyramid import PyramidCfg
from tests.t40_matching.textures import affine, off, reference_view, standard, view

SIZE = (112, 112)
STEPS = 60
WARPS = (
    {"degrees": 2.0, "shift": (3.2, -2.4)},
    {"degrees": -1.5, "scale": 1.02, "shift": (-2.7, 1.6)},
    {"scale": 0.98, "shift": (1.3, 3.1)},
    {"degrees": 1.0, "scale": 1.01, "shift": (-3.4, -2.9)},
)


def tiny() -> NetworkCfg:
    encoder = EncoderCfg(
        compact=PyramidCfg(4, (8, 12, 16, 16), (1, 1, 1, 1), (8, 8, 8, 16), OrientationCfg(4, ((1.0, 1.0),))),
        fge=FgeCfg(directions=4, sigmas=(0.8,)),
    )
    first, second, last = default_stages()
    return NetworkCfg(
        encoder,
        GlamCfg(coarse=CoarseCfg(channels=16, layers=1, heads=2), stages=(first, second, replace(last, iterations=2))),
    )


def radar(optical: Tensor, number: int) -> Tensor:
    """The same ground with another contrast: inverted, or folded so that bright and dark look alike; 4-look speckle."""
    backscatter = -optical if number % 2 else torch.cos(1.2 * optical)
    torch.manual_seed(100 + number)
    looks = torch.distributions.Gamma(4.0, 4.0).sample(optical.shape)
    return standard(1.2 * backscatter + looks.log())


def four_pairs() -> PairBatch:
    truths = [affine(SIZE, **warp) for warp in WARPS]  # type: ignore[arg-type]
    optical = torch.cat([reference_view(SIZE, number) for number in range(4)])
    sar = torch.cat([radar(view(truth, SIZE, number), number) for number, truth in enumerate(truths)])
    seen = torch.ones_like(optical)
    return PairBatch(optical, seen, sar, seen, torch.cat(truths).float(), None, ("optical", "sar"))


@torch.no_grad()
def errors(network: Soma, batch: PairBatch) -> list[list[float]]:
    """RMS error (px) of each stage for each pair, started from the identity."""
    network.eval()
    start = torch.eye(2, 3, dtype=torch.float64).expand(4, 2, 3)
    found = network(
        batch.reference, batch.reference_mask, batch.moving, batch.moving_mask, batch.modalities, start=start
    )
    network.train()
    return [[off(e.affine[i : i + 1], batch.truth[i : i + 1], SIZE) for i in range(4)] for e in found.stages]


def median(values: list[float]) -> float:
    return float(torch.tensor(values).quantile(0.5))


def test_four_pairs_are_learnt_to_a_fifth_of_a_pixel() -> None:
    batch = four_pairs()
    torch.manual_seed(0)
    network = Soma(tiny()).train()
    before = errors(network, batch)
    assert min(before[-1]) > 1.0
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.0)
    losses = []
    for step in range(STEPS):
        progress = step / STEPS
        for group in optimiser.param_groups:
            group["lr"] = 5e-3 * min(1.0, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * progress))
        loss, _ = objective(network, batch, ObjectiveCfg(), step=step, progress=progress)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    after = errors(network, batch)
    assert median(after[-1]) < 0.2
    assert max(after[-1]) < 0.5
    assert median(after[0]) > median(after[1]) > median(after[-1])  # every stage adds its share
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
