"""A random encoder whose every filter is its own mirror image: flipping its input must flip its output, exactly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from somareg.soma.fge import GradientBranch
from somareg.soma.pyramid import BandStem


@torch.no_grad()
def mirror(network: nn.Module) -> nn.Module:
    """Make all filters symmetric in x and in y, in place.

    Flipping one axis turns direction theta into minus theta, which is direction -k of the oriented filters.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            weight = (module.weight + module.weight.flip(-1)) / 2
            module.weight.copy_((weight + weight.flip(-2)) / 2)
    for module in network.modules():
        if isinstance(module, GradientBranch):
            for mixer in module.mix:
                assert isinstance(mixer, nn.Conv2d)
                directions = mixer.in_channels // module.filters.channels  # type: ignore[operator]
                mixer.weight.copy_(_both_ways(mixer.weight.unflatten(1, (-1, directions)), 2).flatten(1, 2))
        if isinstance(module, BandStem) and module.orientation is not None:
            first = module.mix[0]
            assert isinstance(first, nn.Conv2d)
            directions = module.orientation.directions
            own = first.in_channels - directions * len(module.orientation.scales)
            turned = _both_ways(first.weight[:, own:].unflatten(1, (-1, directions)), 2).flatten(1, 2)
            first.weight[:, own:] = turned
    return network


def _both_ways(weight: Tensor, axis: int) -> Tensor:
    """Mean over k and -k along an axis of directions."""
    count = weight.shape[axis]
    return (weight + weight.index_select(axis, -torch.arange(count) % count)) / 2
