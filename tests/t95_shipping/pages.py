"""Fenced examples of a Markdown page, and how to run them: commands in this process, Python in one namespace."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from somareg.cli.main import main

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        kind: its language, "" when none is named.
        text: what is inside.
    """

    kind: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines of a console block that somebody would type, without prompt and comment."""
        if self.kind not in ("console", "bash", "sh"):
            return []
        typed = [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]
        return [re.sub(r"\s+#.*$", "", line).strip() for line in typed]


def blocks_of(name: str) -> list[Block]:
    """Every fenced block of a page, in its order; skips the test where pages are not beside the tests."""
    path = ROOT / name
    if not path.exists():
        pytest.skip("the documentation does not ship with an installed package")
    return blocks_in(path.read_text(encoding="utf-8"))


def blocks_in(text: str) -> list[Block]:
    """The same of a piece of Markdown."""
    return [Block(*match.groups()) for match in _FENCE.finditer(text)]


@dataclass
class Shell:
    """Runs examples in the current folder.

    Attributes:
        skipped: command -> why it is not run.
        codes: command -> exit code, where it is not 0.
        names: what Python blocks define and use.
        said: standard output of the last command.
        met: commands that were met, run or not.
    """

    skipped: Mapping[str, str] = field(default_factory=dict)
    codes: Mapping[str, int] = field(default_factory=dict)
    names: dict[str, Any] = field(default_factory=dict)
    said: str = ""
    met: list[str] = field(default_factory=list)

    def run(self, block: Block, page: str) -> None:
        """Run a block; a block of plain text must say what the last command said."""
        if block.kind == "python":
            exec(compile(block.text, page, "exec"), self.names)
        elif block.kind == "text":
            self.check_output(block.text)
        else:
            assert block.commands, f"{page}: no rule for a block of kind '{block.kind}': {block.text[:60]}"
            for command in block.commands:
                self.met.append(command)
                if command not in self.skipped:
                    self.type(command)

    def type(self, line: str) -> None:
        """A line of the shell: `somareg ...`, perhaps into `jq .key`."""
        line, _, rest = line.partition(" | ")
        program, *arguments = shlex.split(line)
        assert program == "somareg", f"not somareg's; list it with a reason: {line}"
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == self.codes.get(line, 0), (line, out.getvalue(), err.getvalue())
        self.said = out.getvalue()
        if rest:
            document = json.loads(self.said)
            for key in rest.removeprefix("jq .").split("."):
                document = document[key]

    def check_output(self, text: str) -> None:
        """Every line is in what the last command said, with figures that are about the same."""
        said = {_words(line): line for line in self.said.splitlines()}
        for line in filter(str.strip, text.splitlines()):
            assert _words(line) in said, f"not printed: {line}\n{self.said}"
            printed = said[_words(line)]
            assert _figures(line) == pytest.approx(_figures(printed), rel=0.5, abs=1.5), f"{line}\n{printed}"


_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


def _words(line: str) -> str:
    return " ".join(_NUMBER.sub("#", line).split())


def _figures(line: str) -> list[float]:
    return [float(number) for number in _NUMBER.findall(line)]
