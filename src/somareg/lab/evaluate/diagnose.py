"""Diagnosis of a network on pairs with known truth: sources of error, and health of every part.

Five views: the error after each stage, the attention weights, the health of the fitted affines, forward-backward
inconsistency, and the similarity of corresponding features before and after FGE. Each part works alone; `diagnose`
puts them together for a stream of batches.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from somareg.errors import InputError
from somareg.io.atomic import write_text
from somareg.io.folders import make_folder
from somareg.lab.data.batch import PairBatch
from somareg.lab.evaluate.diagnose_parts import (
    Size,
    affine_health,
    attention_entropy,
    attention_summary,
    cosine_similarity,
    fits,
    inconsistency,
    stage_errors,
)
from somareg.lab.evaluate.diagnosis import (
    Diagnosis,
    Similarity,
    Spread,
    StageError,
    find_alarms,
)
from somareg.soma.encoder import Encoded
from somareg.soma.fge import FeatureGradientEnhancer
from somareg.soma.glam.attention import AttentionBlock
from somareg.soma.glam.matcher import GlamOutput
from somareg.types import Modality

Values = dict[str, list[Tensor]]

_FLAT = ("stage", "attention", "condition", "refused", "cosine")
_SAMPLES = 20_000  # most values of one attention map kept per call


class Network(Protocol):
    """Protocol of a network for `diagnose`, such as `soma.network.Soma`."""

    training: bool

    def __call__(
        self,
        reference: Tensor,
        reference_mask: Tensor,
        moving: Tensor,
        moving_mask: Tensor,
        modalities: tuple[Modality, Modality],
    ) -> GlamOutput: ...

    def encode(self, image: Tensor, mask: Tensor, modality: Modality) -> Encoded: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]: ...

    def eval(self) -> Any: ...


def diagnose(network: Network, batches: PairBatch | Iterable[PairBatch]) -> Diagnosis:
    """Run a network on pairs with known truth and measure each part.

    Args:
        network: in any mode; it is evaluated in eval mode and restored.
        batches: on the network's device.

    Raises:
        InputError: no batch.
    """
    notes: dict[str, Values] = {kind: {} for kind in (*_FLAT, "affine")}
    errors, returns = [], []
    with torch.no_grad(), _evaluating(network):
        for batch in [batches] if isinstance(batches, PairBatch) else batches:
            with _watched_attention(network, notes["attention"]):
                output = network(*_roles(batch), batch.modalities)
            error = _note_errors(notes["stage"], output, batch)
            errors.append(error)
            returns.append(_there_and_back(network, output, batch))
            for name, *fit in fits(output):
                for kind, values in zip(("affine", "condition", "refused"), fit, strict=True):
                    _note(notes[kind], name, values)
            _note_similarity(notes["cosine"], network, batch)
    if not errors:
        raise InputError("nothing to diagnose: there is no batch; give at least one")
    return _conclude(notes, torch.cat(errors), torch.cat(returns))


def _roles(batch: PairBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return batch.reference, batch.reference_mask, batch.moving, batch.moving_mask


def _sizes(batch: PairBatch) -> tuple[Size, Size]:
    """(H, W) of reference and moving."""
    (a, b), (c, d) = batch.reference.shape[-2:], batch.moving.shape[-2:]
    return (a, b), (c, d)


def _note(values: Values, name: str, tensor: Tensor) -> None:
    values.setdefault(name, []).append(tensor.detach().cpu())


def _note_errors(values: Values, output: GlamOutput, batch: PairBatch) -> Tensor:
    """Record the error after each stage; return the last one, (B,)."""
    size, moving_size = _sizes(batch)
    errors = stage_errors(output, batch.truth, size, flow=batch.flow, moving_size=moving_size)
    for name, error in errors.items():
        _note(values, name, error)
    return list(errors.values())[-1].cpu()


def _there_and_back(network: Network, forward: GlamOutput, batch: PairBatch) -> Tensor:
    """Inconsistency (B,) with the network's own estimate for the swapped roles."""
    size, moving_size = _sizes(batch)
    reference, reference_mask, moving, moving_mask = _roles(batch)
    backward = network(moving, moving_mask, reference, reference_mask, (batch.modalities[1], batch.modalities[0]))
    return inconsistency(
        forward.affine,
        backward.affine,
        size,
        moving_size=moving_size,
        forward_flow=forward.flow,
        backward_flow=backward.flow,
    ).cpu()


