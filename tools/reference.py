"""Write the reference into docs/commands.md and docs/api.md, from the commands and the docstrings: `make reference`.

The pages can be read where the repository is browsed, without a build. Between `<!-- reference: WHAT -->` and
`<!-- end -->` stands what this writes; the rest of a page is written by hand. A test fails while a page is not current.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("docs/commands.md", "docs/api.md")
BLOCK = re.compile(r"(<!-- reference: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
WIDTH = 100
TITLES = {"parameters": "Arguments", "attributes": "Attributes", "returns": "Returns", "yields": "Yields"}


def current(page: str) -> str:
    """The text of a page with its reference as the code says now."""
    package = griffe.load("somareg", search_paths=[str(ROOT / "src")])

    def block(match: re.Match[str]) -> str:
        made = {"commands": commands_list, "options of register": options_table}.get(match[2])
        text = made() if made else api(package, match[2])
        return f"{match[1]}\n{text.strip()}\n\n{match[3]}"

    return BLOCK.sub(block, page)


# Commands


def commands_list() -> str:
    """The command line as Markdown."""
    from somareg.cli.main import COMMANDS, EPILOG

    lines = [EPILOG, ""]
    for name, command in _walk({name: entry.load(name) for name, entry in COMMANDS.items()}, "somareg"):
        lines += [f"## {name}", "", _text(command.help or ""), "", f"```text\n{_usage(name, command)}\n```", ""]
        sections: dict[str, list[Any]] = {}
        for parameter in command.params:
            if parameter.name != "help":
                sections.setdefault(_section(parameter), []).append(parameter)
        for section, parameters in sections.items():
            lines += [f"| {section} | meaning | default |", "|---|---|---|", *map(_row, parameters), ""]
    return "\n".join(lines)


def options_table() -> str:
    """The fields of `RegisterConfig` as a table."""
    from somareg.cli.flags import bounds, shown, values
    from somareg.config import RegisterConfig
    from somareg.config.arguments import RegisterOptions

    lines = ["| option | flag | values | default | meaning |", "|---|---|---|---|---|"]
    for name, option in RegisterConfig.model_fields.items():
        taken = RegisterOptions.__annotations__[name].__forward_arg__
        words = ", ".join(f'"{value}"' for value in values(name)) or taken
        limits = f" {bounds(name)}" if bounds(name) else ""
        default = f"`{option.default!r}`".replace("'", '"')
        words = words.replace(" | ", " or ")  # how a bar in code is escaped inside a table differs between readers
        cells = f"`{name}`", f"`{shown(name)['flag']}`", f"`{words}`{limits}", default, str(option.description)
        lines.append(_cells(*cells))
    return "\n".join(lines)


def _walk(commands: Mapping[str, Any], within: str) -> Iterator[tuple[str, Any]]:
    for name, command in commands.items():
        if inner := getattr(command, "commands", None):
            yield from _walk(inner, f"{within} {name}")
        else:
            yield f"{within} {name}", command


def _usage(name: str, command: Any) -> str:
    words = [str(p.metavar or (p.name or "").upper()) for p in command.params if p.param_type_name == "argument"]
    return " ".join([name, *words, "[OPTIONS]"])


def _section(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return "argument"
    return str(getattr(parameter, "rich_help_panel", None) or "option")


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        flags, default = f"`{parameter.metavar or parameter.name.upper()}`", ""
    else:
        flags = ", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))
        if parameter.metavar and not parameter.is_flag:
            flags += f" *{parameter.metavar}*"
        given = parameter.default
        is_empty = given is None or given is False or given in ((), []) or callable(given)
        default = "" if is_empty else "on" if given is True else f"`{given}`"
    return _cells(flags, parameter.help or "", default)


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


# Python


def api(package: Any, name: str) -> str:
    """A function, a class or the classes of a module, as Markdown.

    Args:
        package: somareg as griffe reads it.
        name: as a user imports it, such as "somareg.register" or "somareg.types.Result".
    """
    shown = _find(package, name)
    if shown.is_module:
        classes = [each for each in shown.classes.values() if not each.name.startswith("_")]
        return "\n\n".join(f"**`{each.name}`** (`{each.bases[-1]}`): {_docstring(each)}" for each in classes)
    lines = [f"### {name}", ""]
    if shown.is_function:
        lines += _signature(name, shown)
    lines.append(_docstring(shown))
    for member in shown.members.values() if shown.is_class else ():
        if not member.name.startswith("_") and member.has_docstring and member.name != "as_dict":
            lines += ["", f"#### {shown.name}.{member.name}", ""]
            lines += _signature(member.name, member) if member.is_function else _property(member)
            lines.append(_docstring(member))
    return "\n".join(lines)


def _find(package: Any, name: str) -> Any:
    """The object behind a public name: `somareg` hides where its functions live."""
    import somareg

    path = name.removeprefix("somareg.")
    if home := somareg._HOME.get(path):
        path = f"{home.removeprefix('somareg.')}.{path}"
    shown = package[path]
    return shown.final_target if shown.is_alias else shown


def _signature(name: str, function: Any) -> list[str]:
    parameters, is_keyword = [], False
    for each in function.parameters:
        if each.name == "self":
            continue
        if each.kind.value == "keyword-only" and not is_keyword:
            parameters.append("*")
            is_keyword = True
        stars = {"variadic positional": "*", "variadic keyword": "**"}.get(each.kind.value, "")
        is_keyword = is_keyword or stars == "*"
        kind = f": {each.annotation}" if each.annotation and "Unpack" not in str(each.annotation) else ""
        default = f"{' = ' if kind else '='}{_value(each.default)}" if each.default is not None and not stars else ""
        parameters.append(f"{stars}{each.name}{kind}{default}")
    result = f" -> {function.returns}" if function.returns else ""
    line = f"{name}({', '.join(parameters)}){result}"
    if len(line) > WIDTH:
        line = "\n".join([f"{name}(", *(f"    {each}," for each in parameters), f"){result}"])
    return [f"```python\n{line}\n```", ""]


def _value(default: Any) -> str:
    """A default as it is written, or the value of the constant that it names."""
    if isinstance(default, griffe.ExprName):
        constant = default.parent.members.get(default.name)
        constant = constant.final_target if constant is not None and constant.is_alias else constant
        if constant is not None and constant.is_attribute:
            return str(constant.value)
    return str(default)


def _property(member: Any) -> list[str]:
    return [f"`{member.name}: {member.annotation}`", ""] if member.annotation else []


def _docstring(shown: Any) -> str:
    """The prose of a docstring, then its sections as lists."""
    parsed = shown.docstring.parse("google", warn_unknown_params=False, warn_missing_types=False, warnings=False)
    parts = []
    for section in parsed:
        kind = section.kind.value
        if kind == "text":
            parts.append(_text(section.value))
        elif kind == "raises":
            rows = [f"* {_errors(each.annotation)}: {_line(each.description)}" for each in section.value]
            parts.append("\n".join(["**Raises**", "", *rows]))
        elif kind in ("returns", "yields"):
            parts.append(f"**{TITLES[kind]}** " + _line(" ".join(each.description for each in section.value)))
        elif kind in TITLES:
            rows = [f"* {_names(_all_names(each))}: {_line(each.description)}" for each in section.value]
            parts.append("\n".join([f"**{TITLES[kind]}**", "", *rows]))
        else:
            raise SystemExit(f"error: {shown.path}: no rule for the section '{kind}' of its docstring")
    return "\n\n".join(parts)


def _all_names(attribute: Any) -> str:
    """griffe takes what follows the first of several names for a type."""
    more = str(attribute.annotation).strip("()")
    return f"{attribute.name} {more}" if attribute.name.endswith(",") else attribute.name


def _names(names: str) -> str:
    return ", ".join(f"`{name.strip()}`" for name in names.split(","))


def _errors(annotation: Any) -> str:
    return _names(str(annotation).strip("()"))


def _line(text: str) -> str:
    """One line, so that a list stays one."""
    return " ".join(text.split())


def _text(text: str) -> str:
    """Paragraphs and lists of a docstring, without its indentation."""
    return "\n".join(line.strip() if not line.strip().startswith(("- ", "* ")) else line for line in text.split("\n"))


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit("error: python tools/reference.py takes no argument")
    for name in PAGES:
        path = ROOT / name
        path.write_text(current(path.read_text(encoding="utf-8")), encoding="utf-8")
