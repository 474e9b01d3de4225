"""Validation of a network during and after training: scores, pictures and a diagnosis on protocol samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from somareg.lab.data.batch import PairBatch
from somareg.lab.data.bundle_read import is_bundle, read_bundle_samples
from somareg.lab.data.stacks import ProtocolSamples, batches
from somareg.lab.train.logs import before_after


class Validator(Protocol):
    """Judges a network."""

    def scores(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Figures of the network in eval mode, such as cmr_1, cmr_3 (0-1) and median_px."""

    def pictures(self, network: nn.Module, device: torch.device) -> Mapping[str, Tensor]:
        """Name -> (3, H, W) in 0-1."""

    def batches(self, device: torch.device) -> Iterable[PairBatch]:
        """The same samples as batches, for `write_diagnosis`."""


class ProtocolValidator:
    """Validation on samples of the protocol.

    Args:
        path: file of `ProtocolSamples`, or a bundle with some.
        limit: samples used, None for all.
        count: samples of each set and level in the pictures.

    Raises:
        ReadError: missing or damaged.
    """

    def __init__(self, path: str, limit: int | None, count: int) -> None:
        self.samples = read_bundle_samples(path) if is_bundle(path) else ProtocolSamples.load(path)
        self.limit, self.count = limit, count

    def scores(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """CMR and median error, see `validate_samples`."""
        from somareg.lab.train.validation import validate_samples

        figures: dict[str, float] = validate_samples(network, self.samples, self.limit, device)
        return figures

    @torch.no_grad()
    def pictures(self, network: nn.Module, device: torch.device) -> dict[str, Tensor]:
        """Checkerboards, before and after the network's affine, of the first samples of each set and level."""
        result: dict[str, Tensor] = {}
        for stack in self.samples if self.count else ():
            batch = stack.batch(slice(0, self.count), device)
            affine = network(
                batch.reference, batch.reference_mask, batch.moving, batch.moving_mask, batch.modalities
            ).affine
            for i in range(len(batch)):
                name = f"{stack.set}-{stack.level}/{stack.index[i]}"
                result[name] = before_after(stack.reference[i], stack.moving[i, None], affine[i])
        return result

    def batches(self, device: torch.device) -> Iterator[PairBatch]:
        """The samples as batches, normalised as registration normalises them."""
        return batches(self.samples, device, self.limit)


class ForwardValidator(ProtocolValidator):
    """The same samples through the network alone, in batches on its device: a few seconds between two steps."""

    def scores(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """CMR and median error of the network's affine and the share of its windows, see `validate_forward`."""
        from somareg.lab.train.forward import validate_forward

        if self.samples.device != device:
            self.samples = self.samples.to(device)
        figures: dict[str, float] = validate_forward(network, self.samples, self.limit, device)
        return figures


def write_diagnosis(network: nn.Module, batches: Iterable[PairBatch], path: Path) -> tuple[str, ...]:
    """Diagnose the network (`lab.evaluate.diagnose`), write its numbers, return findings that need action.

    Raises:
        OutputError: the file cannot be written.
    """
    from somareg.lab.evaluate.diagnose import diagnose, save_diagnosis

    diagnosis = diagnose(network, batches)  # type: ignore[arg-type]
    save_diagnosis(diagnosis, path)
    return diagnosis.alarms


def rank_of(scores: Mapping[str, float]) -> list[float]:
    """Sort key of scores, better is larger: CMR at 1 px, then CMR at 3 px, then median error (smaller is better)."""
    names = ("cmr_1", "cmr_3", "median_px")
    values = [scores.get(name, float("nan")) for name in names]
    signed = [*values[:2], -values[2]]
    return [value if value == value else float("-inf") for value in signed]  # NaN ranks last
