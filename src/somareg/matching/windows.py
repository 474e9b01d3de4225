"""Positions of windows, and their correlation with every displacement in a search margin.

This is the one implementation of window correlation, for orientation channels and for learned features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from somareg.matching.correlation import correlate_grid
from somareg.matching.layout import WindowGrid


@dataclass(frozen=True)
class WindowCfg:
    """Size of the windows, in feature cells.

    Attributes:
        size: window side.
        margin: search radius.
        stride: distance between neighbouring windows.
        min_seen: share of a window that must lie in the valid moving image at zero displacement.
    """

    size: int = 24
    margin: int = 4
    stride: int = 8
    min_seen: float = 0.6


@dataclass(frozen=True, eq=False)
class WindowCorrelation:
    """Correlation of each window with every integer displacement in the margin, of one pair or of a batch (B).

    Attributes:
        surfaces: (N, 2m+1, 2m+1) or (B, N, 2m+1, 2m+1) correlation coefficients in -1..1; entry [m + j, m + i] is
            displacement (i, j) cells.
        centres: (N, 2) (x, y) feature cells.
        valid: (N,) or (B, N) share of the window's cells that are valid in both images, 0-1.
        temperature: log-likelihood per unit of correlation of trained features, else None.
    """

    surfaces: Tensor
    centres: Tensor
    valid: Tensor
    temperature: float | Tensor | None = None

    @property
    def margin(self) -> int:
        return self.surfaces.shape[-1] // 2

    def cpu(self) -> WindowCorrelation:
        """The same in main memory."""
        return replace(self, surfaces=self.surfaces.cpu(), centres=self.centres.cpu(), valid=self.valid.cpu())


def _starts(length: int, size: int, stride: int) -> list[int]:
    """First cells of windows spread evenly over an axis, at most about `stride` apart."""
    count = max(1, round((length - size) / stride) + 1)
    return sorted({round(i * (length - size) / max(count - 1, 1)) for i in range(count)})


def window_grid(shape: tuple[int, int], cfg: WindowCfg) -> WindowGrid:
    """Windows spread evenly over (height, width) cells; larger windows are cut to that size."""
    size = min(cfg.size, shape[0]), min(cfg.size, shape[1])
    rows, columns = (tuple(_starts(n, s, cfg.stride)) for n, s in zip(shape, size, strict=True))
    return WindowGrid(rows, columns, size, cfg.margin)


def thinned(window: WindowCfg, shape: tuple[int, int], limit: int) -> WindowCfg:
    """The same windows further apart, so that there are about `limit` at most on (height, width) cells."""
    free = [max(1, side - min(window.size, side)) for side in shape]
    # On a strip the windows grow along one axis only.
    stride = max(window.stride, int((free[0] * free[1] / limit) ** 0.5), int(sum(free) / limit))
    return replace(window, stride=stride)


def roomy(window: WindowCfg, shape: tuple[int, int]) -> WindowCfg:
    """Windows of at most three quarters of (height, width) cells: one window alone determines no affine."""
    size = min(window.size, 3 * min(shape) // 4)
    return replace(window, size=size, stride=min(window.stride, max(1, min(shape) - size)))


def overlap(centres: Tensor, side: float) -> float:
    """Mean number of windows of this side that cover a place; those are not independent measurements.

    Args:
        centres: (N, 2), N > 0.
        side: in the same unit.
    """
    spread = centres.amax(0) - centres.amin(0) + side
    return max(1.0, len(centres) * side**2 / float(spread.prod()))


def coverage(valid: Tensor, grid: WindowGrid) -> Tensor:
    """(B, N) share of each window's cells that are valid; `valid` is (B, 1, h, w)."""
    return grid.sums(valid[:, 0].float()) / (grid.size[0] * grid.size[1])


MIN_COVERAGE = 1 / 3  # share of a window's cells that must be valid in the reference


def correlate_all(
    reference: Tensor, reference_valid: Tensor, moving: Tensor, moving_valid: Tensor, cfg: WindowCfg
) -> list[WindowCorrelation]:
    """Normalised cross-correlation of one image's windows with several moving ones; see `correlate_grid`.

    Args:
        reference: (1, K, h, w) features.
        reference_valid: (1, 1, h, w) 0 or 1.
        moving: (B, K, h + 2 margin, w + 2 margin) features on the same grid, enlarged by the margin.
        moving_valid: (B, 1, h + 2 margin, w + 2 margin).
        cfg: window settings; windows larger than the features are cut to them.

    Returns:
        For each moving image one surface per window; windows with fewer than a third of their cells valid, or with
        fewer than `min_seen` of them inside the valid moving image at zero displacement, are left out.
    """
    grid = window_grid((reference.shape[-2], reference.shape[-1]), cfg)
    known = coverage(reference_valid, grid)[0]
    references = reference.expand(len(moving), -1, -1, -1), reference_valid.expand(len(moving), -1, -1, -1)
    surfaces, seen = correlate_grid(*references, moving, moving_valid, grid)
    kept = (seen >= cfg.min_seen) & (known > MIN_COVERAGE)
    centres, valid = grid.centres(reference), known * seen
    return [WindowCorrelation(surfaces[i, k], centres[k], valid[i, k]) for i, k in enumerate(kept)]
