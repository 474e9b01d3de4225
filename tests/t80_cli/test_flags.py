"""Every option of `register` is a flag of every command that registers, and reaches the library as it was typed."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import pytest

from somareg.batches import run
from somareg.batches.summary import BatchResult
from somareg.cli.flags import meaning, shown, values
from somareg.cli.main import COMMANDS as ENTRIES
from somareg.config import RegisterConfig
from tests.t80_cli.conftest import Cli, FakeApi

NAMES = list(RegisterConfig.model_fields)
COMMANDS: dict[str, Any] = {name: entry.load(name) for name, entry in ENTRIES.items()}
WHOLE = ("register", "assess", "batch", "audit")
PART = {
    "demo": ("preset", "model", "dinov2", "device"),
    "warp": ("gcp_method", "resampling", "max_memory"),
    "eval": ("dinov2", "seed"),
    "export": ("dinov2",),
    "train": ("device",),
}


@pytest.mark.parametrize("command", WHOLE)
def test_the_commands_that_register_have_all_of_them(command: str) -> None:
    flags = {parameter.name: parameter for parameter in COMMANDS[command].params}
    assert [name for name in flags if name in NAMES] == NAMES  # groups stand in one order, too
    for name in NAMES:
        check(flags[name], name)


@pytest.mark.parametrize("command", PART)
def test_a_command_with_few_of_them_has_the_same_ones(command: str) -> None:
    flags = {parameter.name: parameter for parameter in COMMANDS[command].params}
    assert [name for name in flags if name in NAMES] == list(PART[command])
    for name in PART[command]:
        check(flags[name], name)


def test_no_other_command_has_a_flag_of_that_name() -> None:
    others = COMMANDS.keys() - {*WHOLE, *PART}
    assert {"view", "doctor"} <= others
    for command in others:
        assert not {parameter.name for parameter in COMMANDS[command].params} & set(NAMES)


def check(flag: Any, name: str) -> None:
    field = RegisterConfig.model_fields[name]
    assert [*flag.opts, *flag.secondary_opts] == shown(name)["flag"].split("/")
    assert flag.help == meaning(name)
    assert flag.default == field.default
    assert field.description and field.description in flag.help
    for value in values(name):
        assert value in flag.help
    assert flag.rich_help_panel == field.json_schema_extra["group"]  # type: ignore[index,call-overload]


def typed(name: str) -> tuple[list[str], Any]:
    """A flag with a value that is not the default, and what the library gets."""
    field, flag = RegisterConfig.model_fields[name], shown(name)["flag"]
    kinds = (field.annotation, *typing.get_args(field.annotation))
    if bool in kinds:
        return [flag.split("/")[1]], False
    if values(name):
        value = next(value for value in values(name) if value != field.default)
        return [flag, value], value
    if name.endswith("_bands"):
        return [flag, "2,1"], (2, 1)
    if name.endswith("_mask_values"):
        return [flag, "3, 8-10 bit4"], "3,8-10,bit4"
    if name == "min_probability":
        return [flag, "0.7"], 0.7
    if name == "max_memory":
        return [flag, "2GiB"], 2**31
    if float in kinds or int in kinds:
        return [flag, "7"], 7
    return [flag, "other"], "other"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["register", "assess"])
def test_what_is_typed_reaches_the_library(
    cli: Cli, fake_api: FakeApi, command: str, name: str, tmp_path: Path
) -> None:
    flags, value = typed(name)
    out = ["-o", tmp_path / "out"] if command == "register" else []
    assert cli(command, "a.tif", "b.tif", *out, *flags).code == 0
    (_, options), *_ = fake_api.calls
    where = (tmp_path / "out",) if command == "register" else ()
    assert options == {"args": ("a.tif", "b.tif", *where), name: value}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_typed_reaches_the_batch(cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path) -> None:
    found: dict[str, Any] = {}

    def batch(pairs: str, out: str, **options: Any) -> BatchResult:
        found.update(options)
        return BatchResult(tmp_path, (), (), ())

    monkeypatch.setattr(run, "batch", batch)
    flags, value = typed(name)
    cli("batch", "pairs.csv", "-o", tmp_path, *flags)
    assert {key: found[key] for key in found if key in NAMES} == {name: value}


def test_a_default_that_is_typed_is_said(cli: Cli, fake_api: FakeApi) -> None:
    """What a STAC Item tells gives way to it."""
    cli("assess", "a.tif", "b.tif", "--moving-modality", "sar", "--local")
    assert fake_api.calls[0][1] == {"args": ("a.tif", "b.tif"), "moving_modality": "sar", "local": True}


def test_help_fits_and_tells_bounds_and_defaults(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = cli("assess", "--help").out
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    words = " ".join(text.split())
    for told in ("--gcp-method", "(above 0)", "(0 to 4294967295)", "[default: base]", "precise up to 4096"):
        assert told in words
