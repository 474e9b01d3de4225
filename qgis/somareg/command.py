"""Where the command `somareg` is. Nothing of QGIS is needed here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

SETTING = "SOMAREG_COMMAND"
"""Of Processing, and the environment variable that stands in for it."""

INSTALL = (
    "The command somareg was not found. Install it in a Python 3.11 or newer of its own, for example with "
    "'python3 -m venv ~/.venv' and '~/.venv/bin/pip install somareg'; if it is installed, name its file: Settings > "
    "Options > Processing > Providers > somareg, or the environment variable SOMAREG_COMMAND."
)

_ENVIRONMENTS = (".venv", "venv", "somareg/.venv", ".virtualenvs/somareg", ".local/share/uv/tools/somareg")
_CONDAS = ("miniforge3", "mambaforge", "miniconda3", "anaconda3", "micromamba")


class NotFoundError(Exception):
    """There is no command; the message says how to get or name it."""


def find(told: str, environment: Mapping[str, str] | None = None, home: Path | None = None) -> list[str]:
    """The command as the beginning of a list of arguments.

    Args:
        told: what the user named: the command's file, or the Python that it is installed in; "" for nothing.
        environment: variables; those of this process by default.
        home: folder of the user.

    Raises:
        NotFoundError: it is nowhere, or what was named is no program.
    """
    variables = os.environ if environment is None else environment
    named = told.strip() or variables.get(SETTING, "").strip()
    if named:
        file = Path(named).expanduser()
        if not _is_program(file):
            raise NotFoundError(f"The command somareg was named as '{named}', which is no program; name another file.")
        return _called(file)
    for file in places(variables, Path.home() if home is None else home):
        if _is_program(file):
            return _called(file)
    raise NotFoundError(INSTALL)


def places(variables: Mapping[str, str], home: Path) -> Iterator[Path]:
    """Where the command may be: on the path, where pip, pipx and uv put it, in environments of venv and conda."""
    name, folder = ("somareg.exe", "Scripts") if sys.platform == "win32" else ("somareg", "bin")
    # Not by shutil.which: on Windows that begins in the folder where QGIS runs, which may hold anybody's data.
    for each in variables.get("PATH", "").split(os.pathsep):
        if each and Path(each).is_absolute():
            yield Path(each) / name
    yield home / ".local" / "bin" / name
    for each in _ENVIRONMENTS:
        yield home / each / folder / name
    for each in _CONDAS:
        yield home / each / folder / name
        yield from sorted(home.glob(f"{each}/envs/*/{folder}/{name}"))
    if sys.platform == "win32":
        yield from sorted(Path(variables.get("APPDATA", home)).glob(f"Python/Python3*/Scripts/{name}"))
    elif sys.platform == "darwin":
        yield from sorted(home.glob(f"Library/Python/3.*/bin/{name}"))
        yield Path("/opt/homebrew/bin") / name
        yield Path("/usr/local/bin") / name


def _called(file: Path) -> list[str]:
    is_python = file.name.lower().startswith("python")
    return [str(file), "-m", "somareg"] if is_python else [str(file)]


def _is_program(file: Path) -> bool:
    try:
        return file.is_file() and os.access(file, os.X_OK)
    except OSError:
        return False
