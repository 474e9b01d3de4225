"""Networks of random weights, and a pair of one scene, for the tests of the whole network."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from somareg.matching.pair import Pair
from somareg.soma.glam.matcher import GlamOutput
from somareg.soma.network import NetworkCfg, Soma
from tests.t40_matching.textures import Size, reference_view, view

IDENTITY = torch.eye(2, 3, dtype=torch.float64)[None]
SAME = ("optical", "optical")
SIZE = (160, 160)


def untrained(temperature: float | None = None, seed: int = 0, cfg: NetworkCfg | None = None) -> Soma:
    """Random weights. A temperature of 12 suits images of one sensor, whose features agree almost exactly; the default
    is for SAR against optical, and would read their displacements in whole cells."""
    torch.manual_seed(seed)
    network = Soma(cfg).eval()
    if temperature is not None:
        for parameter in network.glam.log_temperature.values():
            torch.nn.init.constant_(parameter, math.log(temperature))
    return network


def match(
    network: Soma,
    reference: Tensor,
    moving: Tensor,
    start: Tensor | None = IDENTITY,
    *,
    rewarp: bool = False,
    masks: tuple[Tensor, Tensor] | None = None,
) -> GlamOutput:
    seen, moving_seen = masks or (torch.ones_like(reference[:, :1]), torch.ones_like(moving[:, :1]))
    with torch.no_grad():
        found: GlamOutput = network(reference, seen, moving, moving_seen, SAME, start=start, rewarp=rewarp)
    return found


def pair(truth: Tensor, size: Size = SIZE) -> Pair:
    reference, moving = reference_view(size), view(truth, size)
    return Pair(reference, torch.ones_like(reference), moving, torch.ones_like(moving), SAME)
