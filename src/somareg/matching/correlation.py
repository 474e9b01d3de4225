"""Masked normalised cross-correlation of a grid of windows: three methods with the same result.

Dense windows share their pixels: one product map per displacement, summed over all windows at once. Sparse windows
with a wide margin are cut out and correlated with the FFT. Both are differentiable. Without gradients, matrix products
of bands (see `bands`) are faster than either up to margins of about half a window. All three subtract the image's mean
from the features and not each window's, so that windows can share work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from somareg.features.masks import is_whole
from somareg.matching.bands import BLOCK, band_sums, bands_of
from somareg.matching.layout import WindowGrid

CHUNK_ELEMENTS = 24_000_000  # bounds the memory of one batch of windows (about 100 MB of float32)
# Cost relative to one multiplication in the product maps, measured on a CPU.
FFT_COST = 20.0  # per cell of a window's search area
BAND_COST, BAND_CALL = 0.1, 1000.0  # per multiplication in a matrix product, and per call of one
MAP_CALL = 1900.0  # per product map, for its calls


def correlate_grid(
    reference: Tensor, reference_valid: Tensor, moving: Tensor, moving_valid: Tensor, grid: WindowGrid
) -> tuple[Tensor, Tensor]:
    """Correlation coefficients of every window with every displacement.

    Args:
        reference: (B, K, h, w) features.
        reference_valid: (B, 1, h, w) 0 or 1.
        moving: (B, K, h + 2 margin, w + 2 margin) features on the same grid, enlarged by the margin.
        moving_valid: (B, 1, h + 2 margin, w + 2 margin).
        grid: the windows.

    Returns:
        surfaces (B, N, 2m+1, 2m+1) in -1..1, entry [m + j, m + i] for displacement (i, j), damped where a window
        leaves the valid moving image and 0 where less than half of it lies inside; and the share of each window that is
        valid in the moving image at zero displacement, (B, N).
    """
    method = _fastest(reference, moving, grid)
    # Half precision has no FFT of these sizes, and the sums run over thousands of cells.
    with torch.autocast(reference.device.type, enabled=False):
        reference_valid, moving_valid = reference_valid.float(), moving_valid.float()
        reference, moving = _centred(reference.float(), reference_valid), _centred(moving.float(), moving_valid)
        covariance, energy, seen, count = method(reference, reference_valid, moving, moving_valid, grid)
    norm = energy.clamp_min(1e-12).sqrt()  # above 0, because the root has no gradient at 0
    floor = 1e-3 * norm.mean((1, 2, 3), keepdim=True) + 1e-9
    coefficient = covariance / (norm + floor)
    # Noise grows as 1/sqrt(seen); the factor keeps it even, so that the edge of the moving image gets no false peaks.
    # A displacement that leaves less than half of the window inside the moving image is no evidence.
    share = (seen / count.clamp_min(1.0)[..., None, None]).clamp(0.0, 1.0)
    surfaces = torch.where(share > 0.5, coefficient * share.sqrt(), torch.zeros_like(coefficient))
    return surfaces, share[..., grid.margin, grid.margin]


def _fastest(reference: Tensor, moving: Tensor, grid: WindowGrid) -> Callable[..., Parts]:
    height, width = reference.shape[-2:]
    side = 2 * grid.margin + 1
    area = (grid.size[0] + 2 * grid.margin) * (grid.size[1] + 2 * grid.margin)
    costs: dict[Callable[..., Parts], float] = {
        by_products: (height * width + MAP_CALL / len(reference)) * side**2,
        by_fft: FFT_COST * len(grid.rows) * len(grid.columns) * area,
    }
    if not (torch.is_grad_enabled() and (reference.requires_grad or moving.requires_grad)):
        bands = bands_of(grid)
        products = sum(b - a for a, b in bands) * (width + 2 * grid.margin) * (BLOCK + 2 * grid.margin)
        costs[by_bands] = side * (BAND_COST * products + len(bands) * BAND_CALL / len(reference))
    return min(costs, key=lambda method: costs[method])


def _centred(features: Tensor, valid: Tensor) -> Tensor:
    """Features minus their mean over the valid cells, 0 elsewhere."""
    count = valid.sum((-2, -1), keepdim=True).clamp_min(1.0)
    return (features - (features * valid).sum((-2, -1), keepdim=True) / count) * valid


Parts = tuple[Tensor, Tensor, Tensor, Tensor]
"""covariance, product of energies, seen: (B, N, n, n); valid cells of each reference window: (B, N)."""


class _ShiftedProducts(torch.autograd.Function):
    """Sum over channels of reference x moving displaced by every (i, j) of the margin.

    Works in small steps in place, so that temporaries stay in the cache and backward stores no map per displacement.
    """

    @staticmethod
    def forward(ctx: Any, reference: Tensor, moving: Tensor, side: int) -> Tensor:
        """(B, K, h, w) and (B, K, h + side - 1, w + side - 1) -> (B, side * side, h, w)."""
        ctx.save_for_backward(reference, moving)
        ctx.side = side
        batch, _, height, width = reference.shape
        products = reference.new_empty(batch, side * side, height, width)
        for index, shifted in enumerate(_shifts(moving, height, width, side)):
            torch.sum(reference * shifted, dim=1, out=products[:, index])
        return products

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of reference and moving."""
        reference, moving = ctx.saved_tensors
        gradient = gradients[0]
        for_reference, for_moving = torch.zeros_like(reference), torch.zeros_like(moving)
        height, width = reference.shape[-2:]
        targets = _shifts(for_moving, height, width, ctx.side)
        for index, (shifted, target) in enumerate(zip(_shifts(moving, height, width, ctx.side), targets, strict=True)):
            own = gradient[:, index : index + 1]
            for_reference.addcmul_(own, shifted)
            target.addcmul_(own, reference)
        return for_reference, for_moving, None


