"""Nested settings from YAML or JSON: strict about kinds, and every message names the key and the way out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from somareg.config import from_mapping, to_mapping
from somareg.errors import ConfigError


@dataclass(frozen=True)
class Wheel:
    inches: float
    spokes: Literal[24, 32] = 32

    def __post_init__(self) -> None:
        if self.inches <= 0:
            raise ConfigError(f"wheel.inches is {self.inches}; give more than 0")


@dataclass(frozen=True)
class Bell:
    sound: Literal["ring", "ding", "dong"] = "ring"


@dataclass(frozen=True, slots=True)
class Bicycle:
    wheels: tuple[Wheel, ...]
    bell: Bell | None = field(default_factory=Bell)
    gears: tuple[int, int] = (2, 9)
    seats: int | tuple[int, ...] = 1
    electric: bool = False
    owners: dict[str, str] = field(default_factory=dict)
    price: float | None = None


WHOLE = Bicycle(
    wheels=(Wheel(26.0), Wheel(20.0, 24)),
    bell=None,
    gears=(3, 7),
    seats=(1, 0),
    electric=True,
    owners={"first": "Ada"},
    price=1e3,
)


def test_what_is_written_is_read() -> None:
    told = to_mapping(WHOLE)
    assert told == {
        "wheels": [{"inches": 26.0, "spokes": 32}, {"inches": 20.0, "spokes": 24}],
        "bell": None,
        "gears": [3, 7],
        "seats": [1, 0],
        "electric": True,
        "owners": {"first": "Ada"},
        "price": 1000.0,
    }
    assert from_mapping(Bicycle, told) == WHOLE
    assert from_mapping(Bicycle, {"wheels": ({"inches": 26},)}) == Bicycle((Wheel(26.0),))
    assert type(from_mapping(Wheel, {"inches": 26}).inches) is float
    assert math.isnan(from_mapping(Wheel, to_mapping(Wheel(math.nan))).inches)


TWO: Any = [{"inches": 26.0}, {"inches": 26.0}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gear": [1, 2]}, "unknown option 'bike.gear'. Did you mean 'gears'?"),
        ({"wheels": [{"inches": 26.0}, {"inch": 26.0}]}, "unknown option 'bike.wheels[1].inch'. Did you mean 'inches'"),
        ({"wheels": [{"spokes": 32}]}, "option 'bike.wheels[0].inches' is missing"),
        ({"bell": {"volume": 3}}, "unknown option 'bike.bell.volume'. Choose from sound."),
        ({"bell": {"sound": "rign"}}, "unknown bike.bell.sound 'rign'. Did you mean 'ring'?"),
        ({"wheels": [{"inches": 26.0, "spokes": 33}]}, "unknown bike.wheels[0].spokes '33'. Did you mean '32'?"),
        ({"bell": "ring"}, "bike.bell must be a mapping of names to values, not 'ring'"),
        ({"wheels": [{"inches": -1.0}]}, "wheel.inches is -1.0; give more than 0"),
        ({"wheels": [{"inches": "26"}]}, "bad value '26' for option 'bike.wheels[0].inches'"),
        ({"wheels": [{"inches": True}]}, "bad value True for option 'bike.wheels[0].inches'"),
        ({"wheels": [{"inches": None}]}, "bad value None for option 'bike.wheels[0].inches'"),
        ({"wheels": {"inches": 26.0}}, "for option 'bike.wheels'"),
        ({"gears": [1]}, "bad value [1] for option 'bike.gears': too few values"),
        ({"gears": [1, 2, 3]}, "bad value [1, 2, 3] for option 'bike.gears'"),
        ({"gears": [1, 2.5]}, "bad value 2.5 for option 'bike.gears[1]'"),
        ({"seats": "one"}, "bad value 'one' for option 'bike.seats'"),
        ({"seats": False}, "bad value False for option 'bike.seats'"),
        ({"electric": 1}, "bad value 1 for option 'bike.electric'"),
        ({"electric": "yes"}, "bad value 'yes' for option 'bike.electric'"),
        ({"owners": {"first": 1}}, "bad value 1 for option 'bike.owners.first'"),
        ({"owners": object()}, "bike holds what no YAML or JSON file can"),
    ],
)
def test_one_line_names_the_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping(Bicycle, {"wheels": TWO, **change}, "bike")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [[], "wheels", 3, None])
def test_settings_are_a_mapping(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"^Bicycle must be a mapping of names to values, not "):
        from_mapping(Bicycle, given)


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping(Bicycle, {"wheels": TWO, "electric": "x" * 10_000})
    assert len(str(caught.value)) < 200
