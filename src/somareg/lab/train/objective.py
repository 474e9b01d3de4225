"""The training objective: SOMA's three losses, and losses on the measurements of every stage of GLAM."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from somareg.errors import ConfigError
from somareg.lab.data.batch import PairBatch
from somareg.lab.train.imitation import imitation
from somareg.lab.train.losses import (
    affine_grid_error,
    affine_loss,
    certainty_loss,
    cycle_loss,
    displacement_nll,
    flow_loss,
    map_points,
    matching_loss,
    nearest_cells,
    reconstruction_loss,
    sample_cells,
    true_residual,
    uniformity_loss,
    window_loss,
    within_search,
)
from somareg.matching.affine import apply_affine_batch, compose_batch, invert_batch
from somareg.matching.windows import roomy
from somareg.soma.glam.affine_flow import StageCfg, StageEstimate
from somareg.soma.glam.coarse import STRIDE, CoarseMatches, cell_centres
from somareg.soma.glam.matcher import GlamOutput
from somareg.soma.network import Soma


@dataclass(frozen=True)
class WeightsCfg:
    """Weights of the losses; 0 leaves one out.

    Attributes:
        window: heat maps of the windows against the true displacement, each stage.
        matching: coarse matches at 1/16 (feature matching loss).
        nll: displacements and precisions of the windows.
        affine: grid error of every stage's affine.
        coarse_affine: grid error of the coarse affine.
        flow: flow loss on the final displacement.
        certainty: certainty of the local flow.
        uniformity: spread of the final error over the image.
        reconstruction: L1 reconstruction loss of the FGE.
        cycle: forward and backward affine against the identity; costs the stages a second time.
        sharpen: weight, inside `affine`, of the loss on the last pixel.
    """

    window: float = 1.0
    matching: float = 0.3
    nll: float = 0.1
    affine: float = 0.2
    coarse_affine: float = 0.01
    flow: float = 0.1
    certainty: float = 0.05
    uniformity: float = 0.05
    reconstruction: float = 0.1
    cycle: float = 0.0
    sharpen: float = 0.5


@dataclass(frozen=True)
class ObjectiveCfg:
    """Settings of the objective.

    Attributes:
        weights: of the losses.
        sigma_cells: width of the target in the heat maps, cells.
        teacher: share of stages that start near the truth, with an error that the stage must be able to correct,
            instead of at the result of the stage before; stages out of reach always start near the truth.
        reach: error of a stage's start, as a share of its search margin.
        turned: pairs whose truth turns or scales by more than about this (radians, or relative) train the coarse
            matcher only: later stages see images that have been warped by the coarse affine.
        stretched: aspect and shear that do not count as turning (relative): features tolerate them better than a turn,
            and no search removes them before the stages.
        imitate: a model (name or file) whose features the network learns instead of the truth (`imitation`); None for
            the truth.
        sharpen_from: share of the schedule from which `weights.sharpen` applies.

    Raises:
        ConfigError: a negative weight.
    """

    weights: WeightsCfg = WeightsCfg()
    sigma_cells: float = 0.55
    teacher: float = 0.5
    reach: float = 0.7
    turned: float = 0.15
    stretched: float = 0.0
    sharpen_from: float = 0.7
    imitate: str | None = None

    def __post_init__(self) -> None:
        for item in fields(self.weights):
            if getattr(self.weights, item.name) < 0:
                raise ConfigError(f"objective.weights.{item.name} is negative; give 0 or more")


def objective(
    network: nn.Module, batch: PairBatch, cfg: ObjectiveCfg, *, step: int, progress: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of a batch.

    Args:
        network: a `Soma` in train mode.
        batch: pairs with their truth, on the network's device.
        cfg: settings.
        step: number of the step.
        progress: share of the schedule done, 0-1.

    Returns:
        The weighted sum, and each loss by name with the grid error (px) of every stage.
    """
    if cfg.imitate is not None:
        return imitation(network, batch, cfg.imitate)
    assert isinstance(network, Soma)
    encoded_reference = network.encode(batch.reference, batch.reference_mask, batch.modalities[0])
    encoded_moving = network.encode(batch.moving, batch.moving_mask, batch.modalities[1])
    starts = _Starts(batch, cfg)
    output: GlamOutput = network.glam(encoded_reference, encoded_moving, starts=starts)
    straight = _straight(batch.truth, cfg.turned, cfg.stretched)
    size = (batch.reference.shape[-2], batch.reference.shape[-1])
    weights = cfg.weights
    losses: dict[str, Tensor] = {}
    figures: dict[str, Tensor] = {}
    losses["reconstruction"] = reconstruction_loss(encoded_reference.reconstruction, encoded_moving.reconstruction)
    if output.coarse is not None:
        losses |= _coarse_losses(output.coarse, encoded_reference.valid[STRIDE], batch, size)
        figures["px_coarse"] = affine_grid_error(output.coarse.fit.matrix.detach(), batch.truth, size).median()
    window, nll = [], []
    steps = [stage for stage in network.cfg.glam.stages for _ in range(stage.iterations)]
    for stage, estimate in zip(steps, output.stages, strict=True):
        window_part, nll_part = _stage_losses(estimate, stage, batch, straight, cfg)
        window.append(window_part)
        nll.append(nll_part)
        error = affine_grid_error(estimate.affine.detach(), batch.truth, size)
        figures[f"px_{estimate.name.replace('/', '_')}"] = error.median()
    losses["window"], losses["nll"] = torch.stack(window).mean(), torch.stack(nll).mean()
    # Pairs turned too far keep a loss of zero, so that every process of a parallel run uses every parameter.
    turned = (straight < 0.5)[:, None, None]
    affines = [torch.where(turned, batch.truth.double(), estimate.affine) for estimate in output.stages]
    sharpen = weights.sharpen if progress >= cfg.sharpen_from else 0.0
    losses["affine"] = affine_loss(affines, batch.truth, size, sharpening=sharpen).float()
    if network.cfg.glam.local is not None:
        losses |= _flow_losses(output, batch, straight, encoded_reference.valid[2], network.cfg.glam.local.stride)
    if weights.cycle:
        start = invert_batch(output.affine)
        back: GlamOutput = network.glam(encoded_moving, encoded_reference, start=start)
        losses["cycle"] = cycle_loss(output.stages[-1].affine, back.stages[-1].affine, size).float()
    total = torch.stack([getattr(weights, name) * value.float() for name, value in losses.items()]).sum()
    return total, {**losses, **figures}


