"""Small networks and batches of pairs with known truth, for the tests of the objective."""

from __future__ import annotations

import torch
from torch import Tensor

from somareg.features.orientation import OrientationCfg
from somareg.lab.data.batch import PairBatch
from somareg.lab.train.losses import sample_cells
from somareg.lab.train.objective import ObjectiveCfg, objective
from somareg.matching.affine import apply_affine_batch
from somareg.soma.encoder import EncoderCfg
from somareg.soma.fge import FgeCfg
from somareg.soma.glam.coarse import CoarseCfg
from somareg.soma.glam.matcher import GlamCfg
from somareg.soma.network import NetworkCfg, Soma
from somareg.soma.pyramid import PyramidCfg
from tests.t40_matching.textures import Size, affine, ground, pixels, reference_view, standard, view

SIZE = (96, 96)
WARPS = (
    {"degrees": 2.0, "shift": (3.2, -2.4)},
    {"degrees": -1.5, "scale": 1.02, "shift": (-2.7, 1.6)},
    {"scale": 0.98, "shift": (1.3, 3.1)},
)
FGE = FgeCfg(directions=4, sigmas=(0.8,))
COMPACT = PyramidCfg(4, (8, 12, 16, 16), (1, 1, 1, 1), (8, 8, 8, 16), OrientationCfg(4, ((1.0, 1.0),)))
COARSE = CoarseCfg(channels=16, layers=1, heads=2)


def small(fge: FgeCfg | None = FGE, glam: GlamCfg | None = None) -> NetworkCfg:
    return NetworkCfg(EncoderCfg(compact=COMPACT, fge=fge), glam or GlamCfg(coarse=COARSE))


def build(cfg: NetworkCfg | None = None) -> Soma:
    torch.manual_seed(0)
    return Soma(cfg or small()).train()


def batch_of(truths: list[Tensor], size: Size = SIZE, flow: Tensor | None = None) -> PairBatch:
    """One sensor on both sides, so that an untrained network has something to say."""
    references = torch.cat([reference_view(size, seed) for seed in range(len(truths))])
    if flow is None:
        movings = torch.cat([view(truth, size, seed) for seed, truth in enumerate(truths)])
    else:
        movings = torch.cat([bent_view(truth, flow, size, seed) for seed, truth in enumerate(truths)])
    seen, truth = torch.ones_like(references), torch.cat(truths).float()
    field = None if flow is None else flow.expand(len(truths), -1, -1, -1).contiguous()
    return PairBatch(references, seen, movings, seen, truth, field, ("optical", "optical"))


def bent_view(truth: Tensor, flow: Tensor, size: Size, seed: int) -> Tensor:
    """The moving image of `moving <- truth @ (x + flow(x))`; the ground of pixel q solves that for x."""
    q = apply_affine_batch(torch.linalg.inv(square(truth))[:, :2], pixels(size)[None])[0]
    x = q.clone()
    for _ in range(30):
        x = q - sample_cells(flow.double(), x.reshape(1, -1, 2), 1).reshape(*size, 2)
    return standard(ground(x, seed)).float()[None, None]


def square(truth: Tensor) -> Tensor:
    return torch.cat([truth, truth.new_tensor([[[0.0, 0.0, 1.0]]])], dim=1)


def pairs(size: Size = SIZE, count: int = 2) -> PairBatch:
    return batch_of([affine(size, **warp) for warp in WARPS[:count]], size)  # type: ignore[arg-type]


def evaluate(
    network: Soma, batch: PairBatch, cfg: ObjectiveCfg | None = None, *, progress: float = 0.0, seed: int = 7
) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(seed)
    total, logs = objective(network, batch, cfg or ObjectiveCfg(), step=0, progress=progress)
    return total, {name: value.detach() for name, value in logs.items()}


def assert_finite(network: Soma, loss: Tensor, logs: dict[str, Tensor]) -> None:
    assert bool(torch.isfinite(loss))
    for name, value in logs.items():
        assert bool(torch.isfinite(value)), name
    for name, parameter in network.named_parameters():
        assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all()), name
