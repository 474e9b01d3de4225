"""Safe reading of YAML files, each merged over the one that it extends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from somareg.errors import ConfigError, ReadError, UnsupportedError
from somareg.io.text import read_text

INSTALL = "pip install 'somareg[train]'"
EXTENDS = "extends"
SUFFIXES = (".yaml", ".yml")
MAX_MIB, MAX_DEPTH = 0.25, 20

# YAML 1.1 reads 1e-4 as text, because it has no dot, although it is meant as a number.
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)")
# YAML 1.1 reads off, on, yes and no as truth values; here they are words, such as that of fge.filters.
_BOOL = "tag:yaml.org,2002:bool"


def read_extended(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a file and merge it over the file that it extends.

    Messages about an extended file do not quote it, because a stranger's configuration may name any file.

    Args:
        path: of the file.
        above: the files that extend this one.

    Raises:
        ConfigError: a file is missing, too large, not YAML, uses aliases, or extends itself.
        UnsupportedError: PyYAML is not installed.
    """
    if len(above) > MAX_DEPTH:
        raise ConfigError(f"configuration {path} is below {MAX_DEPTH} others; merge some of them")
    if path.resolve() in above:
        raise ConfigError(f"configuration {path} extends itself; remove '{EXTENDS}' from one of the files")
    mapping = _read_yaml(path, quote=not above)
    base = mapping.pop(EXTENDS, None)
    if base is None:
        return mapping
    if not isinstance(base, str):
        raise ConfigError(f"{path}: {EXTENDS} is {str(base)[:80]}; give one YAML file, relative to this one")
    below = path.parent / base
    if Path(base).is_absolute() or not _is_config(below):
        raise ConfigError(
            f"{path}: {EXTENDS} names {below}, which is no file of a configuration (.yaml); give a path "
            f"relative to {path.name}"
        )
    return _merged(read_extended(below, (*above, path.resolve())), mapping)


def _is_config(path: Path) -> bool:
    """Whether a path is a file with a configuration's suffix, also after resolving links."""
    try:
        return path.is_file() and {path.suffix, path.resolve().suffix} <= set(SUFFIXES)
    except (OSError, ValueError):
        return False


def _merged(below: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `below`, mappings key by key."""
    result = dict(below)
    for key, value in over.items():
        lower = result.get(key)
        if isinstance(lower, dict) and isinstance(value, dict):
            value = _merged(lower, value)
        result[key] = value
    return result


def _read_yaml(path: Path, *, quote: bool) -> dict[str, Any]:
    try:
        text = read_text(path, "configuration", MAX_MIB)
    except ReadError as error:
        raise ConfigError(str(error)) from error
    mapping = parse(text, str(path), quote=quote)
    if mapping is None:
        return {}
    if not isinstance(mapping, dict):
        raise ConfigError(f"configuration {path} is not a mapping of names to values")
    return mapping


def parse(text: str, where: str, *, quote: bool = True) -> Any:
    """Parse a YAML text.

    Args:
        text: YAML without aliases.
        where: source of the text, for messages.
        quote: whether messages may quote the text.

    Raises:
        ConfigError: it is not YAML, uses aliases or is nested too deep.
        UnsupportedError: PyYAML is not installed.
    """
    yaml, loader = _yaml()
    try:
        return yaml.load(text, loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        problem = getattr(error, "problem", None) or "it holds characters that no YAML has"
        raise ConfigError(f"{where} is not YAML{place}{': ' + problem if quote else ''}") from (
            error if quote else None
        )
    except RecursionError:
        raise ConfigError(f"{where} is nested too deep for a configuration") from None
    except (ValueError, TypeError, AttributeError, OverflowError) as error:  # of a value that is not of its kind
        raise ConfigError(f"{where} holds a value that cannot be read{f': {error}' if quote else ''}") from (
            error if quote else None
        )


@lru_cache(maxsize=1)
def _yaml() -> tuple[Any, Any]:
    """PyYAML, and its safe loader with numbers such as 1e-4 and words such as off."""
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise UnsupportedError(f"training is configured in YAML and PyYAML is not installed; {INSTALL}") from error

    class Loader(yaml.SafeLoader):  # type: ignore[misc,unused-ignore]
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):  # a few lines of aliases can expand to gigabytes
                problem = f"aliases (*name) are not read; write the value out, or share a file by {EXTENDS}"
                raise yaml.composer.ComposerError(None, None, problem, self.peek_event().start_mark)
            return super().compose_node(parent, index)

        def construct_yaml_int(self, node: Any) -> int:
            number: int = super().construct_yaml_int(node)
            if abs(number) >= 1 << 63:
                raise ValueError("a whole number is too large")
            return number

    plain = Loader.yaml_implicit_resolvers.items()
    Loader.yaml_implicit_resolvers = {mark: [each for each in kinds if each[0] != _BOOL] for mark, kinds in plain}
    Loader.add_implicit_resolver(_BOOL, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^{_NUMBER.pattern}$"), list("-+0123456789."))
    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
    return yaml, Loader
