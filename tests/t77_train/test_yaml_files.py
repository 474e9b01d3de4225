"""Configurations from strangers: no file's content in a message that did not ask for it, no bomb, one kind of error."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from somareg.errors import ConfigError
from somareg.lab.train.config import load_config

SECRET = "hunter2"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "mine" / "config.yaml"


def refusal(config: Path, text: str, *more: str) -> str:
    config.parent.mkdir(exist_ok=True)
    config.write_text(text)
    begin = time.monotonic()
    with pytest.raises(ConfigError) as refused:
        load_config(config, more)
    assert time.monotonic() - begin < 5
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    "content",
    [f"root:{SECRET}:0", f"a: [{SECRET}\nb", f"key: !{SECRET} x", f"a: *{SECRET}", f"- {SECRET}", f"a: !!int {SECRET}",
     f"{SECRET}: {{", f"'{SECRET}", f"a: \x00{SECRET}", f"%TAG {SECRET}", f"[{SECRET}]: 1", f"a: !!float {SECRET}"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["shadow", "shadow.yaml", "link.yaml"])
def test_a_file_that_is_named_by_a_file_is_not_quoted(config: Path, tmp_path: Path, content: str, name: str) -> None:
    """`extends` may come from a stranger, and what goes wrong is shown to whoever asks for help."""
    target = tmp_path / ("shadow" if name == "link.yaml" else name)
    target.write_text(content)
    if name == "link.yaml":
        (tmp_path / name).symlink_to(target)
    for path in (f"../{name}", str(tmp_path / name)):
        told = refusal(config, f"extends: {path}")
        assert SECRET not in told
        assert name in told


def test_the_file_that_was_given_is_quoted(config: Path) -> None:
    assert "line 1, column 6" in refusal(config, "a: [1}")
    assert "'!secret'" in refusal(config, "a: !secret x")


@pytest.mark.parametrize(
    ("text", "mention"),
    [
        ("a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]", "aliases"),
        ("a: &a {x: 1}\nb: {<<: [*a, *a]}", "aliases"),
        ("a: &a\n  <<: *a", "aliases"),
        ("[" * 100_000, "nested too deep"),
        ("{a: " * 50_000, "nested too deep"),
        ("a: " + "1" * 5000, "cannot be read"),
        ("a: 1" + ":1" * 9000, "cannot be read"),
        ("a: 2001-99-99", "cannot be read"),
        ("a: !!timestamp x", "cannot be read"),
        ('a: "\\U00110000"', "cannot be read"),
        ("a: " + "x" * (1 << 20), "larger than"),
        ("? [a]\n: b", "unhashable"),
        ("seed: .inf", "seed"),
        ("seed: 1e400", "seed"),
        ("run: {batch: !!binary aGVsbG8=}", "batch"),
        ("extends: [a]", "extends"),
        ("extends: /dev/zero", "extends"),
        ("extends: '\\0'", "extends"),
        ('extends: "a\\0b.yaml"', "extends"),
        ("extends: " + "a" * 5000 + ".yaml", "extends"),
    ],
)
def test_bombs_and_nonsense(config: Path, text: str, mention: str) -> None:
    assert mention in refusal(config, text)


def test_a_device_is_no_endless_file(tmp_path: Path) -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("no such device here")
    with pytest.raises(ConfigError, match="larger than"):
        load_config("/dev/zero")


def test_settings_of_the_command_line_are_read_by_the_same_rules(config: Path) -> None:
    assert "aliases" in refusal(config, "seed: 1", "data={a: &a 1, b: *a}")


def test_a_chain_has_an_end(config: Path) -> None:
    config.parent.mkdir()
    for number in range(1, 30):
        (config.parent / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml")
    assert "merge some of them" in refusal(config, "extends: 1.yaml")
