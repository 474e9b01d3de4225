"""Steps of a refinement: windows to correlate, widths of the prior around each fit, stiffness of the fit."""

from __future__ import annotations

from dataclasses import dataclass, replace

from somareg.matching.windows import WindowCfg, roomy, thinned


@dataclass(frozen=True)
class ShapeCfg:
    """Prior on aspect and shear.

    Attributes:
        deviation: standard deviation of aspect and shear from the expected ones (those of a similarity unless a start
            says otherwise).
        gain: rise of the windows' log likelihood from which any aspect and shear is accepted instead.
    """

    deviation: float = 0.005  # relative shear and stretch of orthorectified products of one place are smaller
    gain: float = 3.0


@dataclass(frozen=True)
class StepCfg:
    """One warp-correlate-fit step; lengths in feature cells.

    Attributes:
        window: window settings.
        sigmas: prior widths, decreasing, one fit each.
        stiffness: pull towards a translation, see `fit_affine`.
        stride: level of the features, pixels per cell; None for the finest.
        reuse_px: overrides the matcher's; a last step needs features that were hardly resampled.
        shape: prior on aspect and shear; None for none.
    """

    window: WindowCfg
    sigmas: tuple[float, ...]
    stiffness: float
    stride: int | None = None
    reuse_px: float | None = None
    shape: ShapeCfg | None = None

    def on(self, cells: tuple[int, int], limit: int) -> StepCfg:
        """The same with windows that fit (height, width) cells, about `limit` of them at most."""
        return replace(self, window=thinned(roomy(self.window, cells), cells, limit))


NEAR = (
    StepCfg(WindowCfg(28, 4, 8), (2.0, 2.0, 1.5), 1.2, shape=ShapeCfg(gain=0.4)),
    StepCfg(WindowCfg(24, 4, 8), (1.5, 1.5, 1.2), 0.4, shape=ShapeCfg(gain=1.3)),
    StepCfg(WindowCfg(20, 3, 6), (1.2, 1.0, 0.8), 0.4, shape=ShapeCfg(gain=2.0)),
)
