"""A network with random weights, saved as a model is, and pairs that its features can register without training.

Random weights know nothing of SAR against optical, but two looks by the same sensor share their random features, so
that the learned road can be checked against an exact truth.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from somareg.config import to_mapping
from somareg.soma.encoder import EncoderCfg
from somareg.soma.fge import FgeCfg
from somareg.soma.glam.coarse import CoarseCfg
from somareg.soma.glam.matcher import GlamCfg
from somareg.soma.network import NetworkCfg, Soma
from somareg.soma.pyramid import PyramidCfg
from somareg.soma.weights import save_weights
from tests.synthetic import Map, Scene, SyntheticPair, pixel_points

SMALL = NetworkCfg(
    EncoderCfg(compact=PyramidCfg(8, (16, 24, 32, 48), (1, 1, 1, 1), (12, 16, 24, 48)), fge=FgeCfg(sigmas=(0.8,))),
    GlamCfg(coarse=CoarseCfg(48, 1, 4)),
)
Shape = tuple[int, int]


def small_network(seed: int = 0) -> Soma:
    """Random weights, in eval mode."""
    torch.manual_seed(seed)
    return Soma(SMALL).eval()


def save_network(network: Soma, path: Path, name: str | None = None) -> Path:
    """Save a network with a card; it is named after the file if not otherwise."""
    fields = {
        "name": name or path.stem,
        "network": to_mapping(network.cfg),
        "data": [],
        "synthetic_share": None,
        "minutes": 0.0,
    }
    fields |= {"device": "cpu", "seed": 0, "steps": 0, "scores": {}, "licence": "none", "notes": "random"}
    if network.encoder.dinov2 is not None:
        fields |= {"dinov2": to_mapping(network.encoder.dinov2.identity)}
    save_weights(network.state_dict(), fields, path)
    return path


def two_looks(there: Map, back: Map, shape: Shape, away: Shape | None = None, seed: int = 0) -> SyntheticPair:
    """Two noisy optical looks at one place: reference of `shape`, moving of `away`; the maps lead there and back."""
    scene, rng = Scene(seed), np.random.default_rng(seed)
    looks = []
    for points, size in ((pixel_points(shape), shape), (back(pixel_points(away or shape)), away or shape)):
        values = 255 * np.clip(scene.optical(points, size) / 0.8, 0, 1) + rng.normal(0, 2, (3, *size))
        looks.append(np.clip(values, 0, 255).astype(np.uint8))
    return SyntheticPair(looks[1], looks[0], there)
