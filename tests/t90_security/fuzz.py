"""A fuzzer: valid files of every format, spoilt by seeded dice, and read.

Whatever a file holds, a public call ends in success or in one of `somareg.errors`, in bounded time and memory, and no
file has changed. `make fuzz MINUTES=60` looks for what breaks that and keeps the files that did.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from somareg.errors import InternalError, SomaregError
from tests.t90_security.boxed import boxed
from tests.t90_security.fuzz_subjects import SUBJECTS

MOST_BYTES, MOST_S = 1e9, 20
READS_ONLY = ("journal",)
"""Of these a call may cut what was half-written: it opens them to go on writing."""

_NUMBERS = [-1, 0, 1, 7, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63]
_WORDS = [
    *(b"nan", b"inf", b"-inf", b"1e999", b"-1", b"0", b"1e-320", b"9" * 400, b"99999999999", b"0x10", b"true", b"null"),
    *(
        b'""',
        b"{}",
        b"[]",
        b"[[[[",
        b"\0",
        b"\xff\xfe",
        b"\n",
        b",,,,",
        b'"',
        b"'",
        b"<",
        b"&amp;",
        b"../../etc/passwd",
    ),
    *(
        b"/vsicurl/http://127.0.0.1:9/a.tif",
        b"*a",
        b"&a",
        b"<<:",
        b"!!python/object:os.system",
        b"EPSG:4326",
        b"EPSG:0",
    ),
    *("\u2028".encode(), "１２".encode(), b"%s%n", b"1_0", b"'; DROP TABLE tie_points; --"),
]
_TOKEN = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|[A-Za-z_]{2,}")


def spoilt(content: bytes, dice: np.random.Generator) -> bytes:
    """A file's content with one to four things done to it."""
    body = bytearray(content)
    for _ in range(int(dice.integers(1, 5))):
        _WAYS[int(dice.integers(len(_WAYS)))](body, dice)
    return bytes(body)


def _at(body: bytearray, dice: np.random.Generator) -> int:
    """A place, every other time near the start, where headers are."""
    limit = min(len(body), 200) if dice.random() < 0.5 else len(body)
    return int(dice.integers(max(1, limit)))


def _flip(body: bytearray, dice: np.random.Generator) -> None:
    for _ in range(int(dice.integers(1, 9))):
        at = _at(body, dice)
        if at < len(body):
            body[at] ^= 1 << int(dice.integers(8))


def _number(body: bytearray, dice: np.random.Generator) -> None:
    at, size = _at(body, dice), int(dice.choice([1, 2, 4, 8]))
    value = int(_NUMBERS[int(dice.integers(len(_NUMBERS)))]) % (1 << 8 * size)
    body[at : at + size] = value.to_bytes(size, "little" if dice.random() < 0.7 else "big")


def _cut(body: bytearray, dice: np.random.Generator) -> None:
    del body[_at(body, dice) :]


def _lose(body: bytearray, dice: np.random.Generator) -> None:
    at = _at(body, dice)
    del body[at : at + int(dice.integers(1, 64))]


def _repeat(body: bytearray, dice: np.random.Generator) -> None:
    at = _at(body, dice)
    part = bytes(body[at : at + int(dice.integers(1, 256))])
    body[at:at] = part * int(dice.choice([1, 2, 50, 2000]))


def _insert(body: bytearray, dice: np.random.Generator) -> None:
    at = _at(body, dice)
    body[at:at] = dice.bytes(int(dice.integers(1, 32)))


def _word(body: bytearray, dice: np.random.Generator) -> None:
    """Another word or number in place of one; in texts that is what gets past the parser."""
    tokens = list(_TOKEN.finditer(bytes(body)))
    if not tokens:
        return
    one = tokens[int(dice.integers(len(tokens)))]
    others = [tokens[int(dice.integers(len(tokens)))][0], *_WORDS]
    body[one.start() : one.end()] = others[0 if dice.random() < 0.3 else int(dice.integers(1, len(others)))]


_WAYS = (_flip, _number, _cut, _lose, _repeat, _insert, _word, _word, _word)


