"""The rows of an ablation, and the measurement of a network, the weight-free engine and the identity."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from somareg.geometry import AffineTransform
from somareg.lab.data.stacks import ProtocolSamples, SampleStack, batches, shares
from somareg.lab.evaluate.diagnose import diagnose
from somareg.lab.evaluate.diagnose_parts import stage_errors
from somareg.lab.evaluate.diagnosis import Similarity
from somareg.lab.train.losses import affine_grid_error
from somareg.lab.train.validation import ENGINE
from somareg.matching.pair import Pair
from somareg.soma.align import align
from somareg.soma.network import Soma
from somareg.types import FloatArray

Errors = dict[str, tuple[float | None, ...]]
"""Set and level, such as "ombria m" -> RMSE of each sample over the overlap, pixels; None without an estimate."""


@dataclass(frozen=True)
class Training:
    """The training of a row.

    Attributes:
        parameters: number of trainable values.
        minutes: of training, reading the data included.
        steps, pairs: number of each.
        skipped: steps without effect because loss or gradient was not finite.
        batch, crop: pairs per step, side in pixels.
        synthetic_share: share of the steps whose batch is synthetic, 0-1.
        drawn_from: set of tiles -> its number of pairs.
        device, seed, version: hardware, seed, version of somareg.
    """

    parameters: int
    minutes: float
    steps: int
    pairs: int
    skipped: int
    batch: int
    crop: int
    synthetic_share: float
    drawn_from: dict[str, int]
    device: str
    seed: int
    version: str

    @property
    def pairs_per_second(self) -> float:
        """Pairs per second over all minutes."""
        return self.pairs / (60 * self.minutes) if self.minutes > 0 else 0.0


@dataclass(frozen=True)
class Measured:
    """Errors and similarities on the samples.

    Attributes:
        samples: fingerprint of the samples, see `Judge.fingerprint`; only rows on equal samples are compared.
        quoted_from: set and level -> smallest CMR threshold (pixels) that its labels allow to quote.
        network: errors of `Soma.forward`, local flow included; empty without a network.
        stages: the same with the identity in place of the coarse fit, so that only the later stages count.
        registration: errors of registration (`matching.engine.align`).
        similarity: cosine similarity of the features of both images, before and after FGE and as matched.
    """

    samples: str
    quoted_from: dict[str, float]
    network: Errors = field(default_factory=dict)
    stages: Errors = field(default_factory=dict)
    registration: Errors = field(default_factory=dict)
    similarity: tuple[Similarity, ...] = ()


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        name: of the configuration, or of a yardstick that needs no training.
        measured: the results.
        training: None for a yardstick.
    """

    name: str
    measured: Measured
    training: Training | None = None


def numbers(errors: Iterable[float | None]) -> FloatArray:
    """(n,) errors in pixels, infinite without an estimate."""
    return np.array([math.inf if error is None else error for error in errors], dtype=np.float64)


class Judge:
    """Measures rows on the same samples.

    Args:
        path: file of `ProtocolSamples`.
        limit: samples used, shared among the sets and levels; None for all.
        device: for networks.

    Raises:
        ReadError: missing or damaged.
    """

    def __init__(self, path: str | Path, limit: int | None, device: torch.device) -> None:
        self.samples, self.limit, self.device = ProtocolSamples.load(path), limit, device
        content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        self.fingerprint = f"{'all' if limit is None else limit} of sha256 {content}"

    def of_network(self, network: Soma) -> Measured:
        """Measure a network in eval mode on the device."""
        inside = diagnose(network, batches(self.samples, self.device, self.limit))
        return self._measured(
            network=self._split(inside.error_px),
            stages=self._split(self._from_identity(network)),
            registration=self._each(lambda stack, i: _registered(stack, i, self.device, network)),
            similarity=inside.similarity,
        )

    def of_engine(self) -> Measured:
        """Measure the weight-free engine."""
        errors = self._each(lambda stack, i: _registered(stack, i, torch.device("cpu"), None))
        return self._measured(registration=errors)

    def of_identity(self) -> Measured:
        """Measure the start itself, without registration."""
        unmoved = torch.eye(2, 3, dtype=torch.float64)
        errors = self._each(lambda stack, i: _error(unmoved, stack, i))
        return self._measured(network=errors, stages=errors, registration=errors)

    def _measured(self, **found: Any) -> Measured:
        quoted_from = {name: stack.quoted_from for name, stack, _ in self._parts()}
        return Measured(self.fingerprint, quoted_from, **found)

    @torch.inference_mode()
    def _from_identity(self, network: Soma) -> list[float]:
        errors: list[float] = []
        for batch in batches(self.samples, self.device, self.limit):
            pair = (batch.reference, batch.reference_mask, batch.moving, batch.moving_mask)
            start = torch.eye(2, 3, dtype=torch.float64, device=self.device).expand(len(batch), 2, 3)
            output = network(*pair, batch.modalities, start=start)
            size = (batch.reference.shape[-2], batch.reference.shape[-1])
            *_, last = stage_errors(output, batch.truth, size).values()
            errors += last.tolist()
        return errors

    def _split(self, errors: Iterable[float]) -> Errors:
        """Errors of all samples in order, by set and level."""
        remaining = iter(errors)
        return {name: _known(islice(remaining, count)) for name, _, count in self._parts()}

    def _parts(self) -> list[tuple[str, SampleStack, int]]:
        """(set and level, samples, number of them in use)."""
        return [(f"{stack.set} {stack.level}", stack, count) for stack, count in shares(self.samples, self.limit)]

    def _each(self, error: Callable[[SampleStack, int], float]) -> Errors:
        return {name: _known(error(stack, i) for i in range(count)) for name, stack, count in self._parts()}


def _known(errors: Iterable[float]) -> tuple[float | None, ...]:
    return tuple(error if math.isfinite(error) else None for error in errors)


def _registered(stack: SampleStack, i: int, device: torch.device, network: Soma | None) -> float:
    """RMSE of registering sample `i` as validation does, pixels; infinite for a failure."""
    one = stack.batch(slice(i, i + 1), device)
    pair = Pair(one.reference, one.reference_mask, one.moving, one.moving_mask, one.modalities)
    alignment = align(pair, (AffineTransform.identity(),), ENGINE, network=network)
    return math.inf if alignment.failure else _error(torch.from_numpy(alignment.affine.matrix.copy()), stack, i)


def _error(affine: Tensor, stack: SampleStack, i: int) -> float:
    side = stack.moving.shape[-1]
    return float(affine_grid_error(affine[None], stack.matrix[i : i + 1], (side, side)))
