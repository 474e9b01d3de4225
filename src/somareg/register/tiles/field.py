"""A smooth random field over a whole scene, estimated from very many noisy tie points.

The exact Gaussian process of small pairs (`matching.process`) costs the cube of the number of tie points, and a scene
has tens of thousands. So the field is a cubic B-spline on a coarse lattice, of a bounded number of coefficients, whose
prior is the Gauss-Markov field that approximates a Matern process (Lindgren, Rue and Lindstroem, 2011, section 2.2):
precision `tau^2 (kappa^2 + L)^2`, L the Laplacian of the lattice. The tie points enter through sums of a few numbers
each (linear in their number), and the solution is exact, with its variance and its marginal likelihood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from somareg.register.tiles.factor import Factor
from somareg.runtime.threads import Over, one_by_one
from somareg.types import FloatArray

MAX_NODES = 44  # along the longer side: 2000 coefficients are solved exactly in about a second
_CHUNK = 8192


@dataclass(frozen=True)
class Lattice:
    """The lattice of coefficients, from one step before the image to one step beyond it.

    Attributes:
        step: reference pixels between neighbours.
        columns, rows: number of coefficients along x and y.
    """

    step: float
    columns: int
    rows: int

    @classmethod
    def over(cls, shape: tuple[int, int], step: float) -> Lattice:
        """A lattice over an image of (height, width); `step` grows when there would be too many coefficients."""
        step = max(step, max(shape) / MAX_NODES)
        rows, columns = (math.ceil((n - 1) / step) + 3 for n in shape)
        return cls(step, columns, rows)

    def weights(self, positions: FloatArray, count: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The first of the four coefficients along one axis for each position (pixels), and their weights (N, 4)."""
        u = np.clip(np.asarray(positions, float) / self.step + 1.0, 1.0, count - 2.0)
        first = np.minimum(u.astype(np.intp), count - 3)
        t = u - first
        cubic = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=-1)
        return first - 1, cubic / 6.0

    def design(self, points: FloatArray) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Indices (N, 16) of the coefficients that each point (N, 2) depends on, and their weights."""
        column, wx = self.weights(points[:, 0], self.columns)
        row, wy = self.weights(points[:, 1], self.rows)
        four = np.arange(4)
        index = (row[:, None, None] + four[:, None]) * self.columns + column[:, None, None] + four
        weight = wy[:, :, None] * wx[:, None, :]
        return index.reshape(-1, 16), weight.reshape(-1, 16)

    @property
    def size(self) -> int:
        return self.columns * self.rows

    @property
    def band(self) -> int:
        """Largest distance, in their order, of coefficients that one point depends on."""
        return 3 * self.columns + 3


@dataclass(frozen=True, eq=False)
class Sums:
    """Sufficient statistics of the tie points for a solution.

    Attributes:
        normal: (n, n) weighted products of the design.
        right: (n, 2) of design and values.
        squares: weighted sum of the squared values, both axes.
        count: number of tie points.
    """

    normal: Tensor
    right: Tensor
    squares: float
    count: int


def gather_sums(lattice: Lattice, points: FloatArray, values: FloatArray, weight: FloatArray) -> Sums:
    """Sums over tie points; cost linear in their number.

    Args:
        lattice: of the coefficients.
        points, values: (N, 2) reference pixels.
        weight: (N,) relative precision.
    """
    n = lattice.size
    normal, right = np.zeros(n * n), np.zeros((n, 2))
    for start in range(0, len(points), _CHUNK):
        part = slice(start, start + _CHUNK)
        index, basis = lattice.design(points[part])
        weighted = basis * weight[part, None]
        pairs = index[:, :, None] * n + index[:, None, :]
        normal += np.bincount(pairs.ravel(), (weighted[:, :, None] * basis[:, None, :]).ravel(), n * n)
        for axis in (0, 1):
            right[:, axis] += np.bincount(index.ravel(), (weighted * values[part, axis, None]).ravel(), n)
    squares = float((weight[:, None] * values**2).sum())
    return Sums(torch.from_numpy(normal.reshape(n, n)), torch.from_numpy(right), squares, len(points))


@dataclass(frozen=True)
class Prior:
    """Size and smoothness of the field.

    Attributes:
        range_px: distance at which the correlation has fallen to about 0.14.
        ratio: variance of the field relative to the noise variance of a tie point of weight 1; 0 for no field.
    """

    range_px: float
    ratio: float


def _spectrum(lattice: Lattice, range_px: float) -> tuple[float, Tensor, float]:
    """kappa^2 in lattice steps, eigenvalues of the Laplacian (free boundary), and tau^2 for unit variance."""
    kappa2 = 8.0 / max(range_px / lattice.step, 1.0) ** 2
    x, y = (
        2 - 2 * torch.cos(math.pi * torch.arange(n, dtype=torch.float64) / n) for n in (lattice.columns, lattice.rows)
    )
    return kappa2, y[:, None] + x, 1.0 / (4 * math.pi * kappa2)


def prior_precision(lattice: Lattice, range_px: float) -> Tensor:
    """(n, n) precision of the coefficients of a field of unit variance."""
    kappa2, _, tau2 = _spectrum(lattice, range_px)

    def path(count: int) -> Tensor:
        one = torch.diag(torch.full((count - 1,), -1.0, dtype=torch.float64), 1)
        chain = one + one.mT
        return chain - torch.diag(chain.sum(1))

    # (kappa^2 + L)^2 with L = y + x, a Kronecker sum: multiplying that out needs no product of large matrices.
    x, y = path(lattice.columns), path(lattice.rows)
    along_x = x @ x + 2 * kappa2 * x + kappa2**2 * torch.eye(lattice.columns, dtype=torch.float64)
    along_y = y @ y + 2 * kappa2 * y
    precision = torch.kron(torch.eye(lattice.rows, dtype=torch.float64), along_x)
    precision += torch.kron(along_y, torch.eye(lattice.columns, dtype=torch.float64))
    precision += 2 * torch.kron(y, x)
    return tau2 * precision


def prior_log_det(lattice: Lattice, range_px: float) -> float:
    """Logarithm of the determinant of `prior_precision`."""
    kappa2, eigenvalues, tau2 = _spectrum(lattice, range_px)
    return float(2 * (kappa2 + eigenvalues).log().sum()) + lattice.size * math.log(tau2)


@dataclass(frozen=True, eq=False)
class Field:
    """The posterior mean: a displacement at every point, zero far from any tie point.

    Attributes:
        lattice: of the coefficients.
        coefficients: (2, rows, columns) pixels.
        prior: of the field.
        noise: variance of a tie point of weight 1, px^2.
    """

    lattice: Lattice
    coefficients: NDArray[np.float64]
    prior: Prior
    noise: float

    def __call__(self, points: FloatArray) -> NDArray[np.float64]:
        """Displacement (N, 2) at points (N, 2)."""
        index, weight = self.lattice.design(points)
        flat = self.coefficients.reshape(2, -1)
        return np.stack([(flat[axis][index] * weight).sum(1) for axis in (0, 1)], axis=-1)

    def on_grid(self, x: FloatArray, y: FloatArray) -> NDArray[np.float64]:
        """Displacement (2, len(y), len(x)) on a grid, axis by axis."""
        across, down = _dense(self.lattice, x, self.lattice.columns), _dense(self.lattice, y, self.lattice.rows)
        result: NDArray[np.float64] = np.einsum("ym,amn,xn->ayx", down, self.coefficients, across, optimize=True)
        return result


def solve(lattice: Lattice, sums: Sums, prior: Prior, base: Tensor | None = None) -> tuple[Field, float]:
    """Solve for the field of given size and smoothness.

    Args:
        lattice: of the coefficients.
        sums: of the tie points.
        prior: of the field.
        base: `prior_precision` of the range, if already computed.

    Returns:
        The field and its log marginal likelihood, the noise variance profiled out.
    """
    count = max(sums.count, 1)
    if prior.ratio == 0:
        noise = max(sums.squares / (2 * count), 1e-9)
        nothing = np.zeros((2, lattice.rows, lattice.columns))
        return Field(lattice, nothing, prior, noise), -count * math.log(noise)
    base = prior_precision(lattice, prior.range_px) if base is None else base
    factor = Factor((base / prior.ratio).add_(sums.normal), lattice.band)  # in place: 32 MB each
    mean = factor.solve(sums.right)
    noise = max((sums.squares - float((sums.right * mean).sum())) / (2 * count), 1e-9)
    log_prior = prior_log_det(lattice, prior.range_px) - lattice.size * math.log(prior.ratio)
    coefficients = mean.mT.reshape(2, lattice.rows, lattice.columns).numpy()
    return Field(lattice, coefficients, prior, noise), -count * math.log(noise) - factor.log_det + log_prior


def choose_prior(
    lattice: Lattice,
    sums: Sums,
    ranges_px: tuple[float, ...],
    ratios: tuple[float, ...],
    independent: float,
    over: Over = one_by_one,
) -> Prior:
    """Size and smoothness of largest marginal likelihood; ratio 0 when no field is likelier.

    Args:
        lattice: of the coefficients.
        sums: of the tie points.
        ranges_px, ratios: candidates.
        independent: share of the tie points that count as independent, 0-1: errors within a tile are correlated.
        over: applies a function to the ranges.
    """
    weaker = Sums(
        sums.normal * independent, sums.right * independent, sums.squares * independent, round(sums.count * independent)
    )
    none = Prior(ranges_px[0], 0.0)
    scores = {none: solve(lattice, weaker, none)[1]}

    def scored(range_px: float) -> dict[Prior, float]:
        base = prior_precision(lattice, range_px)
        candidates = [Prior(range_px, ratio) for ratio in ratios]
        return {prior: solve(lattice, weaker, prior, base)[1] for prior in candidates}

    for found in over(scored, ranges_px):
        scores |= found
    return max(scores, key=lambda prior: scores[prior])


def coverage_at(
    lattice: Lattice, sums: Sums, range_px: float, noise: float, x: FloatArray, y: FloatArray
) -> NDArray[np.float64]:
    """(len(y), len(x)) in 0-1: share of the variance of a field of 1 px that the tie points removed.

    Args:
        lattice: of the coefficients.
        sums: of the tie points.
        range_px: of the field.
        noise: variance of a tie point of weight 1, px^2; for a field of another variance, divided by that variance.
        x, y: pixels of a grid; the variance is exact on the lattice and bilinear between.
    """
    nodes_x, nodes_y = (lattice.step * np.arange(n - 2) for n in (lattice.columns, lattice.rows))
    grid_x, grid_y = np.meshgrid(nodes_x, nodes_y)
    share = known_at(lattice, sums, range_px, noise, np.stack([grid_x.ravel(), grid_y.ravel()], axis=-1))
    across = np.stack([np.interp(x, nodes_x, row) for row in share.reshape(grid_x.shape)])
    result: NDArray[np.float64] = np.stack([np.interp(y, nodes_y, column) for column in across.T], axis=-1)
    return result


def known_at(lattice: Lattice, sums: Sums, range_px: float, noise: float, points: FloatArray) -> NDArray[np.float64]:
    """(N,) the same as `coverage_at` at points (N, 2), exact everywhere."""
    prior = prior_precision(lattice, range_px)
    index, weight = lattice.design(points)
    design = torch.zeros(lattice.size, len(points), dtype=torch.float64)
    design.scatter_add_(0, torch.from_numpy(index).mT, torch.from_numpy(weight).mT)
    # The lattice smooths a rough prior and its free boundary widens it, so posterior is compared with prior.
    before = Factor(prior, lattice.band).variance(design)
    remainder = Factor((sums.normal / max(noise, 1e-6)).add_(prior), lattice.band).variance(design) / before
    return np.clip(1.0 - remainder.numpy(), 0.0, 1.0)


def _dense(lattice: Lattice, positions: FloatArray, count: int) -> NDArray[np.float64]:
    first, weight = lattice.weights(positions, count)
    matrix = np.zeros((len(positions), count))
    for k in range(4):
        np.add.at(matrix, (np.arange(len(positions)), first + k), weight[:, k])
    return matrix
