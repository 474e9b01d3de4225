"""An objective without truth: a network learns the features of another one, so that it can take the other's place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from somareg.lab.data.batch import PairBatch
from somareg.soma.encoder import detail
from somareg.soma.network import Soma
from somareg.soma.weights.store import load_network, resolve
from somareg.types import Modality


def imitation(network: nn.Module, batch: PairBatch, model: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean square of the features' difference from the teacher's, relative to the variance of the teacher's.

    Both images of every pair count; where they lie and whether they belong together plays no part. Compared are the
    levels of GLAM's stages as the teacher gives them to registration, less their mean over a box where it takes it out.

    Args:
        network: a `Soma` in train mode.
        batch: pairs on the network's device; the truth is not read.
        model: the teacher, a name that ships or a `.safetensors` file.

    Returns:
        The loss, and one figure for each modality.

    Raises:
        ConfigError, WeightsError: the teacher cannot be loaded.
    """
    assert isinstance(network, Soma)
    teacher = load_network(resolve(model), batch.reference.device)  # cached
    strides = tuple(sorted({stage.stride for stage in network.cfg.glam.stages}))
    losses: dict[str, Tensor] = {}
    images = ((batch.reference, batch.reference_mask), (batch.moving, batch.moving_mask))
    for modality, (image, mask) in zip(batch.modalities, images, strict=True):
        losses[f"features_{modality}"] = _difference(network, teacher, image, mask, modality, strides)
    return torch.stack(list(losses.values())).mean(), losses


def _difference(
    network: Soma, teacher: Soma, image: Tensor, mask: Tensor, modality: Modality, strides: tuple[int, ...]
) -> Tensor:
    own = network.encode(image, mask, modality, strides)
    with torch.no_grad():
        wanted = teacher.encode(image, mask, modality, strides)
    parts = []
    for stride in strides:
        valid = own.valid[stride]
        target, features, side = wanted.pyramid[stride], own.pyramid[stride], teacher.cfg.encoder.detail
        apart = ((features if side is None else detail(features, valid, side)) - target) * valid
        variance = (target * valid).square().sum((1, 2, 3)).clamp_min(1e-6)
        parts.append((apart.square().sum((1, 2, 3)) / variance).mean())
    return torch.stack(parts).mean()
