"""GLAM (d): local flow beyond the affine, from the last stage's windows by the same field posterior as `register`."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from somareg.matching.affine import apply_affine_batch, invert_batch
from somareg.matching.belief import BeliefCfg, weigh
from somareg.matching.windows import WindowCfg, roomy
from somareg.soma.glam.affine_flow import StageEstimate
from somareg.soma.glam.coarse import cell_centres
from somareg.soma.pyramid import FeaturePyramid


@dataclass(frozen=True)
class LocalCfg:
    """Settings of the local flow inside the network.

    Attributes:
        belief: which fields are considered, as in `register`.
        stride: distance of the flow's nodes, pixels.
    """

    belief: BeliefCfg = field(default_factory=BeliefCfg)
    stride: int = 16


def local_flow(
    last: StageEstimate, affine: Tensor, pyramid: FeaturePyramid, window: WindowCfg, cfg: LocalCfg
) -> tuple[Tensor, Tensor]:
    """Displacement and certainty at the nodes.

    Args:
        last: a stage's estimate.
        affine: (B, 2, 3) that is applied after the flow: `moving <- affine @ D`.
        pyramid: the reference's features (for the size).
        window: of that stage.
        cfg: settings.

    Returns:
        flow and certainty, see `GlamOutput`.
    """
    height, width = (side * 2 // cfg.stride for side in pyramid[2].shape[-2:])
    points = last.points.double()
    nodes = cell_centres(height, width, cfg.stride).to(points).expand(len(points), -1, 2)
    # A window measured d after warping by `start`; relative to the affine this is affine^-1(start(x + d)) - x.
    seen = apply_affine_batch(last.start, points + last.displacement.double())
    beyond = apply_affine_batch(invert_batch(affine), seen) - points
    cells = (pyramid[last.stride].shape[-2], pyramid[last.stride].shape[-1])
    side = float(roomy(window, cells).size * last.stride)
    belief = weigh(points, beyond, last.precision.double(), side, cfg.belief)
    flow = belief.mean(nodes).mT.reshape(len(points), 2, height, width).float()
    certainty = belief.coverage(nodes).reshape(len(points), 1, height, width).float()
    return flow, certainty.clamp(0.0, 1.0)
