"""`somareg.batch`: many pairs, one manifest; what is done stays done, what changed is done again."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio

import somareg
from somareg.batches import run, work
from somareg.batches.manifest import FILE_NAME, Entry, FileMark, Manifest, read_manifest
from somareg.batches.pairs import BatchPair, find_pairs, read_table
from somareg.batches.summary import BatchResult
from somareg.errors import ConfigError, InputError, OutputError, ReadError
from somareg.io.lock import folder_lock
from somareg.report.names import has_page
from tests.small_network import save_network, small_network
from tests.t65_register.conftest import Files, register
from tests.t68_batches.conftest import LIGHT, fill


@dataclass(frozen=True)
class Whole:
    """A batch that ran through."""

    table: Path
    out: Path
    result: BatchResult
    shares: list[float]


@pytest.fixture(scope="module")
def whole(places: list[Files], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder, shares = tmp_path_factory.mktemp("whole"), []
    table = fill(folder / "in", places)
    result = somareg.batch(table, folder / "out", progress=lambda _, share: shares.append(share), **LIGHT)
    return Whole(table, folder / "out", result, shares)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pairs that are done, in turn, by a stand-in that takes no time."""
    names: list[str] = []

    def do_pair(job: work.PairJob) -> work.PairDone:
        folder = Path(job.folder)
        names.append(folder.name)
        files = tuple(FileMark.of(path) for path in (job.moving, job.reference))
        folder.mkdir(exist_ok=True)
        for name in ("report.json", "displacement.tif", *(["report.html"] if has_page(job.reports, "go") else [])):
            (folder / name).write_text(job.moving)
        return work.PairDone("go", 0.9, 0.5, 5.0, 3.0, files, "Go: sure.")

    monkeypatch.setattr(run, "do_pair", do_pair)
    return names


def statuses(out: Path) -> dict[str, str]:
    return {name: entry.status for name, entry in read_manifest(out).items()}


def text(out: Path) -> tuple[str, str]:
    return (out / "summary.csv").read_text(), (out / "summary.json").read_text()


# --- lists of pairs ---------------------------------------------------------------------------------------------------


def test_table_paths_and_options_are_relative_to_the_table(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(
        "\ufeffmoving;reference;name;moving_bands;local;search_radius_px;tie_points;moving_modality\n"
        "a/s1.tif;/data/o.tif;first;3 2,1;no;12.5;t.csv;optical\n"
        "\n"
        "item.json#vv;b.tif;;;;;;\n",
        encoding="utf-8",
    )
    first, second = read_table(file)
    assert (first.moving, first.reference) == (str(tmp_path / "a" / "s1.tif"), "/data/o.tif")
    assert second.moving == str(tmp_path / "item.json#vv")
    assert second.options == {}
    cfg = run.make_config(first.options)
    assert (cfg.moving_bands, cfg.local, cfg.search_radius_px) == ((3, 2, 1), False, 12.5)
    assert (cfg.tie_points, cfg.moving_modality) == (str(tmp_path / "t.csv"), "optical")
    assert [pair.name for pair in find_pairs(file)] == ["first", "item.json_vv".replace(".json", "")]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("moving,refrence\na,b\n", InputError, "needs the columns"),
        ("moving,reference,presett\na,b,fast\n", ConfigError, "unknown column 'presett'. Did you mean 'preset'"),
        ("moving,reference,preset\na,b,fats\n", ConfigError, "line 2: unknown preset 'fats'. Did you mean 'fast'"),
        ("moving,reference\na,b,c\n", InputError, "line 2 has 3 cells"),
        ("moving,reference\na,\n", InputError, "line 2 names no reference"),
        ("moving,reference,name\na,b,../../x\n", InputError, "cannot be a folder"),
        ("moving,reference,name\na,b,summary.csv\n", InputError, "cannot be a folder"),
        ("moving,reference,name\na,b,X\nc,d,x\n", InputError, "two pairs are called"),
        ("moving,reference,moving\na,b,c\n", InputError, "twice"),
        ("moving,reference\n", InputError, "holds no pair"),
        ("\x00\xff", ReadError, "UTF-8"),
    ],
)
def test_bad_tables_name_file_line_and_way_out(
    tmp_path: Path, content: str, error: type[Exception], message: str
) -> None:
    file = tmp_path / "pairs.csv"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(error, match=message):
        find_pairs(file)


