"""A model on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from somareg.soma import weights
from tests.t42_soma.model_files import FIELDS


@pytest.fixture
def state() -> dict[str, Tensor]:
    """Weights of every kind that a model file holds."""
    torch.manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3),
        "norm.bias": torch.randn(4).double(),
        "scale": torch.tensor(0.5),
        "seen": torch.tensor(70_000),  # beyond fp16, exact as a whole number
        "turned": torch.randn(5, 6).T,  # not contiguous
    }


@pytest.fixture
def saved(state: dict[str, Tensor], tmp_path: Path) -> Path:
    """Their model file, its card beside it."""
    path = tmp_path / "tiny.safetensors"
    weights.save_weights(state, FIELDS, path)
    return path
