"""Random draws for many scenes at once: every draw has the scenes as its first dimension."""

from __future__ import annotations

import torch
from torch import Tensor

HASH_SIZE = 4096  # length of a hash table; a power of two, so that a bit mask wraps keys of either sign


class Draws:
    """A seeded source of per-scene random numbers on one device.

    A generator that lives on another device seeds one on `device`, so that a CPU generator can drive a GPU. The same
    seed gives the same numbers on the same kind of device and release of torch.
    """

    def __init__(self, generator: torch.Generator, count: int, device: torch.device) -> None:
        if generator.device.type != device.type:
            seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
            generator = torch.Generator(device).manual_seed(seed)
        self.generator, self.count, self.device = generator, count, device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(N, *shape) float32, even between `low` and `high`."""
        unit = torch.rand((self.count, *shape), generator=self.generator, device=self.device)
        return low + (high - low) * unit

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(N, *shape) float32, even on a logarithmic scale."""
        return low * (high / low) ** self.uniform(0.0, 1.0, *shape)

    def normal(self, *shape: int) -> Tensor:
        """(N, *shape) float32, standard normal."""
        return torch.randn((self.count, *shape), generator=self.generator, device=self.device)

    def chance(self, share: float | Tensor, *shape: int) -> Tensor:
        """(N, *shape) bool, True with probability `share`."""
        return self.uniform(0.0, 1.0, *shape) < share

    def integers(self, high: int, *shape: int) -> Tensor:
        """(N, *shape) int64 in 0 .. high - 1."""
        return torch.randint(high, (self.count, *shape), generator=self.generator, device=self.device)

    def gamma(self, shape: Tensor) -> Tensor:
        """Gamma variates of unit scale, one per entry of `shape` (the distribution's shape parameter)."""
        # torch.distributions.Gamma draws with the same function but takes no generator.
        drawn: Tensor = torch._standard_gamma(shape, generator=self.generator)
        return drawn

    def angle(self, *shape: int) -> Tensor:
        """(N, *shape) radians, any direction."""
        return self.uniform(0.0, 2 * torch.pi, *shape)


class HashTable:
    """Random numbers by integer key: the same key gives the same number everywhere in a scene."""

    def __init__(self, draws: Draws, low: float = 0.0, high: float = 1.0) -> None:
        self._values = draws.uniform(low, high, HASH_SIZE)

    def __call__(self, key: Tensor) -> Tensor:
        """Values (N, H, W) for integer keys (N, H, W)."""
        return lookup(self._values, key & (HASH_SIZE - 1))


def where(condition: Tensor) -> Tensor:
    """A bool map as uint8 0 or 1, without a copy; arithmetic on bytes is many times faster than bool logic."""
    return condition.view(torch.uint8)


def choose(cover: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`new` where cover is 1, `old` where it is 0.

    Exact for integer maps (bytes wrap around and back) and an order of magnitude faster on a CPU than `torch.where`.
    """
    return old + cover * (new - old)


def lookup(table: Tensor, index: Tensor) -> Tensor:
    """Per-scene table (N, K) read at (N, H, W) indices of any integer type."""
    return table.gather(1, index.flatten(1).long()).view(index.shape)


def spread(values: Tensor) -> Tensor:
    """(N,) as (N, 1, 1), to meet maps (N, H, W)."""
    return values[:, None, None]
