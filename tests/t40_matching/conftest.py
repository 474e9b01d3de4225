"""Pairs as the matcher sees them, and a model on the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from somareg.matching import weights
from somareg.matching.pair import Pair
from somareg.preprocess.normalise import normalise
from tests.synthetic import SyntheticPair
from tests.t40_matching.model_files import FIELDS

MakePair = Callable[..., Pair]


def as_pair(
    pair: SyntheticPair, *, moving_mask: np.ndarray | None = None, reference_mask: np.ndarray | None = None
) -> Pair:
    """Normalised tensors of a synthetic pair."""
    sides = []
    for data, mask, modality in ((pair.reference, reference_mask, "optical"), (pair.moving, moving_mask, "sar")):
        valid = np.ones(data.shape[1:], bool) if mask is None else mask
        bands, _ = normalise(data, valid, modality)  # type: ignore[arg-type]
        sides += [torch.from_numpy(bands)[None], torch.from_numpy(valid[None, None].astype(np.float32))]
    return Pair(*sides)


@pytest.fixture(scope="session")
def make_matching_pair() -> MakePair:
    return as_pair


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
