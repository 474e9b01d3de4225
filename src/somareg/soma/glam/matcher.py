"""GLAM, the Global-Local Affine-Flow Matcher: coarse matches -> global affine -> affine-flow stages -> local flow.

Every stage's estimate is returned, so that the error per stage can be seen and trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from somareg.errors import ConfigError
from somareg.soma.encoder import Encoded
from somareg.soma.glam.affine_flow import StageCfg, StageEstimate, affine_flow, default_stages
from somareg.soma.glam.coarse import CoarseCfg, CoarseMatcher, CoarseMatches
from somareg.soma.glam.local_flow import LocalCfg, local_flow


@dataclass(frozen=True)
class GlamCfg:
    """Settings of GLAM; switches for the ablations.

    Attributes:
        coarse: coarse matcher; without it (None) the stages start from the given affine or the identity.
        stages: affine-flow stages, coarse to fine.
        affine: False keeps every stage's affine at its start ("flow only").
        local: local flow; None for none ("affine only").
    """

    coarse: CoarseCfg | None = field(default_factory=CoarseCfg)
    stages: tuple[StageCfg, ...] = field(default_factory=default_stages)
    affine: bool = True
    local: LocalCfg | None = field(default_factory=LocalCfg)


@dataclass(frozen=True, eq=False)
class GlamOutput:
    """Estimates of every stage for a batch.

    Attributes:
        coarse: coarse matches, None without them.
        stages: one estimate per stage and iteration.
        affine: (B, 2, 3) float64, reference pixels -> moving pixels, of the last stage.
        flow: (B, 2, h, w) local displacement D on nodes `local.stride` pixels apart (cell centres), in pixels, with
            `moving <- affine @ D`; None without local flow.
        certainty: (B, 1, h, w) 0-1, share of the prior's variance that the windows removed; None without local flow.
    """

    coarse: CoarseMatches | None
    stages: tuple[StageEstimate, ...]
    affine: Tensor
    flow: Tensor | None
    certainty: Tensor | None


TEMPERATURE = 25.0  # before training: log-likelihood per unit of correlation

Rewarp = Callable[[Tensor], tuple[Encoded, Tensor]]
"""(B, 2, 3) affine -> features of the moving image warped by it onto the reference grid with room around it, and the
(B, 2, 3) map of their pixels to moving pixels."""

Starts = Callable[[StageCfg, Tensor], Tensor]
"""(stage, (B, 2, 3) estimate so far) -> (B, 2, 3) affine that the stage starts from; training passes its own."""


class Glam(nn.Module):
    """The matcher on features of both images.

    Args:
        channels: stride -> channels of the features.
        cfg: settings.
    """

    def __init__(self, channels: dict[int, int], cfg: GlamCfg) -> None:
        super().__init__()
        if not cfg.stages:
            raise ConfigError("glam.stages is empty; give at least one affine-flow stage")
        self.cfg = cfg
        self.coarse = CoarseMatcher(channels[16], cfg.coarse) if cfg.coarse else None
        start, strides = math.log(TEMPERATURE), sorted({stage.stride for stage in cfg.stages})
        self.log_temperature = nn.ParameterDict({str(s): nn.Parameter(torch.tensor(start)) for s in strides})

    def temperature(self, stride: int) -> Tensor:
        """Log-likelihood per unit of window correlation at a stride, a scalar.

        Raises:
            KeyError: no stage has this stride.
        """
        if str(stride) not in self.log_temperature:
            raise KeyError(stride)
        temperature: Tensor = self.log_temperature[str(stride)].exp()
        return temperature

    def match_coarse(self, reference: Encoded, moving: Encoded) -> CoarseMatches | None:
        """Coarse matches of a batch, None without a coarse matcher."""
        if self.coarse is None:
            return None
        found: CoarseMatches = self.coarse(
            reference.pyramid[16], reference.valid[16], moving.pyramid[16], moving.valid[16]
        )
        return found

    def forward(
        self,
        reference: Encoded,
        moving: Encoded,
        *,
        start: Tensor | None = None,
        starts: Starts | None = None,
        rewarp: Rewarp | None = None,
    ) -> GlamOutput:
        """Match a batch.

        Args:
            reference, moving: features; the images may differ in size.
            start: (B, 2, 3) affine that the stages start from, instead of the coarse fit; without either the identity.
            starts: replaces the affine that each stage starts from.
            rewarp: encodes the moving image again under the affine that the stages start from, for inference; the
                features are then resampled only by the residual of that affine.
        """
        coarse = self.match_coarse(reference, moving) if start is None else None
        if start is None:
            identity = torch.eye(2, 3, dtype=torch.float64, device=reference.reconstruction.device)
            start = coarse.fit.matrix.detach() if coarse else identity.expand(len(reference.pyramid[2]), 2, 3)
        affine, base = start.double(), None
        if rewarp is not None:
            moving, base = rewarp(affine)
        estimates: list[StageEstimate] = []
        for stage in self.cfg.stages:
            s = stage.stride
            fixed, moved = (reference.pyramid[s], reference.valid[s]), (moving.pyramid[s], moving.valid[s])
            for _ in range(stage.iterations):
                begin = starts(stage, affine) if starts else affine
                estimate = affine_flow(stage, self.temperature(s), *fixed, *moved, begin, base)
                estimates.append(estimate)
                # Detached: each stage is trained on its own residual only; the next one starts from its result.
                affine = estimate.affine.detach() if self.cfg.affine else begin
        flow, certainty = None, None
        if self.cfg.local is not None:
            flow, certainty = local_flow(
                estimates[-1], affine, reference.pyramid, self.cfg.stages[-1].window, self.cfg.local
            )
        return GlamOutput(coarse, tuple(estimates), affine, flow, certainty)