@dataclass(frozen=True)
class Case:
    """One spoilt file; the same three always make the same one."""

    subject: str
    seed: int
    number: int

    def lay(self, valid: Path, folder: Path) -> None:
        """A copy of the valid files in which one is spoilt."""
        shutil.copytree(valid, folder)
        dice = np.random.default_rng([self.seed, zlib.crc32(self.subject.encode()), self.number])
        victims = SUBJECTS[self.subject].victims
        victim = folder / victims[int(dice.integers(len(victims)))]
        victim.write_bytes(spoilt(victim.read_bytes(), dice))


@dataclass(frozen=True)
class Problem:
    """What a case broke."""

    case: Case
    what: str


def hunt(subject: str, seed: int, numbers: range, place: Path, per_box: int = 50) -> Iterator[Problem]:
    """What some cases of a subject break.

    Args:
        subject: of `SUBJECTS`.
        seed: of the dice.
        numbers: of the cases.
        place: an empty folder.
        per_box: cases that share a child process; where one breaks something they are tried one by one.
    """
    valid = place / "valid"
    valid.mkdir()
    SUBJECTS[subject].make(valid)
    for start in range(numbers.start, numbers.stop, per_box):
        cases = [Case(subject, seed, number) for number in range(start, min(start + per_box, numbers.stop))]
        if together(cases, valid, place) is None:
            continue
        for case in cases:
            if what := together([case], valid, place):
                yield Problem(case, what)


def together(cases: list[Case], valid: Path, place: Path) -> str | None:
    """What some cases broke in one child process, None for nothing."""
    work = place / "work"

    def run() -> None:
        for case in cases:
            shutil.rmtree(work, ignore_errors=True)
            case.lay(valid, work)
            before = contents(work)
            begin = time.process_time()
            end = None
            try:
                SUBJECTS[case.subject].read(work)
            except SomaregError as error:
                end = error
            spent = time.process_time() - begin
            if isinstance(end, InternalError) or (end is not None and "\n" in str(end)):
                raise AssertionError(f"{type(end).__name__}: {end}") from end
            if spent > MOST_S:
                raise AssertionError(f"{spent:.0f} s of the processor")
            if case.subject not in READS_ONLY and contents(work) != before:
                raise AssertionError("a file has changed, or there is another one")

    end = boxed(run, MOST_BYTES, MOST_S * len(cases) if len(cases) == 1 else MOST_S + 2 * len(cases))
    shutil.rmtree(work, ignore_errors=True)
    return f"{end.kind}: {end.message}" if end.is_fault or end.kind != "done" else None


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def keep(problem: Problem, out: Path) -> Path:
    """The files that broke something, and what they broke, in a folder of their own."""
    case = problem.case
    folder = out / f"{case.subject.replace(' ', '-')}-{case.seed}-{case.number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as place:
        valid = Path(place) / "valid"
        valid.mkdir()
        SUBJECTS[case.subject].make(valid)
        case.lay(valid, folder / "files")
    (folder / "problem.txt").write_text(f"{case}\n{problem.what}\n")
    return folder


def main() -> int:
    """Hunt until the time is over; exit code 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="folder for files that break something")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="another one is another hunt")
    parser.add_argument("--only", default="", help="subjects whose name holds this")
    asked = parser.parse_args()
    subjects = [name for name in SUBJECTS if asked.only in name]
    end, tried, found, per_round = time.monotonic() + 60 * asked.minutes, 0, 0, 100
    print(f"seed {asked.seed}, {len(subjects)} formats, {asked.minutes:g} minutes", flush=True)
    while subjects and time.monotonic() < end:
        for subject in subjects:
            with tempfile.TemporaryDirectory() as place:
                for problem in hunt(subject, asked.seed, range(tried, tried + per_round), Path(place)):
                    found += 1
                    print(f"{keep(problem, asked.out)}: {problem.what.splitlines()[0][:200]}", flush=True)
            if time.monotonic() >= end:
                break
        tried += per_round
    print(f"{tried} cases of each format, {found} problems", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
