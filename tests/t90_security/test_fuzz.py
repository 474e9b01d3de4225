"""A few cases of the fuzzer for each format, always the same ones; `make fuzz` looks further."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from somareg.errors import InputError, InternalError
from tests.t90_security import fuzz
from tests.t90_security.fuzz_subjects import SUBJECTS, Subject

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_DATA")

CASES = 60


@pytest.mark.parametrize("name", SUBJECTS)
def test_valid_files_are_read(name: str, tmp_path: Path) -> None:
    """Else the fuzzer would spoil what is refused as it is."""
    pytest.importorskip("yaml")
    SUBJECTS[name].make(tmp_path)
    for victim in SUBJECTS[name].victims:
        assert (tmp_path / victim).is_file()
    SUBJECTS[name].read(tmp_path)


@pytest.mark.parametrize("name", SUBJECTS)
def test_spoilt_files_end_in_one_line(name: str, tmp_path: Path) -> None:
    problems = list(fuzz.hunt(name, 0, range(CASES), tmp_path))
    assert not problems, problems[0]


# --- the fuzzer itself ------------------------------------------------------------------------------------------------


def forget(folder: Path) -> None:
    raise KeyError("a fault")


def wrap(folder: Path) -> None:
    raise InternalError("a fault")


def two_lines(folder: Path) -> None:
    raise InputError("one\ntwo")


def write(folder: Path) -> None:
    (folder / "a.txt").write_text("changed")


def litter(folder: Path) -> None:
    (folder / "a.txt.aux.xml").write_text("left")


def run_on(folder: Path) -> None:
    while True:
        time.process_time()


def eat(folder: Path) -> None:
    np.ones(10**9)


def die(folder: Path) -> None:
    import ctypes

    ctypes.string_at(0)


@pytest.mark.parametrize("read", [forget, wrap, two_lines, write, litter, run_on, eat, die])
def test_the_fuzzer_sees(read: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(lambda folder: (folder / "a.txt").write_text("1 2 3"), ("a.txt",), read)  # type: ignore[arg-type]
    monkeypatch.setitem(SUBJECTS, "a fault", subject)
    monkeypatch.setattr(fuzz, "MOST_S", 1)
    place = tmp_path / "place"
    place.mkdir()
    found = list(fuzz.hunt("a fault", 3, range(2), place, per_box=2))
    assert [problem.case.number for problem in found] == [0, 1]
    kept = fuzz.keep(found[1], tmp_path / "out")
    assert found[1].what.splitlines()[0] in (kept / "problem.txt").read_text()
    dice = fuzz.Case("a fault", 3, 1)
    dice.lay(place / "valid", tmp_path / "again")
    assert (tmp_path / "again" / "a.txt").read_bytes() == (kept / "files" / "a.txt").read_bytes() != b"1 2 3"


def test_dice_of_one_seed_fall_alike() -> None:
    body = bytes(range(256)) * 4
    spoilt = [fuzz.spoilt(body, np.random.default_rng(seed)) for seed in (*range(40), *range(40))]
    assert spoilt[:40] == spoilt[40:]
    assert len(set(spoilt)) > 35
