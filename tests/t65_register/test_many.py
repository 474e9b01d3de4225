"""Many pairs at once: the results are those of one by one, in order, and one failure is one pair's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import somareg
from somareg.errors import ConfigError, NoDataError
from somareg.soma.encoder import Encoded
from somareg.soma.network import Soma
from somareg.soma.together import Rendezvous, seated
from somareg.types import Result
from tests.small_network import save_network, small_network
from tests.synthetic import make_pair


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(small_network(), tmp_path_factory.mktemp("many") / "small.safetensors")


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Any, Any]]:
    made = [make_pair(seed, 128, shift=(3.0 + seed, -2.0)) for seed in range(3)]
    return [(pair.moving, pair.reference) for pair in made]


def test_the_figures_are_those_of_one_by_one(pairs: list[tuple[Any, Any]], weights: Path) -> None:
    together = list(somareg.register_many(pairs, together=2, model=weights, search="local"))
    for (moving, reference), result in zip(pairs, together, strict=True):
        alone = somareg.register(moving, reference, model=weights, search="local")
        np.testing.assert_allclose(result.displacement.array, alone.displacement.array, atol=1e-3)
        assert result.verdict.decision == alone.verdict.decision
        assert result.quality.predicted_rmse_px == pytest.approx(alone.quality.predicted_rmse_px, rel=1e-2, nan_ok=True)


def test_images_of_one_size_are_described_by_one_call(
    pairs: list[tuple[Any, Any]], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    encode = Soma.encode

    def counted(self: Soma, image: torch.Tensor, *others: Any) -> Encoded:
        calls.append(len(image))
        return encode(self, image, *others)

    monkeypatch.setattr(Soma, "encode", counted)
    list(somareg.register_many(pairs, together=3, model=weights, search="local"))
    assert calls[0] == 3
    shared = len(calls)
    calls.clear()
    for moving, reference in pairs:
        somareg.register(moving, reference, model=weights, search="local")
    assert max(calls) < 3 or shared < len(calls)
    assert shared < len(calls)


def test_pairs_are_taken_as_they_are_needed(pairs: list[tuple[Any, Any]]) -> None:
    taken: list[int] = []

    def source() -> Iterator[tuple[Any, Any]]:
        for number, pair in enumerate(pairs):
            taken.append(number)
            yield pair

    results = somareg.register_many(source(), together=1, model="orientation")
    assert taken == []
    assert isinstance(next(results), Result)
    assert taken == [0]


def test_a_pair_that_fails_is_one_pair(pairs: list[tuple[Any, Any]]) -> None:
    empty = np.full((1, 128, 128), np.nan, np.float32)
    given = [pairs[0], (empty, pairs[1][1]), pairs[2]]
    outcomes = list(somareg.register_many(given, model="orientation", on_error="return"))
    assert [type(outcome) for outcome in outcomes] == [Result, NoDataError, Result]
    raising = somareg.register_many(given, model="orientation")
    assert isinstance(next(raising), Result)
    with pytest.raises(NoDataError):
        next(raising)


def test_what_is_asked_is_checked_first(pairs: list[tuple[Any, Any]]) -> None:
    def source() -> Iterator[tuple[Any, Any]]:
        raise AssertionError("a pair was taken")
        yield pairs[0]

    for wrong in ({"together": 0}, {"on_error": "ignore"}, {"preset": "presice"}):
        with pytest.raises(ConfigError):
            somareg.register_many(source(), **wrong)  # type: ignore[call-overload]


# --- the rendezvous ---------------------------------------------------------------------------------------------------


def parties(count: int, work: Callable[[Rendezvous, int], Any]) -> list[Any]:
    """What `work` returns or raises for each of so many threads."""
    rendezvous, outcomes = Rendezvous(count), [None] * count

    def run(party: int) -> None:
        with seated(rendezvous, party):
            try:
                outcomes[party] = work(rendezvous, party)
            except ValueError as error:
                outcomes[party] = error  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(party,), daemon=True) for party in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    return outcomes


def test_each_gets_its_own_answer_and_those_of_one_key_share_a_call() -> None:
    calls: list[tuple[str, tuple[int, ...]]] = []

    def doubled(key: str) -> Callable[[Sequence[int]], list[int]]:
        def work(given: Sequence[int]) -> list[int]:
            calls.append((key, tuple(given)))
            return [2 * number for number in given]

        return work

    def ask(rendezvous: Rendezvous, party: int) -> list[int]:
        key = "even" if party % 2 == 0 else "odd"
        return [rendezvous.ask(party, key, number, doubled(key)) for number in range(party, party + 1 + party % 2)]

    assert parties(4, ask) == [[0], [2, 4], [4], [6, 8]]
    assert calls == [("even", (0, 2)), ("odd", (1, 3)), ("odd", (2, 4))]


def test_an_error_reaches_all_who_share_the_call_and_nobody_else() -> None:
    def fail(given: Sequence[int]) -> list[int]:
        raise ValueError(f"{len(given)} asked")

    def ask(rendezvous: Rendezvous, party: int) -> int:
        if party == 2:
            return int(rendezvous.ask(party, "good", party, lambda given: given))
        return int(rendezvous.ask(party, "bad", party, fail))

    first, second, third = parties(3, ask)
    assert str(first) == str(second) == "2 asked"
    assert third == 2


def test_who_leaves_early_keeps_nobody_waiting() -> None:
    def ask(rendezvous: Rendezvous, party: int) -> int:
        if party == 0:
            raise ValueError("nothing to ask")
        return int(rendezvous.ask(party, "one", party, lambda given: given))

    gone, *others = parties(3, ask)
    assert isinstance(gone, ValueError)
    assert others == [1, 2]
