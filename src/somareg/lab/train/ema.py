"""Averaged weights, which are validated and exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from somareg.errors import ReadError


class Ema:
    """Exponential moving average of a network's floating tensors, in float32.

    The decay of step k is `min(decay, (1 + k) / (10 + k))`, so that the random initial weights are soon forgotten.

    Args:
        network: on its final device; parts outside its `state_dict` (a frozen encoder) are not averaged.
        decay: of the average after warm-up, 0 to below 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        # These share their memory with the network's tensors.
        self._live = {name: t for name, t in network.state_dict().items() if t.is_floating_point()}
        self.average = {name: t.detach().float().clone() for name, t in self._live.items()}

    @torch.no_grad()
    def update(self, step: int, kept: Tensor) -> None:
        """Update with the weights after step number `step` (from 0) if `kept` (a scalar) is 1; 0 changes nothing."""
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        average = list(self.average.values())
        apart = torch._foreach_sub([tensor.float() for tensor in self._live.values()], average)
        torch._foreach_mul_(apart, kept.float())
        torch._foreach_add_(average, apart, alpha=weight)

    def load(self, average: Mapping[str, Tensor]) -> None:
        """Load a saved average.

        Raises:
            ReadError: it belongs to another network.
        """
        if average.keys() != self.average.keys():
            odd = sorted(average.keys() ^ self.average.keys())[0]
            raise ReadError(f"the checkpoint's averaged weights do not fit the network ('{odd}'); use its own settings")
        for name, tensor in self.average.items():
            if average[name].shape != tensor.shape:
                raise ReadError(f"the checkpoint's averaged weight '{name}' has another shape; use its own settings")
            tensor.copy_(average[name])

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Give the network the averaged weights inside the block and restore its own afterwards, bit by bit."""
        own = {name: tensor.clone() for name, tensor in self._live.items()}
        self._write(self.average)
        try:
            yield
        finally:
            self._write(own)

    @torch.no_grad()
    def _write(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in self._live.items():
            tensor.copy_(values[name])
