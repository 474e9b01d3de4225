"""CMR on protocol samples during training, with the engine of registration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from somareg.geometry import AffineTransform
from somareg.lab.data.stacks import ProtocolSamples, SampleStack, shares
from somareg.lab.evaluate import metrics
from somareg.matching.engine import EngineCfg
from somareg.matching.pair import Pair
from somareg.soma.align import align
from somareg.soma.network import Soma

ENGINE = replace(EngineCfg(), flow=None)  # without flow, which takes most of the time; the truth is affine


@torch.no_grad()
def validate_samples(
    network: nn.Module, samples: ProtocolSamples, limit: int | None, device: torch.device, cfg: EngineCfg = ENGINE
) -> dict[str, float]:
    """Align samples with the network and compare with their truth.

    Args:
        network: a `Soma` in eval mode.
        samples: border-free pairs with known affines.
        limit: samples used, shared among the sets and levels; None for all.
        device: where the network is.
        cfg: settings of the engine.

    Returns:
        cmr_0.5 ... cmr_5 (0-1), auc (0-1) and median_px over all samples, and the same per set and level as
        "ombria_m/cmr_1". A failure has an infinite error.
    """
    assert isinstance(network, Soma)
    errors: dict[str, list[float]] = {}
    for stack, count in shares(samples, limit):
        errors.setdefault(f"{stack.set}_{stack.level}", []).extend(sample_errors(network, stack, count, device, cfg))
    return figures(errors)


@torch.no_grad()
def sample_errors(
    network: Soma | None, stack: SampleStack, count: int, device: torch.device, cfg: EngineCfg = ENGINE
) -> list[float]:
    """RMSE of the first `count` samples of a stack, pixels over the overlap; infinite for a failure.

    Args:
        network: in eval mode; None for the weight-free engine.
        stack: the samples.
        count: number of them in use.
        device: where the network is.
        cfg: settings of the engine.
    """
    alignments = (
        align(_pair(stack, i, device), (AffineTransform.identity(),), cfg, network=network) for i in range(count)
    )
    return [float("inf") if each.failure else _rmse(each.affine, stack, i) for i, each in enumerate(alignments)]


def _pair(stack: SampleStack, i: int, device: torch.device) -> Pair:
    one = stack.batch(slice(i, i + 1), device)
    return Pair(one.reference, one.reference_mask, one.moving, one.moving_mask, one.modalities)


def _rmse(affine: AffineTransform, stack: SampleStack, i: int) -> float:
    side = stack.moving.shape[-1]
    rows, columns = np.mgrid[:side, :side].astype(np.float64)
    points = np.stack([columns, rows], axis=-1).reshape(-1, 2)
    displacement = (affine(points) - points).T.reshape(2, side, side).astype(np.float32)
    truth = stack.matrix[i].double().numpy()
    return metrics.rmse(metrics.point_errors(displacement, truth, (side, side)))


def figures(errors: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """CMR, AUC and median error (px) over everything, and of each part as "part/figure"; empty without errors."""
    everything = [error for part in errors.values() for error in part]
    if not everything:
        return {}
    scores = _figures(np.array(everything))
    for name, part in errors.items():
        scores |= {f"{name}/{key}": value for key, value in _figures(np.array(part)).items()}
    return scores


def _figures(errors: np.ndarray) -> dict[str, float]:
    share = {f"cmr_{k:g}": metrics.cmr(errors, k) for k in metrics.THRESHOLDS}
    return {**share, "auc": metrics.auc(errors), "median_px": float(np.median(errors))}
