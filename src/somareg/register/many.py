"""Many pairs at once: what they ask of the network is worked out together."""

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

    The pairs of a group are matched side by side in threads of this process, and images of one size are described by
    one call of the network: a GPU gets more to do at once. The figures are those of `register` but for rounding. On a
    CPU the time per pair is the same; there `somareg.batch` with `workers` is what uses more cores.

    Args:
        pairs: (moving, reference) each, as for `register`; taken from an iterator as they are needed.
        together: pairs in a group, which are in memory at once.
        on_error: "raise" what a pair ends with when it is its turn, or "return" it in the place of its result.
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
    """The outcome of each pair of a group."""
    from somareg.soma.together import Rendezvous, seated

    rendezvous = Rendezvous(len(group))

    def one(party: int) -> Result | SomaregError:
        moving, reference = group[party]
        with seated(rendezvous, party):
            set_threads(1)  # the parties take turns: none of them has a helper of its own
            try:
                return register(moving, reference, **options)
            except SomaregError as error:
                return error

    with ThreadPoolExecutor(len(group), "somareg-pair") as threads:
        return list(threads.map(one, range(len(group))))
