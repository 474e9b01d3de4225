"""CMR and windows of the network alone, in batches on its device: cheap enough for every few minutes of training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from somareg.lab.data.batch import PairBatch
from somareg.lab.data.stacks import ProtocolSamples, shares
from somareg.lab.train.losses import map_points, true_residual, within_search
from somareg.lab.train.validation import figures
from somareg.matching.affine import apply_affine_batch
from somareg.matching.posterior import candidate_displacements
from somareg.soma.glam.affine_flow import StageEstimate
from somareg.soma.network import Soma

TOGETHER = 32
APART_CELLS = (1.6, -1.2)  # start of the windows off the truth: "no displacement" must not score
_STEP_PX = 4  # distance of the points at which affines are compared


@torch.no_grad()
def validate_forward(
    network: nn.Module, samples: ProtocolSamples, limit: int | None, device: torch.device
) -> dict[str, float]:
    """Align samples by `Soma.forward` and compare with their truth.

    Args:
        network: a `Soma` in eval mode.
        samples: border-free pairs with known affines.
        limit: samples used, shared among the sets and levels; None for all.
        device: where the network is.

    Returns:
        The figures of `validate_samples` for the network's own affine (from its coarse matches, or from the identity
        without them), and `windows`: the share of the last stage's windows, started near the truth, whose highest
        correlation lies within one cell of it.
    """
    assert isinstance(network, Soma)
    errors: dict[str, list[float]] = {}
    windows: dict[str, list[float]] = {}
    for stack, count in shares(samples, limit):
        name = f"{stack.set}_{stack.level}"
        for first in range(0, count, TOGETHER):
            batch = stack.batch(slice(first, min(first + TOGETHER, count)), device)
            reference = network.encode(batch.reference, batch.reference_mask, batch.modalities[0])
            moving = network.encode(batch.moving, batch.moving_mask, batch.modalities[1])
            errors.setdefault(name, []).extend(_rmse(network.glam(reference, moving).affine, batch).tolist())
            last = network.cfg.glam.stages[-1]
            start = batch.truth.double()
            start[:, :, 2] += start.new_tensor(APART_CELLS) * last.stride
            near = network.glam(reference, moving, start=start, starts=lambda stage, affine, begin=start: begin)
            windows.setdefault(name, []).extend(_within_one_cell(near.stages[-1], batch).tolist())
    scores = figures(errors)
    if scores:
        every = [share for part in windows.values() for share in part]
        scores["windows"] = sum(every) / len(every)
        scores |= {f"{name}/windows": sum(part) / len(part) for name, part in windows.items()}
    return scores


def _rmse(affine: Tensor, batch: PairBatch) -> Tensor:
    """(B,) RMS distance, pixels, between an affine and the truth over the reference pixels that the moving image shows;
    infinite where the affine is not finite.
    """
    side = batch.reference.shape[-1]
    line = torch.arange(0, side, _STEP_PX, device=affine.device, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).reshape(1, -1, 2)
    truth = apply_affine_batch(batch.truth.double(), points.expand(len(affine), -1, -1))
    apart = (apply_affine_batch(affine.double(), points.expand(len(affine), -1, -1)) - truth).square().sum(-1)
    inside = ((truth >= 0) & (truth <= batch.moving.shape[-1] - 1)).all(-1)
    error = (apart * inside).sum(-1).div(inside.sum(-1).clamp_min(1)).sqrt()
    return torch.where(torch.isfinite(error), error, torch.inf)


def _within_one_cell(stage: StageEstimate, batch: PairBatch) -> Tensor:
    """(B,) share of the windows with content whose highest correlation lies within one cell of the truth."""
    truth = true_residual(stage.points, stage.start, map_points(stage.points, batch.truth)) / stage.stride
    valid = (stage.weight > 0) & within_search(truth, stage.margin)
    candidates = candidate_displacements(stage.margin, 1.0, stage.logits)
    highest = candidates[stage.logits.argmax(-1)]
    good = (highest - truth).square().sum(-1) <= 1.0
    return ((good & valid).sum(-1) / valid.sum(-1).clamp_min(1)).double()
