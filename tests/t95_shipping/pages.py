"""Fenced examples of a Markdown page, and how to run them: commands in this process, Python in one namespace.

`python -m tests.t95_shipping.pages` writes the figures that come out now into docs/tutorial.md and docs/report.md.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from somareg.cli.main import main
from tests.programs import program

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def tool(name: str) -> ModuleType:
    """A program of tools/, imported."""
    return program(f"tools/{name}.py")


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
        mends: (what a page says, what it should say), collected where it is a list; None makes each an error.
    """

    skipped: Mapping[str, str] = field(default_factory=dict)
    codes: Mapping[str, int] = field(default_factory=dict)
    names: dict[str, Any] = field(default_factory=dict)
    said: str = ""
    met: list[str] = field(default_factory=list)
    mends: list[tuple[str, str]] | None = None

    def run(self, block: Block, page: str) -> None:
        """Run a block; a block of plain text must say what the last command said."""
        if block.kind == "python":
            exec(compile(block.text, page, "exec"), self.names)
            self.check_values(block.text)
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

    def check_values(self, text: str) -> None:
        """`expression  # "words" or number`: the comment is what the expression gives, as far as it is quoted."""
        for expression, comment, quoted in _VALUE.findall(text):
            value = eval(expression, self.names)
            if not quoted:
                self.check(expression, comment, f"{value:.{len(comment.partition('.')[2])}f}")
                continue
            said = str(value)
            for part in filter(None, (part.strip() for part in quoted.split("..."))):
                like = _NUMBER.sub(lambda _: "\0", part)
                pattern = re.escape(like).replace(re.escape("\0"), _NUMBER.pattern)
                match = re.search(pattern, said)
                assert match, f"{expression} is not {part!r} but {said!r}"
                self.check(expression, part, match[0])

    def check_output(self, text: str) -> None:
        """Every line is in what the last command said, with figures that are the same but for the last digit."""
        said = {_words(line): line for line in self.said.splitlines()}
        for line in filter(str.strip, text.splitlines()):
            assert _words(line) in said, f"not printed: {line}\n{self.said}"
            self.check(line, line, said[_words(line)].rstrip())

    def check(self, where: str, told: str, now: str) -> None:
        """Figures of two texts that are alike otherwise; other machines may differ in the last digit."""
        figures = list(zip(_NUMBER.findall(told), _NUMBER.findall(now), strict=True))
        if self.mends is None:
            assert all(_close(*pair) for pair in figures), f"{where}: the page says {told!r}, it is {now!r}; {MEND}"
        elif any(one != other for one, other in figures):
            self.mends.append((told, now))


MEND = "mend the page: python -m tests.t95_shipping.pages"
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
_VALUE = re.compile(r"^(\S[^#\n]*?)  # ([+-]?\d+(?:\.\d+)?|\"([^\"]*)\")$", re.MULTILINE)


def _words(line: str) -> str:
    return " ".join(_NUMBER.sub("#", line).split())


def _close(told: str, now: str) -> bool:
    """Within two units of the last digit that is told, or 2 %."""
    unit = 10.0 ** -len(told.partition(".")[2])
    return abs(float(told) - float(now)) <= max(2 * unit, 0.02 * abs(float(now))) + 1e-9


def mend(path: Path) -> None:
    """Write the figures that come out now into a page whose examples stand in it from its beginning."""
    shell = Shell({"pip install .": "installed"}, {"somareg assess sar.tif optical.tif": 3}, mends=[])
    text = path.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for page in {"tutorial.md": text, path.name: text}:
            for block in blocks_in((ROOT / "docs" / page).read_text(encoding="utf-8")):
                shell.run(block, page)
    for told, now in shell.mends or []:
        print(f"- {told}\n+ {now}")
        text = text.replace(told, now)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for name in ("tutorial.md", "report.md"):
        mend(ROOT / "docs" / name)
