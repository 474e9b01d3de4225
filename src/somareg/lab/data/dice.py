"""Random numbers of one generator, on the device of the images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Dice:
    """Draws in float32 from `generator`, delivered on `device`.

    A generator of the images' device costs no transfer. One of the CPU gives the same numbers for every device.

    Attributes:
        generator: source of all randomness; the same state gives the same numbers.
        device: of the results.
    """

    generator: torch.Generator
    device: torch.device

    def decide(self, *shape: int) -> list[Any]:
        """Uniform in 0-1 as nested lists, for branches of the program, without waiting for the device.

        Seed and offset of a GPU's generator are on the host, and both seed a generator of the CPU.
        """
        own = self.generator
        if own.device.type == "cpu":
            return torch.rand(shape, generator=own).tolist()
        place = own.get_offset()
        own.set_offset(place + 4)
        seed = np.random.SeedSequence([own.initial_seed() % 2**63, place]).generate_state(1, np.uint64)[0]
        return torch.rand(shape, generator=torch.Generator().manual_seed(int(seed) >> 1)).tolist()

    def unit(self, *shape: int) -> Tensor:
        """Uniform in 0-1."""
        return torch.rand(shape, generator=self.generator, device=self.generator.device).to(self.device)

    def uniform(self, shape: Sequence[int], low: float | Tensor, high: float | Tensor) -> Tensor:
        """Uniform between `low` and `high`, which may be tensors that broadcast to `shape`."""
        return low + (high - low) * self.unit(*shape)

    def log_uniform(self, shape: Sequence[int], low: float, high: float) -> Tensor:
        """Uniform in the logarithm between two positive numbers."""
        return self.uniform(shape, math.log(low), math.log(high)).exp()

    def normal(self, *shape: int) -> Tensor:
        """Standard normal."""
        return torch.randn(shape, generator=self.generator, device=self.generator.device).to(self.device)

    def integers(self, count: int, *shape: int) -> Tensor:
        """Uniform in 0 to count - 1, int64."""
        drawn = torch.randint(count, shape, generator=self.generator, device=self.generator.device)
        return drawn.to(self.device)
