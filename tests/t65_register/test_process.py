"""What a registration leaves in the process, and what it gives when others run beside it: the same as ever."""

from __future__ import annotations

import gc
import os
import random
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import somareg
from somareg.errors import SomaregError
from somareg.soma.weights import store
from somareg.types import Result
from tests.small_network import save_network, small_network
from tests.synthetic import SyntheticPair, make_pair
from tests.t65_register.conftest import Files, register

LARGE = 320  # above `SMALL_PX`: as many threads per operation as there are cores, where those are more than two
TOLERANCE_PX = 1e-3
"""What docs/api.md says of results on other numbers of threads."""


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def large() -> SyntheticPair:
    return make_pair(1, LARGE, rotation_deg=2, scale=1.01, shift=(6.1, -3.7))


def in_a_new_thread(work: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()


def state() -> dict[str, Any]:
    """What of the process a library must leave alone."""
    return {
        "threads": torch.get_num_threads(),
        "threads of others": in_a_new_thread(torch.get_num_threads),
        "OpenCV's threads": cv2.getNumThreads(),
        "random": (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()),  # noqa: NPY002
        "warnings": list(warnings.filters),
        "floats": (np.geterr(), torch.get_default_dtype(), torch.get_float32_matmul_precision()),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "collector": (gc.isenabled(), gc.get_threshold()),
    }


def assert_same(one: Result, other: Result) -> None:
    """To the last bit."""
    np.testing.assert_array_equal(one.displacement.array, other.displacement.array)
    np.testing.assert_array_equal(one.displacement.certainty, other.displacement.certainty)
    np.testing.assert_array_equal(one.tie_points.moving_xy, other.tie_points.moving_xy)
    assert one.quality == other.quality
    assert one.verdict == other.verdict


def test_a_call_leaves_the_process_as_it_was(files: Files, tmp_path: Path) -> None:
    model = save_network(small_network(), tmp_path / "model.safetensors")
    store._network.cache_clear()  # making a network draws its first weights
    before, frozen = state(), gc.get_freeze_count()
    somareg.register_into(files.moving, files.reference, tmp_path / "out", model=model, seed=7)
    assert state() == before
    assert gc.get_freeze_count() <= frozen  # what an earlier test of a command froze may die meanwhile
    with pytest.raises(SomaregError):
        register(np.zeros((50, 50)), np.zeros((50, 50)))
    assert state() == before


def test_calls_in_two_threads_give_what_they_give_alone(
    pair: SyntheticPair, result: Result, large: SyntheticPair
) -> None:
    other = register(large.moving, large.reference)
    before = state()
    with ThreadPoolExecutor(3) as executor:
        jobs = [executor.submit(register, each.moving, each.reference) for each in (pair, large)]
        wrong = executor.submit(register, np.zeros((50, 50)), np.zeros((50, 50)))
        ended = [job.result() for job in jobs]
        with pytest.raises(SomaregError):
            wrong.result()
    for found, alone in zip(ended, (result, other), strict=True):
        assert_same(found, alone)
    assert state() == before


@pytest.mark.parametrize("size", ["small", "large"])
def test_the_number_of_threads_changes_nothing_to_speak_of(
    size: str, pair: SyntheticPair, large: SyntheticPair
) -> None:
    images = pair if size == "small" else large
    found = {}
    for count in (1, 2, 4):
        torch.set_num_threads(count)
        found[count] = register(images.moving, images.reference)
    assert_same(found[1], found[2])
    if size == "small":
        assert_same(found[1], found[4])
    difference = np.abs(found[1].displacement.array - found[4].displacement.array).max()
    assert difference < TOLERANCE_PX
    assert found[1].verdict.decision == found[4].verdict.decision
    assert found[1].verdict.probability == pytest.approx(found[4].verdict.probability, abs=1e-3)
