"""Figures of a result that was never matched."""

from __future__ import annotations

from dataclasses import replace

from somareg.types import Metres, Quality


def on_squares(quality: Quality, metres: float, residual_ce90_m: float = 1.0) -> Quality:
    """The same figures with their metres, for pixels that are squares of so many."""
    names = ("shift_before", "local_rms", "residual_median", "forward_backward", "split_half")
    names += ("predicted_rmse", "predicted_ce90")
    lengths = {f"{name}_m": metres * getattr(quality, f"{name}_px") for name in names}
    shift = metres * quality.shift_px[0], metres * quality.shift_px[1]
    square = Metres(pixel_m=(metres, metres), shift_m=shift, residual_ce90_m=residual_ce90_m, **lengths)
    return replace(quality, metres=square)
