"""Batch the network calls of pairs that are matched in parallel.

Each pair runs in a thread of its own up to the point where it needs features. When all of them wait there, images of
one size and kind are encoded in one call, and all continue. The batches do not depend on the speed of the threads, so a
list of pairs gives the same figures every time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from somareg.soma.encoder import Encoded
from somareg.soma.network import Soma
from somareg.soma.pyramid import STRIDES
from somareg.types import Modality

Work = Callable[[Sequence[Any]], Sequence[Any]]


@dataclass(eq=False)
class _Request:
    """The request of one party.

    Attributes:
        party: number of the party.
        key: requests with the same key are answered by one call.
        given: this party's input of that call.
        work: the call; it takes the inputs of several parties and returns their answers.
        answer: of the call; None until then.
        error: what the call raised, else None.
        is_done: whether the call has run.
    """

    party: int
    key: Hashable
    given: Any
    work: Work
    answer: Any = None
    error: BaseException | None = None
    is_done: bool = False


class Rendezvous:
    """A barrier at which parties wait until all of them have a request.

    Args:
        parties: their number; each calls `leave` once, after its last request.
    """

    def __init__(self, parties: int) -> None:
        self._left = parties
        self._waiting: list[_Request] = []
        self._change = threading.Condition()

    def ask(self, party: int, key: Hashable, given: Any, work: Work) -> Any:
        """Wait for the requests of all parties, and return the answer.

        Raises:
            Whatever `work` raises, in every party whose request was in that call.
        """
        request = _Request(party, key, given, work)
        with self._change:
            self._waiting.append(request)
            self._answer_if_all_wait()
            while not request.is_done:
                self._change.wait()
        if request.error is not None:
            raise request.error
        return request.answer

    def leave(self) -> None:
        """Remove one party, so that the others no longer wait for it."""
        with self._change:
            self._left -= 1
            self._answer_if_all_wait()

    def _answer_if_all_wait(self) -> None:
        if not self._waiting or len(self._waiting) < self._left:
            return
        requests, self._waiting = sorted(self._waiting, key=lambda one: one.party), []
        for key in dict.fromkeys(request.key for request in requests):
            group = [request for request in requests if request.key == key]
            try:
                answers = group[0].work([request.given for request in group])
                for request, answer in zip(group, answers, strict=True):
                    request.answer = answer
            except BaseException as error:
                for request in group:
                    request.error = error
            for request in group:
                request.is_done = True
        self._change.notify_all()


class SharedNetwork:
    """Proxy of a network that batches the `encode` calls of all parties; everything else goes to the network.

    Args:
        network: the network.
        rendezvous: the barrier of the parties.
        party: number of the party that owns this object.
    """

    def __init__(self, network: Soma, rendezvous: Rendezvous, party: int) -> None:
        self._network, self._rendezvous, self._party = network, rendezvous, party

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def encode(self, image: Tensor, mask: Tensor, modality: Modality, strides: tuple[int, ...] = STRIDES) -> Encoded:
        """See `Soma.encode`; images of the same size, number of bands and branch are encoded in one call."""
        side = "sar" if modality == "sar" else "optical"
        key = (id(self._network), tuple(image.shape[1:]), side, strides)

        def encode_all(given: Sequence[tuple[Tensor, Tensor]]) -> list[Encoded]:
            images, masks = (torch.cat(part) for part in zip(*given, strict=True))
            with torch.inference_mode():
                encoded = self._network.encode(images, masks, modality, strides)
            return _split(encoded, [len(one) for one, _ in given])

        answer: Encoded = self._rendezvous.ask(self._party, key, (image, mask), encode_all)
        return answer


_seat: ContextVar[tuple[Rendezvous, int] | None] = ContextVar("seat", default=None)


@contextmanager
def seated(rendezvous: Rendezvous, party: int) -> Iterator[None]:
    """Within this context the calling thread shares its network calls with the other parties; at the end it leaves the
    rendezvous.
    """
    token = _seat.set((rendezvous, party))
    try:
        yield
    finally:
        _seat.reset(token)
        rendezvous.leave()


def at_the_table(network: Soma | None) -> Soma | None:
    """The network for the calling thread: a `SharedNetwork` inside `seated`, else the network itself."""
    seat = _seat.get()
    return network if network is None or seat is None else cast(Soma, SharedNetwork(network, *seat))


def _split(encoded: Encoded, sizes: Sequence[int]) -> list[Encoded]:
    """The features of several requests, one for each."""
    pyramids = {stride: torch.split(level, list(sizes)) for stride, level in encoded.pyramid.items()}
    valid = {stride: torch.split(level, list(sizes)) for stride, level in encoded.valid.items()}
    return [
        Encoded(
            {stride: parts[i] for stride, parts in pyramids.items()},
            {stride: parts[i] for stride, parts in valid.items()},
            {},
            {},
            encoded.reconstruction,
        )
        for i in range(len(sizes))
    ]
