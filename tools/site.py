"""What mkdocs needs beyond docs/: the pages that live elsewhere in the repository, and the list of commands.

A link such as `../configs/README.md` must work where the repository is browsed and on the site. So pages from outside
docs/ keep their paths on the site, and links are rewritten from the one layout to the other. A link to a file that is
in the repository but not on the site keeps its words and loses its target; a link to nothing fails the strict build.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "DESIGN.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "benchmarks/calibration.md",
    "configs/README.md",
)
COMMANDS = "<!-- commands -->"
OPTIONS = "<!-- options of register -->"
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    for path in OUTSIDE:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the site's layout, and put the commands and the table of options in their places."""
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, commands_list())
    if OPTIONS in markdown:
        markdown = markdown.replace(OPTIONS, options_table())
    return rewrite_links(markdown, page.file.src_uri)


def rewrite_links(markdown: str, site_path: str) -> str:
    """Links of a page, from the repository's layout to the site's.

    Args:
        markdown: text of the page.
        site_path: where the page lies on the site, such as "training.md" or "configs/README.md".
    """
    here = site_path if site_path in OUTSIDE else f"docs/{site_path}"

    def rewritten(match: re.Match[str]) -> str:
        words, link, anchor = match.group(1), match.group(2), match.group(3) or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
        if target in OUTSIDE:
            on_site = target
        elif target.startswith("docs/"):
            on_site = target.removeprefix("docs/")
        else:
            return words if (ROOT / target).exists() else match.group(0)
        return f"[{words}]({posixpath.relpath(on_site, posixpath.dirname(site_path) or '.')}{anchor})"

    return _LINK.sub(rewritten, markdown)


def commands_list() -> str:
    """The command line as Markdown, read from the program itself."""
    from somareg.cli.main import COMMANDS, EPILOG

    lines = [EPILOG, ""]
    for name, command in _walk({name: entry.load(name) for name, entry in COMMANDS.items()}, "somareg"):
        lines += [f"## {name}", "", (command.help or "").strip(), "", f"```text\n{_usage(name, command)}\n```", ""]
        lines += ["| option | meaning | default |", "|---|---|---|"]
        lines += [_row(parameter) for parameter in command.params if parameter.name != "help"]
        lines.append("")
    return "\n".join(lines)


def options_table() -> str:
    """The fields of `RegisterConfig`, group by group."""
    from somareg.cli.flags import bounds, shown, values
    from somareg.config import RegisterConfig
    from somareg.config.arguments import RegisterOptions

    lines = ["| option | flag | values | default | meaning |", "|---|---|---|---|---|"]
    for name, option in RegisterConfig.model_fields.items():
        taken = RegisterOptions.__annotations__[name].__forward_arg__
        told = ", ".join(f'"{value}"' for value in values(name)) or taken
        limits = f" {bounds(name)}" if bounds(name) else ""
        default = f"`{option.default!r}`".replace("'", '"')
        cells = f"`{name}`", f"`{shown(name)['flag']}`", f"`{told}`{limits}", default, str(option.description)
        lines.append("| " + " | ".join(cells) + " |")  # a bar inside backticks ends no cell
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


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        flags, default = f"`{parameter.metavar or parameter.name.upper()}`", ""
    else:
        flags = ", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))
        if parameter.metavar and not parameter.is_flag:
            flags += f" *{parameter.metavar}*".replace("|", "\\|")
        given = parameter.default
        nothing = given is None or given is False or given in ((), []) or callable(given)
        default = "" if nothing else "on" if given is True else str(given)
    return f"| {flags} | {(parameter.help or '').replace('|', chr(92) + '|')} | {default} |"