def test_folders_match_by_name_and_tell_who_is_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("s1/a.tif", "s1/B.TIF", "s1/lone.tif", "s1/a.txt", "s2/a.jp2", "s2/b.png", "s2/other.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_pairs(tmp_path / "s1", tmp_path / "s2")
    assert [(Path(p.moving).name, Path(p.reference).name) for p in found] == [("B.TIF", "b.png"), ("a.tif", "a.jp2")]
    alone = [Path(name).name for name in run.unmatched(tmp_path / "s1", tmp_path / "s2")]
    assert alone == ["lone.tif", "other.tif"]
    series = find_pairs(tmp_path / "s1", tmp_path / "s2" / "a.jp2")
    assert [p.name for p in series] == ["B", "a", "lone"]
    with pytest.raises(ConfigError, match="name the references"):
        find_pairs(tmp_path / "s1")


def test_names_are_unique_and_folders(tmp_path: Path) -> None:
    pairs = [("x/vv.tif", "r.tif"), ("y/VV.tif", "r.tif"), BatchPair("vv-2", "z", "r"), ("summary.csv.tif", "r")]
    assert [p.name for p in find_pairs(pairs)] == ["vv", "VV-3", "vv-2", "summary.csv_pair"]


# --- runs -------------------------------------------------------------------------------------------------------------


def test_batch_is_register_many_times(whole: Whole, places: list[Files], tmp_path: Path) -> None:
    result = whole.result
    assert [entry.name for entry in result.entries] == ["p0", "lost", "p1"]
    assert result.counts == {"go": 2, "failed": 1}
    assert repr(result).startswith("<BatchResult 3 pairs: 2 go, 1 failed")
    assert result.worst == "failed"
    assert whole.shares == pytest.approx([0, 1 / 3, 2 / 3, 1])
    lost, last = result.entries[1:]
    assert (lost.status, lost.error_kind, lost.verdict) == ("failed", "ReadError", None)
    assert "nowhere.tif does not exist" in str(lost.error)

    # The row's own option goes before the batch's.
    moving, reference = places[1].moving, places[0].reference
    alone = register(moving, reference, preset="fast", local=False, resampling="nearest")
    assert places[1].rmse(alone) < 1.0
    assert last.predicted_rmse_px == alone.predicted_rmse_px
    assert last.predicted_rmse_m == pytest.approx(10 * alone.predicted_rmse_px, rel=1e-3)
    own = alone.save(tmp_path / "alone", reports="problems")
    assert sorted(p.name for p in own.iterdir()) == sorted(p.name for p in (whole.out / "p1").iterdir())
    for name in ("aligned.tif", "displacement.tif"):
        with rasterio.open(own / name) as one, rasterio.open(whole.out / "p1" / name) as other:
            np.testing.assert_array_equal(one.read(), other.read())

    rows = list(csv.DictReader((whole.out / "summary.csv").open(newline="")))
    assert [row["verdict"] for row in rows] == ["go", "", "go"]
    assert float(rows[0]["predicted_rmse_px"]) == result.entries[0].predicted_rmse_px
    assert json.loads((whole.out / "summary.json").read_text())["counts"] == {"go": 2, "failed": 1}
    marks = {mark.path: mark.sha256 for mark in last.files}
    assert marks == {
        str(p): FileMark.of(p).sha256 for p in (whole.table.parent / n for n in ("sar1.tif", "optical.tif"))
    }


def test_a_second_run_does_only_what_failed_or_changed(table: Path, tmp_path: Path, done: list[str]) -> None:
    out = tmp_path / "out"
    somareg.batch(table, out, **LIGHT)
    assert done == ["p0", "lost", "p1"]
    first = text(out)

    done.clear()
    again = somareg.batch(table, out, **LIGHT)
    assert done == ["lost"] == list(again.redone)  # only what failed
    assert text(out) == first

    done.clear()
    moved = table.parent / "sar1.tif"
    os.utime(moved, ns=(1, 1))  # touched, not changed
    shutil.copy(moved, table.parent / "nowhere.tif")  # mended
    with rasterio.open(table.parent / "sar0.tif", "r+") as file:
        file.write(file.read(1) * 2, 1)  # changed, the same size
    assert [e.status for e in run.planned(table, out, **LIGHT)] == ["pending", "pending", "done"]
    assert done == []
    assert somareg.batch(table, out, **LIGHT).worst == "go"
    assert done == ["p0", "lost"]

    done.clear()
    (out / "p1" / "displacement.tif").unlink()  # an output is gone
    somareg.batch(table, out, **LIGHT)
    assert done == ["p1"]

    for change in ({"seed": 5}, {"stac": True}, {"force": True}, {"moving_modality": "sar"}):
        done.clear()
        somareg.batch(table, out, **{**LIGHT, **change})
        assert done == ["p0", "lost", "p1"], change
    with rasterio.open(table.parent / "optical.tif", "r+") as file:
        file.write(255 - file.read())  # everybody's reference
    assert {e.status for e in run.planned(table, out, moving_modality="sar", **LIGHT)} == {"pending"}


def test_a_page_that_is_wanted_later_is_made_later(table: Path, tmp_path: Path, done: list[str]) -> None:
    out = tmp_path / "out"
    (table.parent / "nowhere.tif").write_bytes(b"x")
    assert somareg.batch(table, out, **LIGHT).without_page() == ["p0", "lost", "p1"]
    done.clear()
    for reports in ("problems", "none"):
        somareg.batch(table, out, reports=reports, **LIGHT)
    assert done == []
    (out / "p1" / "report.html").write_text("is there already")
    result = somareg.batch(table, out, reports="all", **LIGHT)
    assert done == ["p0", "lost"] and result.without_page() == []
    rows = list(csv.DictReader((out / "summary.csv").open(newline="")))
    assert [row["report"] for row in rows] == ["p0/report.html", "lost/report.html", "p1/report.html"]
    with pytest.raises(ConfigError, match="unknown reports 'some'"):
        somareg.batch(table, out, reports="some", **LIGHT)  # type: ignore[arg-type]


def test_other_weights_are_another_result(table: Path, tmp_path: Path, done: list[str], package: Path) -> None:
    out = tmp_path / "out"
    (table.parent / "nowhere.tif").write_bytes(b"x")
    somareg.batch(table, out)
    done.clear()
    save_network(small_network(), package / "compact.safetensors")
    somareg.batch(table, out, model="auto")
    assert len(done) == 3
    done.clear()
    somareg.batch(table, out, model="auto")
    assert done == []


def test_rows_may_come_and_go(table: Path, tmp_path: Path, done: list[str], caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "out"
    somareg.batch(table, out, **LIGHT)
    rows = table.read_text().splitlines()
    table.write_text("\n".join([rows[0], "new,sar0.tif,optical.tif,", rows[3]]))
    done.clear()
    result = somareg.batch(table, out, **LIGHT)
    assert done == ["new"]
    assert [entry.name for entry in result.entries] == ["new", "p1"]
    assert "no longer in the list" in caplog.text
    assert (out / "p0" / "report.json").is_file()


def test_a_pair_that_fails_now_keeps_no_outputs_of_before(table: Path, tmp_path: Path, done: list[str]) -> None:
    out = tmp_path / "out"
    somareg.batch(table, out, **LIGHT)
    (out / "p1" / "mine.txt").write_text("notes")
    (table.parent / "sar1.tif").unlink()
    (table.parent / "sar0.tif").unlink()
    assert somareg.batch(table, out, **LIGHT).counts == {"failed": 3}
    assert [p.name for p in (out / "p1").iterdir()] == ["mine.txt"]
    assert not (out / "p0").exists()


def test_stop_on_error_leaves_the_rest_pending(table: Path, tmp_path: Path, done: list[str]) -> None:
    result = somareg.batch(table, tmp_path / "out", continue_on_error=False, **LIGHT)
    assert statuses(tmp_path / "out") == {"p0": "done", "lost": "failed", "p1": "pending"}
    assert result.worst == "failed"
    assert result.counts == {"go": 1, "failed": 1, "pending": 1}
    assert repr(result) == "<BatchResult 3 pairs: 1 go, 1 failed, 1 pending>"


def test_a_bad_option_ends_the_batch_before_it_begins(table: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown option 'presett'"):
        somareg.batch(table, tmp_path / "out", presett="fast")
    with pytest.raises(ConfigError, match="needs tie_points"):
        somareg.batch(table, tmp_path / "out", tie_points_use="replace")
    assert not (tmp_path / "out").exists()


def test_folders_that_are_not_a_batch_are_refused(table: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").touch()
    with pytest.raises(OutputError, match="holds no batch"):
        somareg.batch(table, tmp_path / "out", **LIGHT)
    (tmp_path / "out" / FILE_NAME).write_text('{"somareg_batch": 1}\n{"name": 3\n')
    with pytest.raises(InputError, match="damaged"):
        somareg.batch(table, tmp_path / "out", **LIGHT)
    (tmp_path / "out" / FILE_NAME).write_text('{"somareg_batch": 99}\n')
    with pytest.raises(InputError, match="newer"):
        somareg.batch(table, tmp_path / "out", **LIGHT)
    with folder_lock(tmp_path / "out"), pytest.raises(OutputError, match="another run"):
        somareg.batch(table, tmp_path / "out", overwrite=True, **LIGHT)


def test_the_manifest_appends_what_changes_and_drops_half_a_line(tmp_path: Path) -> None:
    names = [f"päir\u2028{number}" for number in range(3)]
    manifest = Manifest(tmp_path, {name: Entry(name, "m.tif", "r.tif", "key") for name in names})
    manifest.write()
    file = tmp_path / FILE_NAME
    before = file.read_bytes()
    for name in names[:2]:
        manifest.update(name, status="running")
    manifest.update(names[0], status="done", verdict="go")
    assert file.read_bytes().startswith(before)  # nothing is written again
    assert len(file.read_bytes()[len(before) :].splitlines()) == 3
    assert read_manifest(tmp_path) == manifest.entries
    whole = file.read_bytes()
    for cut in (1, 20):  # as a kill leaves it
        file.write_bytes(whole[:-cut])
        assert [entry.status for entry in read_manifest(tmp_path).values()] == ["running", "running", "pending"]


def test_a_time_series_decodes_its_reference_once(places: list[Files], tmp_path: Path) -> None:
    work.REFERENCES.clear()
    pairs = [(files.moving, places[0].reference) for files in places]
    result = somareg.batch(pairs, tmp_path / "out", **LIGHT)
    assert result.counts == {"go": 2}
    assert [entry.name for entry in result.entries] == ["sar", "sar-2"]
    assert work.REFERENCES.reads == 1
    sums = {mark.sha256 for entry in result.entries for mark in entry.files if mark.path.endswith("optical.tif")}
    assert sums == {FileMark.of(places[0].reference).sha256}


def test_the_cache_sees_changes_and_settings_and_keeps_within_its_bytes(places: list[Files], tmp_path: Path) -> None:
    cfg = run.make_config({})
    copies = [Path(shutil.copy(places[0].reference, tmp_path / f"{i}.tif")) for i in range(3)]
    cache = work.ReferenceCache(most_bytes=2 * work._bytes(work.REFERENCES.get(copies[0], cfg)))
    first = cache.get(copies[0], cfg)
    assert cache.get(copies[0], cfg) is first
    assert cache.get(copies[0], run.make_config({"reference_nodata": 7})) is not first
    os.utime(copies[0], ns=(1, 1))
    assert cache.get(copies[0], cfg) is not first
    with pytest.raises(ValueError, match="read-only"):
        first.data[...] = 0
    cache.clear()
    for copy in copies:  # the third drops the first
        cache.get(copy, cfg)
    cache.get(copies[1], cfg)
    assert cache.reads == 3
    cache.get(copies[0], cfg)
    assert cache.reads == 4


def test_jobs_and_answers_are_picklable(places: list[Files], tmp_path: Path) -> None:
    job = work.PairJob(str(places[0].moving), str(places[0].reference), str(tmp_path / "o"), LIGHT)
    function, job = pickle.loads(pickle.dumps((work.do_pair, job)))
    done = function(job)
    assert pickle.loads(pickle.dumps(done)) == done
    assert len(pickle.dumps(done)) < 5000  # figures travel, not pixels


SLOW = """
import sys, time
import somareg
from somareg.register import api
real, calls = api._register, []  # what is matched; saving comes after it
def register(*a, **k):
    result = real(*a, **k)
    calls.append(1)
    print("registered", flush=True)
    if len(calls) == 2:
        time.sleep(60)  # killed long before
    return result
api._register = register
somareg.batch(sys.argv[1], sys.argv[2], model="orientation", preset="fast", local=False)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killed_and_started_again_it_goes_on_with_the_same_summary(whole: Whole, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    arguments = [sys.executable, "-c", SLOW, str(whole.table), str(out)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        for _ in range(2):  # the second pair that exists is registered and not saved
            assert victim.stdout.readline().strip() == "registered"
        victim.send_signal(signal.SIGKILL)
    assert statuses(out) == {"p0": "done", "lost": "failed", "p1": "running"}
    kept = (out / "p0" / "report.json").stat().st_mtime_ns

    again = somareg.batch(whole.table, out, **LIGHT)
    assert again.redone == ("lost", "p1")
    assert (out / "p0" / "report.json").stat().st_mtime_ns == kept
    assert text(out) == text(whole.out)
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in whole.out.iterdir())