def _note_similarity(values: Values, network: Network, batch: PairBatch) -> None:
    """Record cosine similarities before FGE, after it, and of the matched features."""
    here = network.encode(batch.reference, batch.reference_mask, batch.modalities[0])
    there = network.encode(batch.moving, batch.moving_mask, batch.modalities[1])
    views = {
        "before FGE": (here.before, there.before),
        "after FGE": (here.after, there.after),
    }
    for view, (a, b) in {**views, "matched": (here.pyramid, there.pyramid)}.items():
        for stride in sorted(a):
            pairs = cosine_similarity(
                *(a, b, batch.truth, stride),
                flow=batch.flow,
                reference_mask=batch.reference_mask,
                moving_mask=batch.moving_mask,
            )
            _note(values, f"{view} 1/{stride}", torch.stack(pairs))


@contextmanager
def _evaluating(network: Network) -> Iterator[None]:
    """Set eval mode inside the context and restore the mode of every module afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training  # not `train()`, which frozen parts may refuse


@contextmanager
def _watched_attention(network: Network, values: Values) -> Iterator[None]:
    """Record the attention weights of every FGE and attention block that runs inside the context."""

    def note(name: str, found: Mapping[str, Tensor]) -> None:
        for kind, weights in found.items():
            flat = weights.flatten()
            _note(values, f"{name}.{kind}", flat[:: max(1, len(flat) // _SAMPLES)])

    def watch(name: str, module: nn.Module) -> Any:
        if isinstance(module, AttentionBlock):
            return module.register_forward_hook(
                lambda block, inputs, _: note(name, {"entropy": attention_entropy(block.weights(*inputs))})
            )
        # The attention itself, because the `forward` of the enhancer around it runs in training only.
        if isinstance(module, FeatureGradientEnhancer) and module.attention is not None:
            return module.attention.register_forward_hook(lambda _, __, maps: note(name, maps._asdict()))
        return None

    handles = [handle for name, module in network.named_modules() if (handle := watch(name, module))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _conclude(notes: dict[str, Values], errors: Tensor, returns: Tensor) -> Diagnosis:
    joined = {kind: {name: torch.cat(parts, -1) for name, parts in notes[kind].items()} for kind in _FLAT}
    affines = {name: torch.cat(parts) for name, parts in notes["affine"].items()}
    stages = [StageError(name, Spread.of(values)) for name, values in joined["stage"].items()]
    attention = [attention_summary(name, values) for name, values in joined["attention"].items()]
    affine = [
        affine_health(name, values, joined["condition"][name], joined["refused"][name])
        for name, values in affines.items()
    ]
    similarity = [
        Similarity(name, float(values[0].mean()), float(values[1].mean()), values.shape[1])
        for name, values in joined["cosine"].items()
    ]
    return Diagnosis(
        samples=len(errors),
        stages=tuple(stages),
        attention=tuple(attention),
        affine=tuple(affine),
        similarity=tuple(similarity),
        error_px=tuple(errors.tolist()),
        inconsistency_px=tuple(returns.tolist()),
        alarms=find_alarms(stages, attention, affine, similarity),
    )


def save_diagnosis(diagnosis: Diagnosis, path: str | Path) -> Path:
    """Write the numbers as JSON, whole or not at all; an older file is replaced.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    path = Path(path)
    make_folder(path.parent)
    return write_text(path, json.dumps(diagnosis.to_json(), indent=1, allow_nan=False) + "\n", overwrite=True)