class _Starts:
    """Starts of the stages in training: near the truth, or the result of the stage before if that is in reach."""

    def __init__(self, batch: PairBatch, cfg: ObjectiveCfg) -> None:
        self.truth, self.cfg = batch.truth.double(), cfg
        self.size = max(batch.reference.shape[-2:])

    def __call__(self, stage: StageCfg, affine: Tensor) -> Tensor:
        margin = stage.window.margin * stage.stride * self.cfg.reach
        taught = compose_batch(self.truth, _perturbation(len(affine), margin, self.size, affine.device))
        corners = affine.new_tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]) * (self.size - 1)
        corners = corners.expand(len(affine), 4, 2)
        apart = apply_affine_batch(affine, corners) - apply_affine_batch(self.truth, corners)
        out_of_reach = ~(apart.norm(dim=-1).amax(1) < margin)
        lesson = torch.rand(len(affine), device=affine.device) < self.cfg.teacher
        return torch.where((out_of_reach | lesson)[:, None, None], taught, affine)


def _perturbation(count: int, margin: float, size: int, device: torch.device) -> Tensor:
    """Random residual affines (B, 2, 3) that move no pixel of an image of `size` by more than about `margin` pixels."""
    draw = 2 * torch.rand(count, 6, dtype=torch.float64, device=device) - 1
    shift = draw[:, :2] * margin * 0.5
    linear = draw[:, 2:].reshape(-1, 2, 2) * min(margin * 0.35 / size, 0.06)
    middle = torch.full((2,), (size - 1) / 2, dtype=torch.float64, device=device)
    offset = shift - linear @ middle
    identity = torch.eye(2, dtype=torch.float64, device=device)
    return torch.cat([identity + linear, offset[..., None]], dim=-1)


