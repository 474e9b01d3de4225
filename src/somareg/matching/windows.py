"""Normalised cross-correlation of many windows against a search margin, batched with the FFT.

The one implementation of window correlation: hand-made orientation channels and learned features both pass here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_ELEMENTS = 24_000_000  # bounds the memory of one batch of windows (about 100 MB of float32)


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
    """Correlation of each window with every integer displacement in the margin.

    Attributes:
        surfaces: (N, 2m+1, 2m+1) correlation coefficients in -1..1; entry [m + j, m + i] is displacement (i, j) cells.
        centres: (N, 2) (x, y) feature cells.
        valid: (N,) share of the window's cells that are valid in both images, 0-1.
    """

    surfaces: Tensor
    centres: Tensor
    valid: Tensor

    @property
    def margin(self) -> int:
        return self.surfaces.shape[-1] // 2

    def cpu(self) -> WindowCorrelation:
        """The same in main memory."""
        return WindowCorrelation(self.surfaces.cpu(), self.centres.cpu(), self.valid.cpu())


def _starts(length: int, size: int, stride: int) -> list[int]:
    """First cells of windows spread evenly over an axis, at most about `stride` apart."""
    count = max(1, round((length - size) / stride) + 1)
    return sorted({round(i * (length - size) / max(count - 1, 1)) for i in range(count)})


def place_windows(valid: Tensor, cfg: WindowCfg) -> tuple[list[tuple[int, int]], Tensor]:
    """Corners (y, x) of the windows with more than a third of their cells valid, and that share (N,)."""
    height, width = valid.shape[-2:]
    size_y, size_x = min(cfg.size, height), min(cfg.size, width)
    corners = [(y, x) for y in _starts(height, size_y, cfg.stride) for x in _starts(width, size_x, cfg.stride)]
    coverage = torch.stack([valid[0, 0, y : y + size_y, x : x + size_x].mean() for y, x in corners])
    kept = coverage > 1 / 3
    return [corner for corner, keep in zip(corners, kept.tolist(), strict=True) if keep], coverage[kept]


def correlate_windows(
    reference: Tensor, reference_valid: Tensor, moving: Tensor, moving_valid: Tensor, cfg: WindowCfg
) -> WindowCorrelation:
    """Zero-mean normalised cross-correlation of reference windows in the moving features.

    Args:
        reference: (1, K, h, w) features.
        reference_valid: (1, 1, h, w) 0 or 1; features are 0 where it is 0.
        moving: (1, K, h + 2 margin, w + 2 margin) features on the same grid, enlarged by the margin.
        moving_valid: (1, 1, h + 2 margin, w + 2 margin).
        cfg: window settings; windows larger than the features are cut to them.

    Returns:
        One surface per window; windows with fewer than a third of their cells valid, or with fewer than `min_seen`
        of them inside the valid moving image at zero displacement, are left out.
    """
    height, width = reference.shape[-2:]
    size_y, size_x, m = min(cfg.size, height), min(cfg.size, width), cfg.margin
    corners, coverage = place_windows(reference_valid, cfg)
    channels = reference.shape[1]
    per_window = channels * (size_y + 2 * m) * (size_x + 2 * m)
    chunk = max(1, CHUNK_ELEMENTS // (6 * per_window))
    results = [
        _correlate(
            _cut(reference, corners[i : i + chunk], size_y, size_x),
            _cut(reference_valid, corners[i : i + chunk], size_y, size_x),
            _cut(moving, corners[i : i + chunk], size_y + 2 * m, size_x + 2 * m),
            _cut(moving_valid, corners[i : i + chunk], size_y + 2 * m, size_x + 2 * m),
        )
        for i in range(0, len(corners), chunk)
    ]
    empty = reference.new_zeros((0, 2 * m + 1, 2 * m + 1))
    centres = reference.new_tensor([(x + (size_x - 1) / 2, y + (size_y - 1) / 2) for y, x in corners]).reshape(-1, 2)
    if not results:
        return WindowCorrelation(empty, centres, coverage)
    surfaces, seen = (torch.cat(part) for part in zip(*results, strict=True))
    kept = seen >= cfg.min_seen
    return WindowCorrelation(surfaces[kept], centres[kept], (coverage * seen)[kept])


def correlate_all(reference: Tensor, reference_valid: Tensor, moving: Tensor, moving_valid: Tensor) -> Tensor:
    """The whole reference as one window, in several moving feature maps at once.

    Args:
        reference: (1, K, h, w) features.
        reference_valid: (1, 1, h, w).
        moving: (n, K, h + 2m, w + 2m) features.
        moving_valid: (n, 1, h + 2m, w + 2m).

    Returns:
        (n, 2m+1, 2m+1) coefficients.
    """
    return _correlate(reference, reference_valid, moving, moving_valid)[0]


def _cut(features: Tensor, corners: list[tuple[int, int]], size_y: int, size_x: int) -> Tensor:
    return torch.stack([features[0, :, y : y + size_y, x : x + size_x] for y, x in corners])


def _correlate(window: Tensor, window_valid: Tensor, area: Tensor, area_valid: Tensor) -> tuple[Tensor, Tensor]:
    """Masked ZNCC of (n, K, a, b) windows in (n, K, a + 2m, b + 2m) areas.

    Returns:
        coefficients (n, 2m+1, 2m+1), 0 where too little is seen; share of the window seen at zero displacement (n,).
    """
    shape = area.shape[-2:]
    out_y, out_x = shape[0] - window.shape[-2] + 1, shape[1] - window.shape[-1] + 1

    def spectrum(x: Tensor) -> Tensor:
        result: Tensor = torch.fft.rfft2(x, s=shape)
        return result

    def correlation(product: Tensor) -> Tensor:
        result: Tensor = torch.fft.irfft2(product, s=shape)
        return result[..., :out_y, :out_x]

    count = window_valid.sum((-2, -1), keepdim=True).clamp_min(1.0)
    window = (window - window.sum((-2, -1), keepdim=True) / count) * window_valid
    mask_spectrum = spectrum(window_valid).conj()[:, 0]
    covariance = correlation((spectrum(window).conj() * spectrum(area)).sum(1))
    area_energy = correlation(mask_spectrum * spectrum(area.square().sum(1))).clamp_min(0.0)
    if bool((area_valid > 0).all()):
        window_energy, seen = window.square().sum((1, 2, 3))[:, None, None], None
    else:
        valid_spectrum = spectrum(area_valid[:, 0])
        window_energy = correlation(spectrum(window.square().sum(1)).conj() * valid_spectrum).clamp_min(0.0)
        seen = correlation(mask_spectrum * valid_spectrum) / count[:, 0]
    norm = (window_energy * area_energy).sqrt()
    coefficient = covariance / (norm + 1e-3 * norm.mean() + 1e-9)
    if seen is None:
        return coefficient, coefficient.new_ones(len(coefficient))
    # Noise grows as 1/sqrt(seen); the factor keeps it even, so that the edge of the moving image does not attract.
    # A displacement that leaves less than half of the window inside the moving image proves nothing.
    weighted = torch.where(seen > 0.5, coefficient * seen.clamp(0.0, 1.0).sqrt(), torch.zeros_like(coefficient))
    return weighted, seen[:, out_y // 2, out_x // 2].clamp(0.0, 1.0)
