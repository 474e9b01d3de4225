"""Fields that are made when they are first asked for."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, fields, replace
from functools import partial

import pytest

from somareg.types import Deferred, Later


@dataclass(frozen=True, eq=False, kw_only=True)
class Holder:
    name: str
    value: Deferred[int] = Deferred()  # noqa: RUF009 - a descriptor


class Maker:
    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> int:
        self.made += 1
        return 7


def test_a_value_is_made_once_and_only_when_it_is_asked_for() -> None:
    maker = Maker()
    holder = Holder(name="a", value=Later(maker))
    assert maker.made == 0
    assert (holder.value, holder.value, maker.made) == (7, 7, 1)


def test_a_value_may_be_given_as_it_is() -> None:
    assert Holder(name="a", value=3).value == 3
    assert replace(Holder(name="a", value=3), value=4).value == 4


def test_what_made_it_is_forgotten() -> None:
    holder = Holder(name="a", value=Later(Maker()))
    assert holder.value == 7
    assert not any(isinstance(value, Later) for value in vars(holder).values())


def test_a_field_has_no_default() -> None:
    with pytest.raises(TypeError, match="value"):
        Holder(name="a")  # type: ignore[call-arg]
    assert [field.name for field in fields(Holder)] == ["name", "value"]


def test_an_error_is_raised_where_it_is_asked_for_and_again() -> None:
    def fail() -> int:
        raise OSError("gone")

    holder = Holder(name="a", value=Later(fail))
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            _ = holder.value


def test_it_can_be_sent_before_it_is_made() -> None:
    assert pickle.loads(pickle.dumps(Later(partial(int, "12")))).make() == 12