def _straight(truth: Tensor, turned: float, stretched: float) -> Tensor:
    """(B,) 1 for pairs with hardly any rotation, scale or change of shape, 0 for others.

    A linear map less the identity is a similarity and a change of shape; its largest singular value is the sum of both.
    """
    a, b, c, d = (truth[:, 0, 0] - 1, truth[:, 0, 1], truth[:, 1, 0], truth[:, 1, 1] - 1)
    similar, shape = torch.hypot(a + d, c - b) / 2, torch.hypot(a - d, b + c) / 2
    return (similar + (shape - stretched).clamp_min(0) < turned).float()


def _coarse_losses(coarse: CoarseMatches, valid: Tensor, batch: PairBatch, size: tuple[int, int]) -> dict[str, Tensor]:
    """Feature matching loss and grid error of the coarse affine."""
    points = coarse.points.expand(len(batch), -1, 2)
    positions = map_points(points, batch.truth, batch.flow)
    targets = nearest_cells(positions, coarse.shape, STRIDE)
    return {
        "matching": matching_loss(coarse.log_assignment, targets, valid.flatten(1)),
        "coarse_affine": affine_loss([coarse.fit.matrix], batch.truth, size, saturation_px=32.0).float(),
    }


def _stage_losses(
    estimate: StageEstimate, stage: StageCfg, batch: PairBatch, straight: Tensor, cfg: ObjectiveCfg
) -> tuple[Tensor, Tensor]:
    """Heat maps, and displacements with their precisions, of one stage's windows."""
    flow = None if batch.flow is None else _mean_over_windows(batch.flow, stage)
    positions = map_points(estimate.points, batch.truth, flow)
    residual = true_residual(estimate.points, estimate.start, positions)
    cells = residual / estimate.stride
    weight = estimate.weight * straight[:, None]
    heat = window_loss(estimate.logits, cells, weight, cfg.sigma_cells)
    within = within_search(cells, estimate.margin)
    nll = displacement_nll(estimate.displacement, estimate.precision.clamp_min(1e-6), residual, weight * within)
    return heat, nll


def _mean_over_windows(flow: Tensor, stage: StageCfg) -> Tensor:
    """Mean of (B, 2, S, S) over a window centred on each pixel, which is what a window can measure."""
    cells = (flow.shape[-2] // stage.stride, flow.shape[-1] // stage.stride)
    half = roomy(stage.window, cells).size * stage.stride // 2
    padded = F.pad(flow.double(), (half, half, half, half), mode="replicate")
    return _running_mean(_running_mean(padded, 2 * half + 1, -2), 2 * half + 1, -1).to(flow)


def _running_mean(values: Tensor, length: int, axis: int) -> Tensor:
    """Means of `length` neighbours along an axis, by differences of sums: the cost does not depend on the length."""
    sums = F.pad(values.transpose(axis, -1).cumsum(-1), (1, 0))
    return ((sums[..., length:] - sums[..., :-length]) / length).transpose(axis, -1)


def _flow_losses(
    output: GlamOutput, batch: PairBatch, straight: Tensor, valid: Tensor, stride: int
) -> dict[str, Tensor]:
    """Flow loss, certainty and uniformity of the local flow after the last affine; its nodes lie `stride` px apart."""
    if output.flow is None or output.certainty is None:
        return {}
    height, width = output.flow.shape[-2:]
    nodes = cell_centres(height, width, stride).to(valid).expand(len(batch), -1, 2)
    truth = true_residual(nodes, output.affine, map_points(nodes, batch.truth, batch.flow))
    truth = truth.mT.reshape(len(batch), 2, height, width)
    validity = sample_cells(valid, nodes, 2).mT.reshape(len(batch), 1, height, width)
    # Out of the last stage's reach the affine has failed, and there is no local flow to learn.
    near = (truth.square().sum(1, keepdim=True) < 64.0).to(validity)
    weight = validity * near * straight[:, None, None, None]
    error = (output.flow - truth).square().sum(1, keepdim=True).clamp_min(1e-12).sqrt().float()
    return {
        "flow": flow_loss(output.flow, truth.to(output.flow), weight),
        "certainty": certainty_loss(output.certainty, error, weight),
        "uniformity": uniformity_loss(error, weight),
    }
