"""Commands ask the C library to keep freed memory, and OpenMP's threads not to spin; both only where they can."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from somareg.runtime import memory, threads


def asked(monkeypatch: pytest.MonkeyPatch, library: Any) -> list[tuple[int, int]]:
    calls: list[tuple[int, int]] = []
    if library == "gnu":
        library = SimpleNamespace(mallopt=lambda option, value: calls.append((option, value)) or 1)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    memory.keep()
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


def test_what_was_freed_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(malloc_trim=calls.append))
    memory.release()
    assert calls == [0]
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    memory.release()
    assert calls == [0]


@pytest.mark.parametrize(("given", "expected"), [({}, threads.SPINS), ({"GOMP_SPINCOUNT": "77"}, "77")])
def test_threads_are_told_before_torch_is_imported(given: dict[str, str], expected: str) -> None:
    """The OpenMP library says itself what it was told, when torch loads it."""
    names = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"
    environment = {key: value for key, value in os.environ.items() if key not in names}
    code = (
        "from somareg.cli.session import session\nwith session(as_json=False, verbose=False, quiet=False): import torch"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **given, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    if "GOMP_" not in told.stderr:
        pytest.skip("torch came with another OpenMP library than the GNU one")
    assert f"GOMP_SPINCOUNT = '{expected}'" in told.stderr


def test_a_wait_policy_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    threads.wait_politely()
    assert "GOMP_SPINCOUNT" not in os.environ
