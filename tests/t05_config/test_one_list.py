"""`RegisterConfig` is the one list of options: types, tables and columns have its names, and no other ones."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from somareg.batches import run
from somareg.batches.pairs import read_table
from somareg.config import GROUPS, RegisterConfig, make_config
from somareg.config.arguments import RegisterOptions
from somareg.errors import ConfigError
from somareg.register import api
from somareg.types import TiePoints
from somareg.xarray import SomaregAccessor
from tests.programs import program

ROOT = Path(__file__).resolve().parents[2]
NAMES = list(RegisterConfig.model_fields)
DOORS = (
    *(api.register, api.assess, api.plan, run.batch, run.planned, api.register_into),
    *(SomaregAccessor.register_to, SomaregAccessor.assess),
)


def tool(name: str) -> ModuleType:
    """A module of `tools/`, which is no package."""
    return program(f"tools/{name}.py")


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_described_and_has_its_place(name: str) -> None:
    field = RegisterConfig.model_fields[name]
    assert field.description, f"say in RegisterConfig what {name} means"
    assert not field.description.endswith(".")
    assert isinstance(field.json_schema_extra, dict), f"make {name} with option(...), which names its group"
    assert field.json_schema_extra["group"] in GROUPS
    assert not field.is_required()


def test_the_typed_dict_has_the_same_names_in_the_same_order() -> None:
    assert list(RegisterOptions.__annotations__) == NAMES, "run `make options`"
    assert not RegisterOptions.__required_keys__


def test_the_typed_dict_is_what_make_options_writes() -> None:
    tool_ = tool("options")
    source = tool_.ARGUMENTS.read_text(encoding="utf-8")
    assert tool_.written(source, tool_.OPTIONS.read_text(encoding="utf-8")) == source, "run `make options`"


@pytest.mark.parametrize("name", NAMES)
def test_what_callers_may_give_holds_what_the_field_holds(name: str) -> None:
    """A type checker must take a default, every value of a choice, and what `make_config` makes of them."""
    wide = set(kinds(typing.get_type_hints(RegisterOptions)[name]))
    held = set(kinds(RegisterConfig.model_fields[name].annotation))
    assert held <= wide or (tuple in held and held - {tuple} <= wide)


def kinds(hint: Any) -> list[Any]:
    """The members of a union; of a generic its origin; of a literal its values."""
    if typing.get_origin(hint) in (typing.Union, type(int | str)):
        return [kind for member in typing.get_args(hint) for kind in kinds(member)]
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
    return [typing.get_origin(hint) or hint]


@pytest.mark.parametrize("door", DOORS, ids=[door.__qualname__ for door in DOORS])
def test_every_door_takes_the_typed_dict(door: Callable[..., Any]) -> None:
    parameters = inspect.signature(door).parameters
    (rest,) = [each.annotation for each in parameters.values() if each.kind is inspect.Parameter.VAR_KEYWORD]
    (taken,) = typing.get_args(eval(rest, inspect.unwrap(door).__globals__))
    assert taken.__annotations__.keys() >= set(NAMES)
    assert not set(NAMES) & parameters.keys()


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_a_column_of_a_batch(name: str, tmp_path: Path) -> None:
    default = RegisterConfig.model_fields[name].default
    cell = {"moving_bands": "3 2 1", "reference_bands": "3,2,1", "min_probability": "0.9"}.get(
        name, "7" if default is None else str(default)
    )
    table = tmp_path / "pairs.csv"
    table.write_text(f"moving;reference;{name}\na.tif;b.tif;{cell}\na.tif;b.tif;\n")
    said, unsaid = read_table(table)
    assert said.options.keys() == {name}
    assert getattr(make_config(said.options), name) is not None
    assert unsaid.options == {}


def test_no_other_column_is_taken(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("moving,reference,gcp_metod\na.tif,b.tif,tps\n")
    with pytest.raises(ConfigError, match="'gcp_method'"):
        read_table(table)


def test_the_table_of_the_documentation_has_a_row_for_each() -> None:
    rows = [line.split(" | ") for line in tool("reference").options_table().splitlines()[2:]]
    assert [row[0] for row in rows] == [f"| `{name}`" for name in NAMES]
    for row in rows:
        assert len(row[-1]) > len(" |")
    assert "<!-- reference: options of register -->" in (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


# --- limits of the error ---------------------------------------------------------------------------------------------


def test_metres_stand_in_place_of_pixels() -> None:
    assert make_config({}).max_error == 3.0
    cfg = make_config({"max_error_m": 20})
    assert (cfg.max_error, cfg.max_error_m) == (None, 20.0)
    assert make_config(cfg.model_dump(mode="json")) == cfg  # as a report holds it
    for both in ({"max_error": 3.0, "max_error_m": 20}, {"max_error": "2", "max_error_m": "20"}):
        with pytest.raises(ConfigError, match="both given"):
            make_config(both)


@pytest.mark.parametrize(("name", "value"), [("min_probability", 1.01), ("max_error", 0), ("max_error_m", math.inf)])
def test_limits_are_bounded(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"for option '{name}'"):
        make_config({name: value})


# --- what is taken for what -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["3,2,1", "3 2 1", " 3, 2 ,1 ", [3, 2, 1], (3, 2, 1)])
def test_bands_are_a_list_or_a_text(given: Any) -> None:
    assert make_config({"moving_bands": given}).moving_bands == (3, 2, 1)


@pytest.mark.parametrize("given", ["0,1", "", "red", "1,,2.5", [0], [-1, 2], [1.5], 3, {"a": 1}])
def test_bands_that_are_none_name_the_option(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"^reference_bands: .* is not a list of band numbers from 1"):
        make_config({"reference_bands": given})


def test_paths_are_taken_for_names_of_files() -> None:
    cfg = make_config({"tie_points": Path("clicks.csv"), "model": Path("mine.safetensors")})
    assert (cfg.tie_points, cfg.model) == ("clicks.csv", "mine.safetensors")


def test_none_is_an_option_that_is_not_given() -> None:
    assert make_config(dict.fromkeys(NAMES)) == make_config({})
    assert make_config(dict.fromkeys(NAMES)).model_fields_set == set()
    with pytest.raises(ConfigError, match="unknown option 'prset'"):
        make_config({"prset": None})


@pytest.mark.parametrize("name", [name for name in NAMES if RegisterConfig.model_fields[name].metadata])
def test_bounds_are_kept(name: str) -> None:
    with pytest.raises(ConfigError, match=f"bad value -1 for option '{name}'"):
        make_config({name: -1})


def test_points_in_memory_are_for_register_alone() -> None:
    """A batch is told by what can be written down; `register` names the points before it comes here."""
    xy, ones = np.arange(60.0).reshape(30, 2), np.ones(30)
    with pytest.raises(ConfigError) as caught:
        make_config({"tie_points": TiePoints(xy, xy, xy, ones, ones, ones > 0, ones)})
    assert "for option 'tie_points'" in str(caught.value)
    assert "\n" not in str(caught.value)
