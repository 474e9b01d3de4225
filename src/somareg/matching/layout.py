"""Where the windows of an image lie: at every combination of some rows and columns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class WindowGrid:
    """Windows at every combination of some rows and columns, in cells.

    Attributes:
        rows, columns: first row and first column of the windows.
        size: (height, width) of a window.
        margin: search radius.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    size: tuple[int, int]
    margin: int

    @property
    def corners(self) -> list[tuple[int, int]]:
        """First cell (y, x) of each window, row by row."""
        return [(y, x) for y in self.rows for x in self.columns]

    def centres(self, like: Tensor) -> Tensor:
        """(N, 2) centres (x, y) of the windows."""
        height, width = self.size
        middle = [(x + (width - 1) / 2, y + (height - 1) / 2) for y, x in self.corners]
        return like.new_tensor(middle).reshape(-1, 2)

    def sums(self, maps: Tensor) -> Tensor:
        """Sum of each window of (..., h, w) maps, (..., N)."""
        over_rows = selection(self.rows, self.size[0], maps.shape[-2], maps)
        over_columns = selection(self.columns, self.size[1], maps.shape[-1], maps)
        return (over_rows @ maps @ over_columns.mT).flatten(-2)

    def displaced_sums(self, maps: Tensor) -> Tensor:
        """Sum of each window, at every displacement, of (B, h + 2 margin, w + 2 margin) maps: (B, N, n, n)."""
        n = 2 * self.margin + 1
        rows, columns = (tuple(first + i for first in firsts for i in range(n)) for firsts in (self.rows, self.columns))
        over_rows = selection(rows, self.size[0], maps.shape[-2], maps)
        over_columns = selection(columns, self.size[1], maps.shape[-1], maps)
        sums = (over_rows @ maps @ over_columns.mT).view(-1, len(self.rows), n, len(self.columns), n)
        return sums.transpose(2, 3).flatten(1, 2)


def selection(starts: tuple[int, ...], size: int, length: int, like: Tensor) -> Tensor:
    """(len(starts), length) of 0 and 1: which cells of an axis belong to which window."""
    index = torch.arange(length, device=like.device)
    first = torch.tensor(starts, device=like.device)[:, None]
    return ((index >= first) & (index < first + size)).to(like)
