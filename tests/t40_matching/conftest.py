"""Pairs as the matcher sees them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from somareg.matching.pair import Pair
from somareg.preprocess.normalise import normalise
from tests.synthetic import SyntheticPair

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