def _shifts(maps: Tensor, height: int, width: int, side: int) -> Iterator[Tensor]:
    """Views (B, K, height, width) of `maps` at every displacement, row by row."""
    for j in range(side):
        for i in range(side):
            yield maps[..., j : j + height, i : i + width]


def _products(reference: Tensor, moving: Tensor, side: int) -> Tensor:
    result: Tensor = _ShiftedProducts.apply(reference, moving, side)  # type: ignore[no-untyped-call]
    return result


def by_bands(
    reference: Tensor, reference_valid: Tensor, moving: Tensor, moving_valid: Tensor, grid: WindowGrid
) -> Parts:
    """Matrix products of bands of rows; without gradients."""
    count = grid.sums(reference_valid[:, 0])
    reference_energy = reference.square().sum(1, keepdim=True)
    moving_energy = moving.square().sum(1, keepdim=True)
    covariance = band_sums(reference, moving, grid)
    if is_whole(reference_valid):  # then every cell of a window counts at every displacement
        energy, seen = (grid.displaced_sums(maps[:, 0]) for maps in (moving_energy, moving_valid))
    else:
        both = torch.cat([moving_energy, moving_valid])
        energy, seen = band_sums(reference_valid.repeat(2, 1, 1, 1), both, grid).view(2, *covariance.shape)
    if is_whole(moving_valid):
        window_energy = grid.sums(reference_energy[:, 0])[..., None, None]
    else:
        window_energy = band_sums(reference_energy, moving_valid, grid)
    return covariance, window_energy * energy, seen.round(), count


