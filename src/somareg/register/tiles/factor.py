"""Cholesky factor of a banded matrix, block by block: the coefficients of a lattice touch only near ones."""

from __future__ import annotations

import torch
from torch import Tensor


class Factor:
    """`L L^T` of a symmetric positive definite matrix whose band is no wider than a block.

    A dense factor of n coefficients costs n^3; this one costs n times the square of the band, for the same numbers.

    Args:
        matrix: (n, n) float64; what lies further than `band` from the diagonal must be 0 and is not looked at.
        band: coefficients from the diagonal to the last one that is not 0.
    """

    def __init__(self, matrix: Tensor, band: int) -> None:
        size = max(1, band)
        self._parts = [slice(start, min(start + size, len(matrix))) for start in range(0, len(matrix), size)]
        self._diagonal: list[Tensor] = []
        self._below: list[Tensor] = []  # the block left of the diagonal, for each block but the first
        for i, part in enumerate(self._parts):
            own = matrix[part, part]
            if i:
                last = self._diagonal[-1]
                coupling = torch.linalg.solve_triangular(last, matrix[self._parts[i - 1], part], upper=False).mT
                self._below.append(coupling)
                own = own - coupling @ coupling.mT
            self._diagonal.append(torch.linalg.cholesky(own))

    @property
    def log_det(self) -> float:
        """Logarithm of the determinant of the matrix."""
        return 2 * float(sum(block.diagonal().log().sum() for block in self._diagonal))

    def _half(self, right: Tensor) -> list[Tensor]:
        """`L^-1 right`, block by block."""
        halves: list[Tensor] = []
        for i, part in enumerate(self._parts):
            own = right[part] - self._below[i - 1] @ halves[-1] if i else right[part]
            halves.append(torch.linalg.solve_triangular(self._diagonal[i], own, upper=False))
        return halves

    def solve(self, right: Tensor) -> Tensor:
        """`matrix^-1 right`, (n, k)."""
        halves = self._half(right)
        for i in reversed(range(len(halves))):
            own = halves[i]
            if i + 1 < len(halves):
                own = own - self._below[i].mT @ halves[i + 1]
            halves[i] = torch.linalg.solve_triangular(self._diagonal[i].mT, own, upper=True)
        return torch.cat(halves)

    def variance(self, design: Tensor) -> Tensor:
        """(k,) diagonal of `design^T matrix^-1 design`, design (n, k)."""
        total = torch.zeros(design.shape[1], dtype=design.dtype)
        for half in self._half(design):
            total += half.square().sum(0)
        return total
