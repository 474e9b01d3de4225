"""What a network begins with, and what stays so: trained weights that a run refines, parts that it does not train."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from somareg.config import did_you_mean
from somareg.errors import ConfigError, WeightsError
from somareg.soma.weights.fit import check_state
from somareg.soma.weights.store import load_weights, resolve

_MOST_NAMES = 4


def start_from(network: nn.Module, model: str) -> str:
    """Copy trained weights into a network that may lack parts of theirs, or have parts that they lack.

    Args:
        network: changed in place; parts that the weights lack keep their random start.
        model: weights that ship, by name, or a `.safetensors` file with its card.

    Returns:
        A line for the training record: the weights with the first digits of their checksum, the parts that were left
        out, and those that start at random.

    Raises:
        ConfigError: an unknown name.
        WeightsError: the weights cannot be read, a tensor has another shape than the network's, or none fits.
    """
    path = resolve(model)
    state, card = load_weights(path)
    own = network.state_dict()
    shared = {name: tensor for name, tensor in state.items() if name in own}
    if not any(tensor.is_floating_point() for tensor in shared.values()):
        raise WeightsError(f"{path} shares no tensor with the network of the configuration; leave out 'initial'")
    check_state({name: own[name] for name in shared}, shared, str(path))
    with torch.no_grad():
        network.load_state_dict({**own, **shared})
    changes = [
        f"{title}: {', '.join(parts[:_MOST_NAMES])}{' and others' if len(parts) > _MOST_NAMES else ''}"
        for title, parts in (
            ("left out", _parts([name for name in state if name not in own])),
            ("new", _parts([name for name in own if name not in state])),
        )
        if parts
    ]
    return "; ".join([f"started from {card.name} (sha256 {card.sha256[:12]})", *changes])


def freeze(network: nn.Module, parts: Sequence[str]) -> None:
    """Exclude parts of a network from training.

    Args:
        network: changed in place.
        parts: names of modules, such as `encoder.branches.sar`.

    Raises:
        ConfigError: the network has no such part, or nothing would be left to train.
    """
    modules = dict(network.named_modules())
    for part in parts:
        if not part or part not in modules:
            raise ConfigError(f"frozen: the network has no part '{part}'.{did_you_mean(part, sorted(modules)[1:])}")
        modules[part].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError(f"frozen: {', '.join(parts)} leave nothing to train; name fewer parts")


def _parts(names: list[str]) -> list[str]:
    """The modules of some tensors, sorted: `encoder.branches.sar.enhancers` of `….enhancers.2.unit.weight`."""
    return sorted({".".join(name.split(".")[:4]) for name in names})
