"""Settings of any kind: nested dataclasses from plain values, with one-line errors."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import lru_cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import to_json, to_jsonable_python

from somareg.errors import ConfigError

T = TypeVar("T")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return `" Did you mean 'base'?"`, or the list of choices when none is similar."""
    options = list(choices)
    near = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else f" Choose from {', '.join(options)}."


def from_mapping(cls: type[T], mapping: Mapping[str, Any], where: str = "") -> T:
    """A nested frozen dataclass from plain dicts and lists, such as a YAML or JSON file holds.

    Args:
        cls: a dataclass whose fields are numbers, strings, bools, literals, tuples, optional values or dataclasses.
        mapping: field name -> value; fields that are missing keep their defaults.
        where: prefix for messages, such as "network.encoder".

    Raises:
        ConfigError: unknown key (with the nearest known one) or a value of the wrong kind, naming the key.
    """
    kind: Any = cls
    try:
        text = to_json([mapping])
    except ValueError as error:
        raise ConfigError(f"{where or cls.__name__} holds what no YAML or JSON file can: {error}") from error
    try:
        # Strict mode refuses a text for a number; JSON mode still reads lists as tuples and mappings as dataclasses.
        read: list[T] = _reader(kind).validate_json(text)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise explained([{**each, "loc": each["loc"][1:]} for each in problems], cls, where) from error
    return read[0]


def to_mapping(cfg: Any) -> Any:
    """The inverse of `from_mapping`: dataclasses as dicts, tuples as lists; JSON-ready."""
    return to_jsonable_python(cfg)


@lru_cache(maxsize=32)
def _reader(cls: Any) -> TypeAdapter[list[Any]]:
    """Validator of a list of one: pydantic takes no configuration for a bare dataclass."""
    return TypeAdapter(list[cls], config=ConfigDict(extra="forbid", strict=True))


_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")


def explained(problems: Sequence[Any], kind: type, where: str = "") -> ConfigError:
    """Turn pydantic's errors into one line about the first; unknown names go first because they explain missing ones.

    Args:
        problems: pydantic's errors.
        kind: the class being read.
        where: prefix for names.
    """
    first = next((each for each in problems if each["type"] in _UNKNOWN), problems[0])
    value, context = first["input"], first.get("ctx", {})
    if isinstance(context.get("error"), ConfigError):  # from a check of our own
        return ConfigError(*context["error"].args)
    parts, owner = _place(kind, first["loc"])
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in (*where.split(), *parts))
    name = name.removeprefix(".")
    if first["type"] in _UNKNOWN:
        return ConfigError(f"unknown option '{name}'.{did_you_mean(str(parts[-1]), _fields(owner))}")
    if first["type"] == "literal_error":
        choices = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return ConfigError(f"unknown {name} {shown(str(value))}.{did_you_mean(str(value), choices)}")
    if first["type"] == "dataclass_type":
        return ConfigError(f"{name or kind.__name__} must be a mapping of names to values, not {shown(value)}")
    if first["type"] == "missing":
        if isinstance(parts[-1], str):
            return ConfigError(f"option '{name}' is missing")
        return ConfigError(f"bad value {shown(value)} for option '{name.rpartition('[')[0]}': too few values")
    return ConfigError(f"bad value {shown(value)} for option '{name}': {first['msg']}")


def shown(value: Any) -> str:
    """Format a value for a message: one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:79]}…"


def _place(kind: Any, loc: Iterable[int | str]) -> tuple[list[int | str], Any]:
    """Split the place of an error into names and indices, and find the class of the last name; skip marks of unions."""
    parts: list[int | str] = []
    owner = kind
    for part in loc:
        for each in get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,):
            if fields := _fields(each):
                owner, kind = each, fields.get(str(part))
            elif get_origin(each) is (tuple if isinstance(part, int) else dict):
                kind = get_args(each)[0 if isinstance(part, int) else 1]
            else:
                continue
            parts.append(part)
            break
    return parts, owner


def _fields(kind: Any) -> dict[str, Any]:
    """Name -> type of the fields of a dataclass or model; empty for anything else."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return get_type_hints(kind) if isinstance(kind, type) and is_dataclass(kind) else {}
