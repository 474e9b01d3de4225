"""Means by additions against the pooling they replace."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from somareg.features.pooling import BlockMean, block_mean, box_mean


def image(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height * width))


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape", [(16, 12), (17, 23), (5, 60)])
def test_block_means_are_those_of_average_pooling(side: int, shape: tuple[int, int]) -> None:
    """Rows and columns that fill no block are left out, as there."""
    x = image(*shape)
    torch.testing.assert_close(block_mean(x, side), F.avg_pool2d(x, side), rtol=0, atol=1e-6)
    torch.testing.assert_close(BlockMean(side)(x), block_mean(x, side), rtol=0, atol=0)


@pytest.mark.parametrize("side", [1, 3, 5, 7, 9, 13, 15])
@pytest.mark.parametrize("shape", [(16, 12), (31, 23), (5, 60)])
def test_box_means_are_those_of_padded_average_pooling(side: int, shape: tuple[int, int]) -> None:
    x = image(*shape)
    expected = F.avg_pool2d(x, side, 1, side // 2)
    torch.testing.assert_close(box_mean(x, side), expected, rtol=0, atol=2e-6)


def test_the_input_is_left_as_it_was() -> None:
    x = image(12, 12)
    before = x.clone()
    block_mean(x, 1).add_(1)
    box_mean(x, 1).add_(1)
    box_mean(x, 15)
    assert torch.equal(x, before)


@pytest.mark.parametrize("mean", [lambda x: block_mean(x, 3), lambda x: box_mean(x, 5)])
def test_gradients_pass(mean) -> None:
    x = image(9, 9).double().requires_grad_()
    assert torch.autograd.gradcheck(mean, x[:, :1])