def by_products(
    reference: Tensor, reference_valid: Tensor, moving: Tensor, moving_valid: Tensor, grid: WindowGrid
) -> Parts:
    """One product map per displacement, summed over all windows."""
    side = 2 * grid.margin + 1
    count = grid.sums(reference_valid[:, 0])
    reference_energy = reference.square().sum(1, keepdim=True)
    moving_energy = moving.square().sum(1, keepdim=True)
    covariance = grid.sums(_products(reference, moving, side))
    energy = grid.sums(_products(reference_valid, moving_energy, side))
    if is_whole(moving_valid):
        energy = energy * grid.sums(reference_energy)
        seen = count[:, None].expand_as(energy)
    else:
        energy = energy * grid.sums(_products(reference_energy, moving_valid, side))
        seen = grid.sums(_products(reference_valid, moving_valid, side))
    covariance, energy, seen = (x.mT.reshape(*x.mT.shape[:2], side, side) for x in (covariance, energy, seen))
    return covariance, energy, seen, count


def by_fft(reference: Tensor, reference_valid: Tensor, moving: Tensor, moving_valid: Tensor, grid: WindowGrid) -> Parts:
    """Each window is cut out and correlated with its search area by the FFT."""
    batch, channels = reference.shape[:2]
    wide = (grid.size[0] + 2 * grid.margin, grid.size[1] + 2 * grid.margin)
    chunk = max(1, CHUNK_ELEMENTS // (6 * batch * channels * wide[0] * wide[1]))
    parts: list[Parts] = []
    for i in range(0, len(grid.corners), chunk):
        corners = grid.corners[i : i + chunk]
        found = correlate_areas(
            _cut(reference, corners, grid.size),
            _cut(reference_valid, corners, grid.size),
            _cut(moving, corners, wide),
            _cut(moving_valid, corners, wide),
        )
        count = _cut(reference_valid, corners, grid.size).sum((1, 2, 3))
        covariance, energy, seen, count = (x.reshape(batch, len(corners), *x.shape[1:]) for x in (*found, count))
        parts.append((covariance, energy, seen, count))
    covariance, energy, seen, count = (torch.cat(list(part), dim=1) for part in zip(*parts, strict=True))
    return covariance, energy, seen, count


def _cut(features: Tensor, corners: list[tuple[int, int]], size: tuple[int, int]) -> Tensor:
    """(B, K, h, w) -> (B * N, K, *size), the windows of each image one after another."""
    windows = [features[:, :, y : y + size[0], x : x + size[1]] for y, x in corners]
    return torch.stack(windows, dim=1).flatten(0, 1)


def correlate_areas(
    window: Tensor, window_valid: Tensor, area: Tensor, area_valid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Covariance, product of energies and valid cells seen, (n, 2m+1, 2m+1), by the FFT.

    Args:
        window: (n, K, a, b) centred features, 0 where invalid; window_valid (n, 1, a, b).
        area: (n, K, a + 2m, b + 2m), and area_valid.
    """
    shape = area.shape[-2:]
    out_y, out_x = shape[0] - window.shape[-2] + 1, shape[1] - window.shape[-1] + 1
    spectrum: Callable[[Tensor], Tensor] = lambda x: torch.fft.rfft2(x, s=shape)  # noqa: E731
    correlation: Callable[[Tensor], Tensor] = lambda x: torch.fft.irfft2(x, s=shape)[..., :out_y, :out_x]  # noqa: E731
    mask_spectrum = spectrum(window_valid[:, 0]).conj()
    covariance = correlation((spectrum(window).conj() * spectrum(area)).sum(1))
    area_energy = correlation(mask_spectrum * spectrum(area.square().sum(1))).clamp_min(0.0)
    if is_whole(area_valid):
        window_energy = window.square().sum((1, 2, 3))[:, None, None]
        seen = window_valid.sum((1, 2, 3))[:, None, None].expand_as(covariance)
    else:
        valid_spectrum = spectrum(area_valid[:, 0])
        window_energy = correlation(spectrum(window.square().sum(1)).conj() * valid_spectrum).clamp_min(0.0)
        # These are counts; without rounding, FFT errors would decide whether exactly half of a window is seen.
        seen = correlation(mask_spectrum * valid_spectrum).round()
    return covariance, window_energy * area_energy, seen
