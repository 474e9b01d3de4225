"""Batched, differentiable solvers for symmetric positive definite matrices; the host never waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor


def condition_number(matrix: Tensor) -> Tensor:
    """Condition numbers (B,) of symmetric (B, n, n) matrices by Frobenius norms, 1 for the identity; infinite for
    matrices that are not positive definite.

    It lies between 1/n of the spectral condition number and that number, and needs no decomposition that
    makes the host wait for the device.
    """
    inverse = solve(matrix, torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device).expand_as(matrix))
    condition = torch.linalg.matrix_norm(matrix) * torch.linalg.matrix_norm(inverse) / matrix.shape[-1]
    return torch.where(torch.isfinite(condition), condition, torch.inf)


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """`matrix^-1 right` for symmetric positive definite matrices (..., n, n), NaN for others; no host wait.

    Uses Cholesky factors. Batches of LU factors come out wrong on a CPU once another thread has factorised (oneMKL
    2024.2 in torch 2.13), and these matrices need no pivots.
    """
    root, failed = cholesky(matrix)
    return torch.where(failed[..., None, None], torch.nan, solve_by(root, right))


def solve_by(root: Tensor, right: Tensor) -> Tensor:
    """`(root root')^-1 right` for lower factors (..., n, n); no host wait, unlike `torch.cholesky_solve`."""
    half = torch.linalg.solve_triangular(root, right, upper=False)
    solution: Tensor = torch.linalg.solve_triangular(root.mT, half, upper=True)
    return solution


def cholesky(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Lower factors of symmetric matrices (..., n, n), and which (...) are not positive definite.

    The factor of those is the identity, so that gradients stay finite. The host never waits.
    """
    root, failed = torch.linalg.cholesky_ex((matrix + matrix.mT) / 2)  # symmetrised: its gradient uses both triangles
    refused = failed != 0
    return torch.where(refused[..., None, None], torch.eye(matrix.shape[-1]).to(root), root), refused
