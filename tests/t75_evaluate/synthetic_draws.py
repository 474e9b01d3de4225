"""Reproducible draws for the tests of the synthetic generator."""

import torch

from somareg.lab.data.synthetic.draws import Draws

CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(count: int = 1, seed: int = 0) -> Draws:
    return Draws(seeded(seed), count, CPU)
