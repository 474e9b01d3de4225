"""`validate_samples`: the figures follow from what the engine finds, and the engine gets what registration would."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from somareg.geometry import AffineTransform
from somareg.lab.data.stacks import ProtocolSamples, SampleStack, batches, shares
from somareg.lab.train import validation
from somareg.lab.train.judge import ProtocolValidator
from somareg.lab.train.validation import ENGINE, validate_samples
from somareg.matching.engine import Alignment, EngineCfg
from somareg.matching.evidence import NO_EVIDENCE
from somareg.matching.pair import Pair
from somareg.soma.network import Soma
from tests.small_network import small_network, two_looks
from tests.synthetic import affine_map

CPU = torch.device("cpu")
Find = Callable[[int, np.ndarray], np.ndarray | None]
"""(number of the call, truth (2, 3)) -> matrix found, None for a failure."""


def stack(level: str, count: int, *, side: int = 24, seed: int = 0) -> SampleStack:
    """Noise whose truth is a shift that tells the sample: its number plus a quarter."""
    generator = torch.Generator().manual_seed(seed)
    moving = torch.randint(0, 256, (count, side, side), dtype=torch.uint8, generator=generator)
    reference = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    matrix = torch.eye(2, 3, dtype=torch.float64).repeat(count, 1, 1)
    matrix[:, 0, 2] = torch.arange(count) + 0.25
    return SampleStack("meadow", "val", level, moving, reference, matrix, tuple(range(count)), ("g",) * count, 1.0)


class StandIn:
    """In place of `align`: answers by `find`, and remembers what it was asked."""

    def __init__(self, truths: list[np.ndarray], find: Find) -> None:
        self.truths, self.find = truths, find
        self.pairs: list[Pair] = []

    def __call__(
        self, pair: Pair, starts: tuple[AffineTransform, ...], cfg: EngineCfg, *, network: Soma | None
    ) -> Alignment:
        number = len(self.pairs)
        self.pairs.append(pair)
        self.asked = starts, cfg, network
        matrix = self.find(number, self.truths[number])
        affine = starts[0] if matrix is None else AffineTransform(matrix)
        return Alignment(affine, None, None, NO_EVIDENCE, 0.0, 0.0, "nothing matched" if matrix is None else "")


@pytest.fixture(scope="module")
def network() -> Soma:
    return small_network()


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch, network: Soma) -> Callable[..., tuple[dict[str, float], StandIn]]:
    """Scores of an engine that answers by `find`."""

    def run(samples: ProtocolSamples, find: Find, limit: int | None = None) -> tuple[dict[str, float], StandIn]:
        truths = [s.matrix[i].numpy() for s, count in shares(samples, limit) for i in range(count)]
        engine = StandIn(truths, find)
        monkeypatch.setattr(validation, "align", engine)
        return validate_samples(network, samples, limit, CPU), engine

    return run


Judged = Callable[..., tuple[dict[str, float], StandIn]]


def beside(truth: np.ndarray, dx: float, dy: float) -> np.ndarray:
    return truth + np.array([[0.0, 0.0, dx], [0.0, 0.0, dy]])


def test_an_engine_that_knows_scores_everything(judged: Judged) -> None:
    scores, engine = judged(ProtocolSamples((stack("m", 3), stack("H", 2))), lambda _, truth: truth)
    assert len(engine.pairs) == 5
    for part in ("", "meadow_m/", "meadow_H/"):
        assert [scores[f"{part}cmr_{k:g}"] for k in (0.5, 1, 2, 3, 5)] == [1.0] * 5
        assert scores[f"{part}median_px"] == pytest.approx(0.0, abs=1e-5)
        assert scores[f"{part}auc"] == pytest.approx(1.0, abs=1e-5)
    assert len(scores) == 3 * 7


def test_errors_are_pixels_of_the_dense_map(judged: Judged) -> None:
    """Off by (0.6, 0.8) everywhere is 1 px: beyond 0.5, not below 1."""
    scores, _ = judged(ProtocolSamples((stack("m", 3),)), lambda _, truth: beside(truth, 0.6, 0.8))
    assert scores["median_px"] == pytest.approx(1.0, abs=1e-5)
    assert (scores["cmr_0.5"], scores["cmr_2"]) == (0.0, 1.0)
    assert scores["auc"] == pytest.approx(0.8, abs=1e-3)  # of 0-5 px, the first fifth is lost


def test_failures_count_as_infinite(judged: Judged) -> None:
    """The start that a failed alignment carries is no answer, even where it happens to be right."""
    samples = ProtocolSamples((replace(stack("m", 4), matrix=torch.eye(2, 3, dtype=torch.float64).repeat(4, 1, 1)),))
    scores, _ = judged(samples, lambda number, truth: None if number % 2 else truth)
    assert {scores[f"cmr_{k:g}"] for k in (0.5, 1, 2, 3, 5)} == {0.5}
    assert scores["auc"] == pytest.approx(0.5, abs=1e-5)
    assert scores["median_px"] == math.inf
    scores, _ = judged(samples, lambda number, truth: None)
    assert (scores["cmr_5"], scores["auc"], scores["median_px"]) == (0.0, 0.0, math.inf)


def test_each_set_and_level_has_its_own_figures(judged: Judged) -> None:
    samples = ProtocolSamples((stack("m", 3), stack("H", 3)))
    scores, _ = judged(samples, lambda number, truth: beside(truth, 0.0 if number < 3 else 4.0, 0.0))
    assert (scores["meadow_m/cmr_1"], scores["meadow_H/cmr_1"], scores["cmr_1"]) == (1.0, 0.0, 0.5)
    assert scores["meadow_H/median_px"] == pytest.approx(4.0, abs=1e-5)


def test_the_engine_gets_what_registration_would_give_it(judged: Judged, network: Soma) -> None:
    samples = ProtocolSamples((stack("m", 2),))
    _, engine = judged(samples, lambda _, truth: truth)
    starts, cfg, asked = engine.asked
    assert [start.matrix.tolist() for start in starts] == [np.eye(2, 3).tolist()]  # nothing of the truth
    assert cfg is ENGINE
    assert asked is network
    for pair, batch in zip(
        engine.pairs, [b for s in samples for b in (s.batch(slice(0, 1), CPU), s.batch(slice(1, 2), CPU))], strict=True
    ):
        assert pair.modalities == ("optical", "sar")
        assert pair.reference.shape == (1, 3, 24, 24)
        assert pair.moving.shape == (1, 1, 24, 24)
        assert torch.equal(pair.reference, batch.reference)
        assert torch.equal(pair.moving, batch.moving)
        assert bool((pair.moving_mask == 1).all())
        torch.testing.assert_close(pair.moving.std(), torch.tensor(1.0), atol=1e-2, rtol=0)


def test_no_samples_no_figures(judged: Judged) -> None:
    assert judged(ProtocolSamples(()), lambda _, truth: truth)[0] == {}
    assert judged(ProtocolSamples((stack("m", 3),)), lambda _, truth: truth, 0)[0] == {}


# --- how a limit is shared --------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.one_of(st.none(), st.integers(0, 40)))
def test_a_limit_is_used_up_and_shared_evenly(sizes: list[int], limit: int | None) -> None:
    stacks = [stack(f"L{i}", size, side=2) for i, size in enumerate(sizes)]
    found = list(shares(stacks, limit))
    assert [given for given, _ in found] == stacks
    counts = [count for _, count in found]
    assert all(0 <= count <= size for count, size in zip(counts, sizes, strict=True))
    if limit is None or limit >= len(sizes) * max(sizes):
        assert counts == sizes
    elif limit <= len(sizes) * min(sizes):  # no stack is too short for its share
        assert sum(counts) == limit
        assert max(counts) - min(counts) <= 1
    else:
        assert sum(counts) <= limit


def test_short_stacks_leave_more_to_later_ones(judged: Judged) -> None:
    samples = ProtocolSamples((stack("E", 1), stack("m", 6), stack("H", 6)))
    assert [count for _, count in shares(samples, 9)] == [1, 4, 4]
    scores, engine = judged(samples, lambda number, truth: beside(truth, 0.0 if number < 5 else 9.0, 0.0), 9)
    assert len(engine.pairs) == 9
    assert scores["cmr_1"] == pytest.approx(5 / 9)
    assert (scores["meadow_E/cmr_1"], scores["meadow_m/cmr_1"], scores["meadow_H/cmr_1"]) == (1.0, 1.0, 0.0)


def test_scores_and_diagnosis_see_the_same_samples(judged: Judged, tmp_path: object) -> None:
    samples = ProtocolSamples((stack("m", 6, seed=1), stack("H", 3, seed=2)))
    _, engine = judged(samples, lambda _, truth: truth, 5)
    shown = list(batches(samples, CPU, 5))
    assert [len(batch) for batch in shown] == [3, 2]
    assert torch.equal(torch.cat([b.moving for b in shown]), torch.cat([p.moving for p in engine.pairs]))
    judge = ProtocolValidator(str(samples.save(f"{tmp_path}/val.safetensors")), 5, 0)
    assert judge.pictures(small_network(), CPU) == {}
    for one, other in zip(judge.batches(CPU), shown, strict=True):
        assert torch.equal(one.reference, other.reference)
        assert torch.equal(one.truth, other.truth)


# --- the real engine --------------------------------------------------------------------------------------------------


def test_the_real_engine_finds_a_samples_truth() -> None:
    """One encoder for both images, and two looks by one sensor: random features are enough."""
    twins = small_network()
    branches = twins.encoder.branches
    branches["sar"].load_state_dict(branches["optical"].state_dict())
    there, back = affine_map((128, 128), rotation_deg=3, scale=0.97, shift=(5.25, -7.5))
    pair = two_looks(there, back, (128, 128), seed=2)
    origin, right, below = there(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    matrix = torch.from_numpy(np.column_stack([right - origin, below - origin, origin]))[None]
    grey = torch.from_numpy(pair.moving.mean(0)).round().to(torch.uint8)[None]
    reference = torch.from_numpy(pair.reference.copy())[None]
    grey_too = reference.float().mean(1, keepdim=True).round().to(torch.uint8).expand(1, 3, -1, -1).contiguous()
    one = SampleStack("meadow", "val", "m", grey, grey_too, matrix, (0,), ("g",), 0.5)
    scores = validate_samples(twins, ProtocolSamples((one,)), None, CPU)
    assert scores["meadow_m/median_px"] < 1.0
    assert scores["cmr_1"] == 1.0
    wrong = replace(one, matrix=torch.from_numpy(beside(matrix[0].numpy(), 3.0, 0.0))[None])
    assert validate_samples(twins, ProtocolSamples((wrong,)), None, CPU)["median_px"] == pytest.approx(3.0, abs=1.0)
