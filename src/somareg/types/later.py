"""Values that are computed on first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Later(Generic[T]):
    """A value that is computed on first use.

    Args:
        make: computes the value; called once and then dropped, so that what it refers to can be freed.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self.make = make


class Deferred(Generic[T]):
    """A dataclass field that accepts a value or a `Later` and returns the value.

    Two threads may both compute the value when they ask at once; they get equal values.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._key = f"_{name}"

    def __get__(self, owner: Any, kind: type) -> T:
        if owner is None:
            raise AttributeError("a field of instances")  # tells dataclasses that the field has no default
        value = owner.__dict__[self._key]
        if isinstance(value, Later):
            value = owner.__dict__[self._key] = value.make()
        result: T = value
        return result

    def __set__(self, owner: Any, value: T | Later[T]) -> None:
        owner.__dict__[self._key] = value
