"""Commands ask the C library to keep freed memory; nothing breaks where there is no such library."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

from somareg.cli import memory


def asked(monkeypatch: pytest.MonkeyPatch, library: Any) -> list[tuple[int, int]]:
    calls: list[tuple[int, int]] = []
    if library == "gnu":
        library = SimpleNamespace(mallopt=lambda option, value: calls.append((option, value)) or 1)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    memory.keep_freed_memory()
    return calls


def test_the_gnu_library_is_asked_to_keep_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    assert (-1, memory.KEEP_BYTES) in asked(monkeypatch, "gnu")


def test_the_environment_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert asked(monkeypatch, "gnu") == []


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    assert asked(monkeypatch, SimpleNamespace()) == []
