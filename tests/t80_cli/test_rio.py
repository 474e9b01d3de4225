"""`rio somareg`: rasterio's command finds the plugin, hands everything over, and pays next to nothing for it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from rasterio.rio.main import main_group

import somareg
from somareg.cli.sample import sample_pair

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
PLUGIN = "somareg.cli.rio:somareg"


@pytest.fixture(scope="module")
def plugin() -> click.Command:
    """What the entry point names."""
    if PROJECT.exists():
        groups = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["entry-points"]
        assert groups == {"rasterio.rio_plugins": {"somareg": PLUGIN}}
    module, _, name = PLUGIN.partition(":")
    command = getattr(importlib.import_module(module), name)
    assert isinstance(command, click.Command)
    return command


def rio(plugin: click.Command, *arguments: object) -> Result:
    """Run `rio somareg ARGUMENTS` in this process."""
    group = click.Group(main_group.name, {**main_group.commands, "somareg": plugin}, params=main_group.params)
    group.callback = main_group.callback
    return CliRunner().invoke(group, ["somareg", *map(str, arguments)])


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_is_that_of_the_command(plugin: click.Command, arguments: tuple[str, ...]) -> None:
    done = rio(plugin, *arguments)
    assert done.exit_code == 0
    assert done.output.startswith("Usage: somareg ") and "register" in done.output


def test_options_of_commands_are_handed_over(plugin: click.Command) -> None:
    assert rio(plugin, "--version").output == f"somareg {somareg.__version__}\n"
    shown = rio(plugin, "warp", "--help")  # --help of rio itself would end it earlier
    assert shown.exit_code == 0 and "--resampling" in shown.output


def test_exit_codes_and_messages_are_those_of_the_command(plugin: click.Command) -> None:
    wrong = rio(plugin, "registr")
    assert wrong.exit_code == 2 and "unknown command 'registr'" in wrong.stderr
    lost = rio(plugin, "assess", "gone.tif", sample_pair()[1])
    assert lost.exit_code == 1 and "gone.tif" in lost.stderr


def test_a_pair_is_judged(plugin: click.Command) -> None:
    """Rasterio is imported long before torch here, and the exit code is the verdict's."""
    done = rio(plugin, "assess", *sample_pair(), "--device", "cpu")
    assert done.exit_code == 3, done.output
    assert done.stdout.lstrip().startswith("Review: ")


def test_rio_finds_the_plugin_and_loads_little(tmp_path: Path) -> None:
    """An installed entry point, as pip writes it, beside this checkout."""
    info = tmp_path / "somareg_plugin-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somareg-plugin\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[rasterio.rio_plugins]\nsomareg = {PLUGIN}\n")
    code = (
        "import sys\n"
        "from rasterio.rio.main import main_group\n"
        "before = set(sys.modules)\n"
        "assert 'somareg.cli.rio' in before, 'not found'\n"
        "print([n for n in ('torch', 'cv2', 'typer', 'rich', 'pydantic', 'somareg.cli.main') if n in before])\n"
        "main_group(['somareg', '--version'], prog_name='rio')\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(somareg.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", f"somareg {somareg.__version__}"]
