"""The command line, whose last line a failure is."""

from tests.t80_cli.conftest import cli

__all__ = ["cli"]
