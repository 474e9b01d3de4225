"""Values that are made when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Later(Generic[T]):
    """A value to be made.

    Args:
        make: makes it; called once, and forgotten with all that it holds.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self.make = make


class Deferred(Generic[T]):
    """A field of a dataclass that takes a value or a `Later`, and gives the value.

    Two threads that ask at once may both make it; they get equal values.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._key = f"_{name}"

    def __get__(self, owner: Any, kind: type) -> T:
        if owner is None:
            raise AttributeError("a field of instances")  # tells dataclasses that the field has no default
        value = owner.__dict__[self._key]
        if isinstance(value, Later):
            value = owner.__dict__[self._key] = value.make()
        made: T = value
        return made

    def __set__(self, owner: Any, value: T | Later[T]) -> None:
        owner.__dict__[self._key] = value
