"""GLAM (d): what the affine cannot explain, a smooth field through the last stage's windows, 0 far from any."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from somareg.matching.affine import apply_affine_batch, invert_batch
from somareg.matching.gaussian_process import overlap_noise, process_mean, process_variance
from somareg.matching.windows import WindowCfg, roomy
from somareg.soma.glam.affine_flow import StageEstimate
from somareg.soma.glam.coarse import cell_centres
from somareg.soma.pyramid import FeaturePyramid


@dataclass(frozen=True)
class LocalCfg:
    """Settings of the local flow inside the network.

    Attributes:
        length_px: correlation length of the field.
        variance_px2: its prior variance per axis.
        stride: distance of the flow's nodes, pixels.
    """

    length_px: float = 96.0
    variance_px2: float = 2.0
    stride: int = 16


def local_flow(
    last: StageEstimate, affine: Tensor, pyramid: FeaturePyramid, window: WindowCfg, cfg: LocalCfg
) -> tuple[Tensor, Tensor]:
    """Displacement and certainty at the nodes.

    Args:
        last: a stage's estimate.
        affine: (B, 2, 3) that the flow comes before: `moving <- affine @ D`.
        pyramid: the reference's features (for the size).
        window: of that stage.
        cfg: settings.

    Returns:
        flow and certainty, see `GlamOutput`.
    """
    height, width = (side * 2 // cfg.stride for side in pyramid[2].shape[-2:])
    points = last.points.double()
    nodes = cell_centres(height, width, cfg.stride).to(points).expand(len(points), -1, 2)
    # A window measured d after warping by `start`; beyond the affine it says affine^-1(start(x + d)) - x.
    seen = apply_affine_batch(last.start, points + last.displacement.double())
    beyond = apply_affine_batch(invert_batch(affine), seen) - points
    cells = (pyramid[last.stride].shape[-2], pyramid[last.stride].shape[-1])
    side = float(roomy(window, cells).size * last.stride)
    noise = overlap_noise(points, last.precision.double().clamp_min(1e-4), side)
    mean = process_mean(points, beyond, noise, cfg.length_px, cfg.variance_px2, nodes)
    variance = process_variance(points, noise, cfg.length_px, cfg.variance_px2, nodes)
    flow = mean.mT.reshape(len(points), 2, height, width).float()
    certainty = (1 - variance / cfg.variance_px2).reshape(len(points), 1, height, width).float()
    return flow, certainty.clamp(0.0, 1.0)
