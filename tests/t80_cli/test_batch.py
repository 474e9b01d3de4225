"""`somareg batch`: exit codes, table, JSON and options; pairs are done by a stand-in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from somareg.batches import run, work
from somareg.batches.manifest import FileMark
from somareg.errors import NoOverlapError
from somareg.report.names import has_page
from somareg.types import Verdict
from tests.t80_cli.conftest import Cli


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[work.PairJob]:
    """The jobs that were done; the verdict of each is in its moving image."""
    done: list[work.PairJob] = []

    def do_pair(job: work.PairJob) -> work.PairDone:
        done.append(job)
        verdict: Any = Path(job.moving).read_text()
        if verdict == "failed":
            raise NoOverlapError("a.tif and\nb.tif \x1b[31mdo not overlap")
        Path(job.folder).mkdir(exist_ok=True)
        for name in ("report.json", "displacement.tif", *(["report.html"] if has_page(job.reports, verdict) else [])):
            (Path(job.folder) / name).touch()
        headline = Verdict(verdict, (), 0.97, 0.61, 6.1, "At worst, it is off.").headline
        return work.PairDone(verdict, 0.97, 0.61, 6.1, 5.71, (FileMark.of(job.moving),), headline)

    monkeypatch.setattr(run, "do_pair", do_pair)
    return done


def folders(place: Path, *verdicts: str) -> tuple[Path, Path]:
    """Moving images 0.tif, 1.tif ... that will get these verdicts, and references of the same names."""
    for name in ("s1", "s2"):
        (place / name).mkdir()
    for number, verdict in enumerate(verdicts):
        (place / "s1" / f"{number}.tif").write_text(verdict)
        (place / "s2" / f"{number}.tif").touch()
    return place / "s1", place / "s2"


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [(["go", "go"], 0), (["go", "review"], 3), (["no-go", "review"], 4), (["go", "failed", "no-go"], 1)],
)
@pytest.mark.parametrize("flags", [[], ["--json"], ["-q"]])
def test_exit_code_is_that_of_the_worst(
    cli: Cli, jobs: list[work.PairJob], tmp_path: Path, verdicts: list[str], code: int, flags: list[str]
) -> None:
    done = cli("batch", *folders(tmp_path, *verdicts), "-o", tmp_path / "out", *flags)
    assert done.code == code
    assert done.err == ""
    assert len(jobs) == len(verdicts)
    if "--json" in flags:
        assert json.loads(done.out) == json.loads((tmp_path / "out" / "summary.json").read_text())
    if "-q" in flags:
        assert done.out == ""


def test_table_shows_the_worst_first_and_what_was_kept(
    cli: Cli, jobs: list[work.PairJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = folders(tmp_path, "go", "failed", "review")
    first = cli("batch", *both, "-o", tmp_path / "out")
    rows = [line for line in first.out.splitlines() if line[:1] in "012"]
    assert [row.split()[:2] for row in rows if row] == [["1", "failed"], ["2", "Review:"], ["0", "Go:"]]
    assert "a.tif and b.tif \\x1b[31mdo" in first.out  # an error cannot colour the terminal
    monkeypatch.setenv("COLUMNS", "200")
    wide = cli("batch", *both, "-o", tmp_path / "out")
    assert "Go: 97 % chance of an error below 2 px; expected error 6.1 m (0.61 px)." in wide.out
    assert "At worst" not in wide.out  # no room in a row
    assert "(0.61 px). At worst, it is off." in (tmp_path / "out" / "summary.csv").read_text()
    assert "3 pairs: 1 go, 1 review, 1 failed" in first.out
    assert str(tmp_path / "out" / "summary.csv") in first.out
    jobs.clear()
    assert "(2 done before)" in cli("batch", *both, "-o", tmp_path / "out").out
    assert len(jobs) == 1


def test_no_go_claims_no_error_in_the_table(
    cli: Cli, jobs: list[work.PairJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = cli("batch", *folders(tmp_path, "no-go"), "-o", tmp_path / "out")
    assert "No-go: 97 % chance of an error below 2 px; the error is not known." in done.out
    assert "0.61" not in done.out
    assert "6.1 m" not in done.out


def test_long_tables_are_cut(cli: Cli, jobs: list[work.PairJob], tmp_path: Path) -> None:
    done = cli("batch", *folders(tmp_path, *["go"] * 44), "-o", tmp_path / "out")
    assert "… and 4 more" in done.out
    assert "44 pairs: 44 go" in done.out


def test_options_reach_the_jobs_and_rows_go_before_them(cli: Cli, jobs: list[work.PairJob], tmp_path: Path) -> None:
    folders(tmp_path, "go", "go")
    table = tmp_path / "pairs.csv"
    table.write_text("moving,reference,preset\ns1/0.tif,s2/0.tif,precise\ns1/1.tif,s2/1.tif,\n")
    cli("batch", table, "-o", tmp_path / "out", "--preset", "fast", "--moving-bands", "2", "--force", "--no-local")
    assert [job.options["preset"] for job in jobs] == ["precise", "fast"]
    assert all(job.force and job.options["moving_bands"] == (2,) and not job.options["local"] for job in jobs)


def test_reports_are_of_the_pairs_that_want_a_look(cli: Cli, jobs: list[work.PairJob], tmp_path: Path) -> None:
    both, out = folders(tmp_path, "go", "review", "go"), tmp_path / "out"
    first = cli("batch", *both, "-o", out)
    assert [job.reports for job in jobs] == ["problems"] * 3
    assert "no report.html for 2 pairs; the same command with --reports all makes it" in first.out
    pages = [pair["report"] for pair in json.loads((out / "summary.json").read_text())["pairs"]]
    assert pages == [None, "1/report.html", None]
    jobs.clear()
    told = json.loads(cli("batch", *both, "-o", out, "--reports", "all", "--dry-run", "--json").out)
    assert [pair["status"] for pair in told["pairs"]] == ["pending", "done", "pending"] and jobs == []
    assert "no report.html" not in cli("batch", *both, "-o", out, "--reports", "all").out
    assert [(Path(job.folder).name, job.reports) for job in jobs] == [("0", "all"), ("2", "all")]
    jobs.clear()
    assert "(3 done before)" in cli("batch", *both, "-o", out, "--reports", "none").out  # what is there stays
    assert jobs == [] and (out / "0" / "report.html").is_file()


def test_dry_run_says_what_is_left_to_do(cli: Cli, jobs: list[work.PairJob], tmp_path: Path) -> None:
    both = folders(tmp_path, "go", "failed")
    assert cli("batch", *both, "-o", tmp_path / "out", "--dry-run").code == 0
    assert jobs == []
    assert not (tmp_path / "out").exists()
    cli("batch", *both, "-o", tmp_path / "out")
    told = json.loads(cli("batch", *both, "-o", tmp_path / "out", "--dry-run", "--json").out)
    assert [(pair["name"], pair["status"]) for pair in told["pairs"]] == [("0", "done"), ("1", "pending")]
    assert "to do" in cli("batch", *both, "-o", tmp_path / "out", "--dry-run").out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere.csv"], 1, "nowhere.csv cannot be read: No such file"),
        (["s1"], 2, "name the references"),
        (["s1", "s2", "--preset", "fats"], 2, "Did you mean 'fast'"),
        (["s1", "s2", "--reports", "problem"], 2, "unknown reports 'problem'. Did you mean 'problems'"),
        (["s1", "s2", "--workers", "2", "--dask", "tcp://127.0.0.1:1"], 2, "give one of them"),
        (["s1", "s2", "--workers", "0"], 2, "give 1 or more"),
    ],
)
def test_failures_are_one_line(
    cli: Cli,
    jobs: list[work.PairJob],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    folders(tmp_path, "go")
    monkeypatch.chdir(tmp_path)
    done = cli("batch", *arguments, "-o", "out")
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert len(done.err.splitlines()) == 1
    assert jobs == []
