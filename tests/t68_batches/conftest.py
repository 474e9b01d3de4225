"""What these tests share with those of a single pair."""

from tests.t65_register.conftest import package

__all__ = ["package"]
