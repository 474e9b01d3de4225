"""A run that was killed goes on with the same result; a journal believes nothing that is damaged or not its own."""

from __future__ import annotations

import base64
import errno
import json
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from somareg import SceneResult
from somareg.errors import OutputError
from somareg.io import records
from somareg.io.lock import LOCK_NAME
from somareg.register import workspace
from somareg.register.tiles import journal
from somareg.register.tiles.journal import Journal
from somareg.register.tiles.tile import TileResult
from tests.t64_tiles.conftest import Pair, run

KILLED = """
import os, signal, sys
from tests.t64_tiles.conftest import run
def progress(stage, share):
    if stage.startswith("tile 4/"):
        os.kill(os.getpid(), signal.SIGKILL)
run(*sys.argv[1:], progress=progress)
"""


@pytest.fixture
def killed(small: Pair, tmp_path: Path) -> Path:
    """The folder of a run that was killed after four of nine tiles."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(small.moving), str(small.reference), str(out)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert {path.name for path in out.iterdir()} == {workspace.WORK, LOCK_NAME}
    return out


class Interrupted(Exception):
    pass


def stop_at_first_tile(stage: str, share: float) -> None:
    if stage.startswith("tile"):
        raise Interrupted(stage)


def test_resume_gives_the_same(small: Pair, small_result: SceneResult, killed: Path) -> None:
    with (killed / workspace.WORK / workspace.JOURNAL).open("ab") as stream:
        stream.write(b'{"tile":{"index":7,')  # half a record, as a kill leaves it
    with pytest.raises(OutputError, match="--resume"):
        run(small.moving, small.reference, killed)
    with pytest.raises(OutputError, match=r"something else.*options"):
        run(small.moving, small.reference, killed, resume=True, seed=3)
    with pytest.raises(Interrupted, match="tile 0/9"):  # in a copy, begun anew
        other = shutil.copytree(killed, killed.with_name("other"))
        run(small.moving, small.reference, other, overwrite=True, progress=stop_at_first_tile)
    stages: list[str] = []
    again = run(small.moving, small.reference, killed, resume=True, progress=lambda stage, share: stages.append(stage))
    assert next(stage for stage in stages if stage.startswith("tile")) == "tile 4/9"
    assert sum(stage.startswith("tile ") for stage in stages) == 6
    names = ("tie_points.geojson", "gcps.points", "displacement.tif", "aligned.tif")
    for name in names:
        assert (killed / name).read_bytes() == (small_result.folder / name).read_bytes(), name
    assert again.verdict == small_result.verdict
    assert not (killed / workspace.WORK).exists()


def tile(index: int) -> TileResult:
    rng = np.random.default_rng(index)
    return TileResult(
        index,
        "matched",
        points=rng.normal(size=(5, 2)),
        beyond=rng.normal(size=(5, 2)),
        precision=rng.uniform(size=5),
        hit=np.ones(5),
        figures={"probability": 1 / 3, "correlation_before": float("nan"), "split_half": float("inf")},
    )


def same(a: TileResult, b: TileResult) -> bool:
    arrays = all(
        getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in ("points", "beyond", "precision", "hit")
    )
    return arrays and repr(a.figures) == repr(b.figures) and (a.index, a.status) == (b.index, b.status)


def fill(path: Path, count: int) -> None:
    kept = Journal(path, {"inputs": "these", "nodata": float("nan")})
    kept.note("global", {"matrix": [0.1, 1 / 3]})
    for index in range(count):
        kept.keep(tile(index))


def test_journal_gives_back_every_bit(tmp_path: Path) -> None:
    fill(tmp_path / "journal", 3)
    journal = Journal(tmp_path / "journal", {"inputs": "these", "nodata": float("nan")})
    assert journal.facts == {"global": {"matrix": [0.1, 1 / 3]}}
    assert sorted(journal.tiles) == [0, 1, 2]
    assert all(same(journal.tiles[i], tile(i)) for i in range(3))


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_journal_drops_what_is_damaged_and_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal"
    fill(path, 3)
    path.write_bytes(path.read_bytes()[:-cut])
    binding = {"inputs": "these", "nodata": float("nan")}
    journal = Journal(path, binding)
    assert sorted(journal.tiles) == [0, 1]
    journal.keep(tile(2))
    journal = Journal(path, binding)
    assert same(journal.tiles[2], tile(2))


def test_journal_does_not_believe_a_flipped_bit(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    fill(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"e", b"f", 1)
    path.write_bytes(b"".join(lines))
    journal = Journal(path, {"inputs": "these", "nodata": float("nan")})
    assert sorted(journal.tiles) == [0]  # what follows is not believed either


def test_journal_is_bound_to_its_inputs(tmp_path: Path) -> None:
    fill(tmp_path / "journal", 1)
    with pytest.raises(OutputError, match="inputs changed"):
        Journal(tmp_path / "journal", {"inputs": "others", "nodata": float("nan")})


def line(record: object) -> bytes:
    text = record if isinstance(record, str) else json.dumps(record)
    if not text.endswith("}") or text == "{}":
        return f"{text}\n".encode()
    return f'{text[:-1]},"crc32":"{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def kept(**changes: object) -> dict[str, object]:
    return {"tile": {**journal._to_json(tile(0)), **changes}}


BINDING = {"binding": {"format": journal.FORMAT, "inputs": "these"}}
NONSENSE: list[object] = [
    *("[]", "null", "7", '"text"', {}, {"tile": []}, {"tile": {}}, {"tile": "a"}, {"fact": 3}, {"fact": None}),
    *(kept(index=-1), kept(index=None), kept(index="x"), kept(index=1e400), kept(status="done"), kept(status=None)),
    *(kept(points="!!"), kept(points="AAAA"), kept(points=3), kept(hit=""), kept(precision=journal._to_json(tile(1)))),
    *(kept(figures=[]), kept(figures={}), kept(figures={"probability": "a"}), kept(figures={"probability": 7})),
    kept(points=base64.b64encode(np.full((5, 2), np.nan).tobytes()).decode()),
]


@pytest.mark.parametrize("record", NONSENSE, ids=range(len(NONSENSE)))
def test_journal_does_not_believe_nonsense_that_has_a_checksum(tmp_path: Path, record: object) -> None:
    path = tmp_path / "out" / workspace.WORK / "journal"
    path.parent.mkdir(parents=True)
    path.write_bytes(line(BINDING) + line(record))
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"out holds an unfinished run that is damaged .*--overwrite"):
        Journal(path, {"inputs": "these"})
    assert path.read_bytes() == before


@pytest.mark.parametrize("first", ["[]", "null", "{}", '{"binding": 3}', '{"binding": null}', '{"binding": []}'])
def test_journal_does_not_believe_a_binding_that_is_none(tmp_path: Path, first: str) -> None:
    (tmp_path / "journal").write_bytes(line(first))
    with pytest.raises(OutputError, match=r"damaged|something else|is no journal"):
        Journal(tmp_path / "journal", {"inputs": "these"})


def test_journal_leaves_other_files_alone(tmp_path: Path) -> None:
    """A folder may come from a stranger, with a link in place of the journal."""
    (tmp_path / "precious").write_text("years of work")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    for name in ("precious", "link"):
        with pytest.raises(OutputError, match="is no"):
            Journal(tmp_path / name, {})
    assert (tmp_path / "precious").read_text() == "years of work"
    (tmp_path / "deep").write_bytes(line(BINDING) + line("[" * 100_000))
    found = Journal(tmp_path / "deep", {"inputs": "these"})
    assert not found.tiles


def test_a_run_does_not_believe_facts_that_are_none(small: Pair, killed: Path) -> None:
    path = killed / workspace.WORK / workspace.JOURNAL
    whole = path.read_bytes()
    eye, singular = [[1, 0, 0], [0, 1, 0]], [[0, 0, 0], [0, 0, 0]]
    found = {"affine": eye, "expected": eye, "failure": "", "notes": []}
    for fact in (
        {"affine": singular},
        {"affine": "x"},
        {"expected": [[1e400] * 3] * 2},
        {"notes": 7},
        {"affine": [[]]},
    ):
        path.write_bytes(whole + line({"fact": {"global": {**found, **fact}}}))
        with pytest.raises(OutputError, match="damaged"):
            run(small.moving, small.reference, killed, resume=True)
    strange = journal._to_json(tile(0)) | {"index": 10_000}
    path.write_bytes(whole + line({"tile": strange}))
    with pytest.raises(OutputError, match="damaged"):
        run(small.moving, small.reference, killed, resume=True)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records.os, "fsync", no_room)
    with pytest.raises(OutputError, match="disk full"):
        Journal(tmp_path / "new", {})


def no_room(handle: int) -> None:
    raise OSError(errno.ENOSPC, "no space")
