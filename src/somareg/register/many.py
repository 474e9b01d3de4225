"""Several pairs at once, with shared calls of the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Literal, Unpack, overload

from somareg.config import make_config
from somareg.config.arguments import RegisterOptions
from somareg.errors import ConfigError, SomaregError, guarded
from somareg.io.inputs import Image
from somareg.register.api import register
from somareg.runtime.threads import set_threads
from somareg.types import Result

Pairs = Iterable[tuple[Image, Image]]


@overload
def register_many(
    pairs: Pairs, *, together: int = 8, on_error: Literal["raise"] = "raise", **options: Unpack[RegisterOptions]
) -> Iterator[Result]: ...


@overload
def register_many(
    pairs: Pairs, *, together: int = 8, on_error: Literal["return"], **options: Unpack[RegisterOptions]
) -> Iterator[Result | SomaregError]: ...


@guarded
def register_many(
    pairs: Pairs,
    *,
    together: int = 8,
    on_error: Literal["raise", "return"] = "raise",
    **options: Unpack[RegisterOptions],
) -> Iterator[Result | SomaregError]:
    """Register pairs with the same options, several at a time, and yield their results in order.

    The pairs of a group are matched in parallel threads of this process, and images of one size share
    one call of the network, which uses a GPU better. Results equal those of `register` up to rounding. On a
    CPU the time per pair is the same; there use `somareg.batch` with `workers` for more cores.

    Args:
        pairs: (moving, reference) each, as for `register`; an iterator is advanced as needed.
        together: pairs per group, all in memory at once.
        on_error: "raise" a pair's error at its turn, or "return" it in place of the result.
        **options: as for `register`.

    Raises:
        ConfigError: unknown option or value, before the first pair is read.
        SomaregError: as `register`, for a pair, unless `on_error` is "return".
    """
    if together < 1:
        raise ConfigError(f"together is {together}; it counts pairs, from 1 on")
    if on_error not in ("raise", "return"):
        raise ConfigError(f'on_error is {on_error!r}; it is "raise" or "return"')
    make_config(options)
    return _results(iter(pairs), together, on_error == "return", options)


def _results(
    pairs: Iterator[tuple[Image, Image]], together: int, returns: bool, options: RegisterOptions
) -> Iterator[Result | SomaregError]:
    while group := list(islice(pairs, together)):
        for outcome in _group(group, options):
            if isinstance(outcome, SomaregError) and not returns:
                raise outcome
            yield outcome


def _group(group: list[tuple[Image, Image]], options: RegisterOptions) -> list[Result | SomaregError]:
    """Register the pairs of a group and return their outcomes."""
    from somareg.soma.together import Rendezvous, seated

    rendezvous = Rendezvous(len(group))

    def one(party: int) -> Result | SomaregError:
        moving, reference = group[party]
        with seated(rendezvous, party):
            set_threads(1)  # the threads take turns, so none gets a helper of its own
            try:
                return register(moving, reference, **options)
            except SomaregError as error:
                return error

    with ThreadPoolExecutor(len(group), "somareg-pair") as threads:
        return list(threads.map(one, range(len(group))))
