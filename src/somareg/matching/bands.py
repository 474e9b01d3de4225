"""Sums of products of windows with every displaced window, by matrix products.

The rows of a window and their channels are one long axis, over which a matrix product sums at once: columns of the
reference times columns of the moving image. Only the diagonals of each product that lie within the margin are
needed; blocks of a few columns keep the unneeded part small. Because windows overlap, rows are cut where a window
begins or ends, each band between two cuts is multiplied once, and a window is the sum of its bands.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from somareg.matching.layout import WindowGrid, selection

BLOCK = 16  # columns per product (measured: 12 to 32 are within a third of each other)


def band_sums(reference: Tensor, moving: Tensor, grid: WindowGrid) -> Tensor:
    """(B, N, n, n) sums over each window and its channels of `reference` x `moving` displaced; n = 2 margin + 1.

    Args:
        reference: (B, K, h, w).
        moving: (B, K, h + 2 margin, w + 2 margin).
        grid: the windows.
    """
    batch, channels, height, width = reference.shape
    tall, wide = moving.shape[-2:]
    n, size = 2 * grid.margin + 1, grid.size[0]
    # The images lie side by side, padded to whole blocks; the padding between them is multiplied by zeros.
    blocks = -(-wide // BLOCK)
    pitch = blocks * BLOCK
    cells = reference.new_zeros(height, channels, batch, pitch)
    cells[..., :width] = reference.permute(2, 1, 0, 3)
    area = reference.new_zeros(tall, channels, batch * pitch + 2 * grid.margin)
    area[..., : batch * pitch].view(tall, channels, batch, pitch)[..., :wide] = moving.permute(2, 1, 0, 3)
    reach = BLOCK + 2 * grid.margin
    left = cells.reshape(height * channels, -1).unfold(-1, BLOCK, BLOCK).permute(1, 2, 0)  # (blocks, BLOCK, rows)
    right = area.reshape(tall * channels, -1).unfold(-1, reach, BLOCK).permute(1, 0, 2)  # (blocks, rows, reach)
    over_columns = selection(grid.columns, grid.size[1], width, reference)
    bands = bands_of(grid)
    product = reference.new_empty(n, batch * blocks, BLOCK, reach)
    sums = reference.new_empty(len(bands), batch, len(grid.columns), n, n)
    for own, (first, last) in zip(sums, bands, strict=True):
        band = left[..., first * channels : last * channels]
        for j in range(n):
            torch.bmm(band, right[:, (first + j) * channels : (last + j) * channels], out=product[j])
        # Entry (c, c + i) of a block: column c, displacement i.
        diagonals = product.as_strided((n, batch * blocks, BLOCK, n), (*product.stride()[:2], reach + 1, 1))
        own[:] = (over_columns @ diagonals.reshape(n, batch, pitch, n)[:, :, :width]).permute(1, 2, 0, 3)
    firsts = torch.tensor([first for first, _ in bands], device=sums.device)
    rows = torch.tensor(grid.rows, device=sums.device)[:, None]
    of_windows = ((firsts >= rows) & (firsts < rows + size)).to(sums)
    return torch.einsum("wk,kbcji->bwcji", of_windows, sums).flatten(1, 2)


def bands_of(grid: WindowGrid) -> list[tuple[int, int]]:
    """Row ranges (first, last + 1) between neighbouring cuts; a window begins or ends at each cut."""
    size = grid.size[0]
    cuts = sorted({row for first in grid.rows for row in (first, first + size)})
    return [(a, b) for a, b in pairwise(cuts) if any(first <= a < first + size for first in grid.rows)]
