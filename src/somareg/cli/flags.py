"""Flags made from `RegisterConfig`: a command takes all options, or names those that apply to it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer
from pydantic.fields import FieldInfo

from somareg.config import SEARCH, RegisterConfig, make_config

_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
_METAVARS = {bool: None, int: "N", float: "VALUE", str: "NAME"}


def takes_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator of a command: a flag for every option, or for those that are named.

    The flags stand in the help where the command has its parameter `asked`, and the command gets there the
    configuration that they make (`said` tells what was typed). Pydantic checks the values, so that the message about a
    bad one is the same from Python and from the shell.
    """
    fields = {name: RegisterConfig.model_fields[name] for name in names or RegisterConfig.model_fields}

    def with_flags(command: Callable[..., None]) -> Callable[..., None]:
        def run(context: typer.Context, **given: Any) -> None:
            values = {name: given.pop(name) for name in fields}
            command(**given, asked=make_config({name: values[name] for name in fields if _is_typed(context, name)}))

        hints = typing.get_type_hints(command, include_extras=True)
        parameters = [_keyword("context", typer.Context)]
        for name, own in inspect.signature(command).parameters.items():
            made = [_flag(each, field) for each, field in fields.items()] if name == "asked" else None
            parameters += made or [_keyword(name, hints[name], own.default)]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return with_flags


def said(asked: RegisterConfig) -> dict[str, Any]:
    """The options that were typed, by name; the library fills in the defaults of all others."""
    values = {name: getattr(asked, name) for name in RegisterConfig.model_fields if name in asked.model_fields_set}
    return {
        name: value for name, value in values.items() if value is not None
    }  # one gives way to another that was said


def shown(name: str) -> dict[str, Any]:
    """How an option is shown: `group`, `metavar` (None for a switch) and `flag`, such as "--local/--no-local"."""
    field = RegisterConfig.model_fields[name]
    extra = field.json_schema_extra
    told: dict[str, Any] = dict(extra) if isinstance(extra, dict) else {}
    flag = told.get("flag") or f"--{name.replace('_', '-')}"
    kind = _kind(field)
    return {
        "group": told.get("group") or SEARCH,
        "metavar": told.get("metavar") or _METAVARS[kind],
        "flag": f"{flag}/--no-{flag.removeprefix('--')}" if kind is bool else flag,
    }


def values(name: str) -> tuple[str, ...]:
    """The values of an option that is a choice; none for any other."""
    kind = RegisterConfig.model_fields[name].annotation
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def bounds(name: str) -> str:
    """Between which values a number lies, such as "above 0"; "" for what has no bounds."""
    found = {
        bound: getattr(each, bound)
        for each in RegisterConfig.model_fields[name].metadata
        for bound in _BOUNDS
        if hasattr(each, bound)
    }
    if found.keys() == {"ge", "le"}:
        return f"{found['ge']} to {found['le']}"
    return ", ".join(f"{_BOUNDS[bound]} {value}" for bound, value in found.items())


def meaning(name: str) -> str:
    """The help of a flag: the option's description, with the values and bounds that this does not name."""
    text, choices = RegisterConfig.model_fields[name].description or "", values(name)
    if not all(choice in text for choice in choices):
        text = f"{', '.join(choices[:-1])} or {choices[-1]}: {text}"
    return f"{text} ({bounds(name)})" if bounds(name) else text


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    told = shown(name)
    option = typer.Option(
        told["flag"],
        help=meaning(name),
        metavar=told["metavar"],
        rich_help_panel=told["group"],
        show_default=True,
    )
    return _keyword(name, Annotated[_kind(field) | None, option], field.default)


def _kind(field: FieldInfo) -> type:
    """What the command line reads: a switch, a number, or a text for all else."""
    kinds = (field.annotation, *typing.get_args(field.annotation))
    return next((kind for kind in (bool, int, float) if kind in kinds), str)


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _is_typed(context: typer.Context, name: str) -> bool:
    """Whether a flag was typed. A default does not count: a STAC Item, for example, may tell the modality instead."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"
