"""Figures of a result that was never matched."""

from __future__ import annotations

from dataclasses import replace

from somareg.types import Metres, Quality


def on_squares(quality: Quality, metres: float) -> Quality:
    """The same figures with their metres, for pixels that are squares of so many."""
    names = ("shift_before", "local_rms", "residual_median", "forward_backward", "split_half")
    names += ("predicted_rmse", "predicted_ce90", "worst")
    lengths = {f"{name}_m": metres * getattr(quality, f"{name}_px") for name in names}
    shift, bias, sigma = ((metres * x, metres * y) for x, y in (quality.shift_px, quality.bias_px, quality.sigma_px))
    square = Metres(pixel_m=(metres, metres), shift_m=shift, bias_m=bias, sigma_m=sigma, **lengths)
    return replace(quality, metres=square)
