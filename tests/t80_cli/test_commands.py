"""Commands over a fake API: exit codes, what is printed where, what is passed on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from somareg.errors import ConfigError, NoOverlapError, OutputError, ReadError
from somareg.soma.weights import DEFAULT_WEIGHTS
from tests.t80_cli.conftest import Cli, FakeApi

DECISIONS = [("go", 0), ("review", 3), ("no-go", 4)]


@pytest.mark.parametrize(("decision", "code"), DECISIONS)
@pytest.mark.parametrize("flags", [[], ["--json"], ["-q"]])
def test_register_exit_code_is_the_decision(
    cli: Cli, fake_api: FakeApi, tmp_path: Path, decision: str, code: int, flags: list[str]
) -> None:
    fake_api.decision = decision
    done = cli("register", "a.tif", "b.tif", "-o", tmp_path / "out", *flags)
    assert done.code == code
    assert done.err == ""
    assert (tmp_path / "out" / "aligned.tif").exists() == (decision != "no-go")


@pytest.mark.parametrize(("decision", "code"), DECISIONS)
def test_assess_exit_code_is_the_decision(cli: Cli, fake_api: FakeApi, decision: str, code: int) -> None:
    fake_api.decision = decision
    assert cli("assess", "a.tif", "b.tif").code == code
    done = cli("assess", "a.tif", "b.tif", "--json")
    document = json.loads(done.out)
    assert done.code == code
    assert document["verdict"]["decision"] == decision
    assert document["misalignment_rmse_m"] == 57.1
    assert document["quality"]["predicted_ce90_px"] is None  # NaN is not JSON


def test_register_summary_tells_the_verdict_and_the_figures(cli: Cli, fake_api: FakeApi, tmp_path: Path) -> None:
    done = cli("register", "a.tif", "b.tif", "-o", tmp_path / "out")
    for text in (
        "Go: 97 % chance of an error below 2 px; expected error 6.1 m (0.61 px). At worst, the south side is off by",
        "37 of 40 windows agree",
        "5.71 px (57.1 m)",
        "0.61 px (6.1 m)",
        "(-5.60, -1.10) px",
        "SAR scale",
    ):
        assert text in done.out
    assert done.out.count("At worst") == 1
    assert str(tmp_path / "out" / "report.html") in done.out


def test_help_explains_the_models(cli: Cli, fake_api: FakeApi) -> None:
    text = " ".join(cli("register", "--help").out.split())
    assert f"{DEFAULT_WEIGHTS} (the trained weights that ship)" in text
    assert "orientation (no weights), or a .safetensors file" in text
    assert f"auto takes {DEFAULT_WEIGHTS} for SAR against optical, else the likelier of both" in text
    assert cli("register", "a.tif", "b.tif", "-o", "out", "--model", DEFAULT_WEIGHTS, "--dry-run").code == 0
    assert fake_api.calls[0][1]["model"] == DEFAULT_WEIGHTS


def test_no_go_says_what_is_missing_and_how_to_force(cli: Cli, fake_api: FakeApi, tmp_path: Path) -> None:
    fake_api.decision = "no-go"
    done = cli("register", "a.tif", "b.tif", "-o", tmp_path / "out")
    assert "aligned.tif was not written" in done.out
    assert "--force" in done.out
    assert "\x1b[31m" not in done.out  # a reason cannot colour the terminal

    forced = cli("register", "a.tif", "b.tif", "-o", tmp_path / "out", "--overwrite", "--force")
    assert forced.code == 4
    assert "because of --force" in forced.out
    assert (tmp_path / "out" / "aligned.tif").exists()


def test_register_json_is_the_report_and_nothing_else(cli: Cli, fake_api: FakeApi, tmp_path: Path) -> None:
    done = cli("register", "a.tif", "b.tif", "-o", tmp_path / "out", "--json", "-v")
    assert json.loads(done.out) == json.loads((tmp_path / "out" / "report.json").read_text())


def test_quiet_prints_nothing(cli: Cli, fake_api: FakeApi, tmp_path: Path) -> None:
    done = cli("register", "a.tif", "b.tif", "-o", tmp_path / "out", "-q")
    assert (done.out, done.err) == ("", "")


def test_options_reach_the_api_under_their_python_names(cli: Cli, fake_api: FakeApi, tmp_path: Path) -> None:
    flags = "--moving-bands 3,2,1 --search-radius-m 900 --no-local --moving-nodata -9999 --seed 7 "
    flags += "--preset base"
    cli("register", "a.tif", "b.tif", "-o", tmp_path / "out", *flags.split(), "--assume-crs", "EPSG:32633")
    name, options = fake_api.calls[0]
    assert name == "register_into"
    assert options["args"] == ("a.tif", "b.tif", tmp_path / "out")
    expected = {
        "moving_bands": (3, 2, 1),
        "search_radius_m": 900.0,
        "local": False,
        "moving_nodata": -9999.0,
        "seed": 7,
        "assume_crs": "EPSG:32633",
        "preset": "base",
    }
    assert {key: options[key] for key in expected} == expected
    # What was not asked is left to the defaults of the library; a default that was typed counts as asked.
    assert options.keys() == expected.keys() | {"args"}


def test_dry_run_plans_and_writes_nothing(cli: Cli, fake_api: FakeApi, tmp_path: Path) -> None:
    done = cli("register", "a.tif", "b.tif", "--dry-run", "-o", tmp_path / "out")
    assert done.code == 0
    assert "working scale" in done.out
    assert [name for name, _ in fake_api.calls] == ["plan"]
    assert list(tmp_path.iterdir()) == []
    plan = json.loads(cli("register", "a.tif", "b.tif", "--dry-run", "--json").out)
    assert plan["reference"] == {"width": 100, "height": 90}


def test_warp_prints_the_path(cli: Cli, fake_api: FakeApi, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    done = cli("warp", "bands.tif", "est", "-o", out, "--resampling", "nearest", "--resolution", "native")
    assert (done.code, done.out.strip()) == (0, str(out))
    _, options = fake_api.calls[0]
    assert (options["resampling"], options["resolution"], options["overwrite"]) == ("nearest", "native", False)
    assert options["force"] is False


READING = {"nodata": 0.0, "bands": "2,1", "mask": "scl.tif", "mask_values": "3,8-10", "gcp_method": "tps"}


@pytest.mark.parametrize("prefix", ["--", "--moving-"])
def test_warp_reads_a_raster_as_it_is_told(cli: Cli, fake_api: FakeApi, tmp_path: Path, prefix: str) -> None:
    """What was typed for `register` may be typed again."""
    mask = [f"{prefix}mask", "scl.tif", f"{prefix}mask-values", "3,8-10"]
    flags = [f"{prefix}nodata", "0", *mask, "--bands", "2,1", "--gcp-method", "tps"]
    done = cli("warp", "bands.tif", "est", "-o", tmp_path / "out.tif", *flags)
    assert done.code == 0
    _, options = fake_api.calls[0]
    assert {name: options[name] for name in READING} == READING
    cli("warp", "bands.tif", "est", "-o", tmp_path / "two.tif")
    _, options = fake_api.calls[1]
    assert {name: options[name] for name in READING} == dict.fromkeys(READING)


def test_demo_uses_the_sample_inside_the_package(cli: Cli, fake_api: FakeApi, tmp_path: Path) -> None:
    for _ in range(2):  # the second one replaces the first
        done = cli("demo", "-o", tmp_path / "demo")
        assert done.code == 0
    assert "Contains modified Copernicus Sentinel data 2020" in done.out
    assert "pixels of 8.3 m" in done.out
    assert str(tmp_path / "demo" / "report.html") in done.out
    moving, reference, _ = fake_api.calls[0][1]["args"]
    assert moving.name == "sar.tif"
    assert reference.name == "optical.tif"
    assert (moving.parent / "ATTRIBUTION.txt").is_file()


FAILURES = [
    (ReadError("a.tif: no such file"), 1, "error: a.tif: no such file"),
    (NoOverlapError("a.tif and b.tif\ndo not overlap"), 1, "error: a.tif and b.tif do not overlap"),
    (OutputError("out: disk full"), 1, "error: out: disk full"),
    (ConfigError("unknown model 'x'."), 2, "error: unknown model 'x'."),
    (ReadError("\x1b[2Jevil.tif: bad"), 1, "error: \\x1b[2Jevil.tif: bad"),
    (MemoryError(), 1, "error: out of memory"),
    (ZeroDivisionError("oops"), 1, "error: unexpected ZeroDivisionError: oops; run with -v for the traceback"),
    (KeyboardInterrupt(), 130, "error: interrupted"),
]


@pytest.mark.parametrize("command", ["register", "assess"])
@pytest.mark.parametrize(("failure", "code", "line"), FAILURES, ids=[type(f).__name__ for f, _, _ in FAILURES])
def test_failures_are_one_line(
    cli: Cli, fake_api: FakeApi, tmp_path: Path, command: str, failure: BaseException, code: int, line: str
) -> None:
    fake_api.error = failure
    out = ["-o", tmp_path / "out"] if command == "register" else []
    done = cli(command, "a.tif", "b.tif", *out)
    assert done.code == code
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith(line)
    assert list(tmp_path.iterdir()) == []


def test_failure_as_json(cli: Cli, fake_api: FakeApi) -> None:
    fake_api.error = ReadError("a.tif: no such file")
    done = cli("assess", "a.tif", "b.tif", "--json")
    assert json.loads(done.out) == {"error": {"type": "ReadError", "message": "a.tif: no such file", "exit_code": 1}}


def test_verbose_adds_the_traceback(cli: Cli, fake_api: FakeApi) -> None:
    fake_api.error = ReadError("a.tif: no such file")
    done = cli("assess", "a.tif", "b.tif", "-v")
    assert "Traceback (most recent call last)" in done.err
    assert done.err.splitlines()[-1] == "error: a.tif: no such file"
    assert "run with -v" not in done.err


@pytest.mark.parametrize("command", ["register", "assess"])
def test_progress_for_programs(cli: Cli, fake_api: FakeApi, tmp_path: Path, command: str) -> None:
    """A line per step on stderr, which the one document on stdout does not know of."""
    arguments = [command, "a.tif", "b.tif", *(["-o", tmp_path / "out"] if command == "register" else [])]
    done = cli(*arguments, "--json", "--progress", "json")
    assert [json.loads(line) for line in done.err.splitlines()] == [{"stage": "matching", "share": 0.5}]
    assert json.loads(done.out)["verdict"]["decision"] == "go"
    arguments += ["--overwrite"] if command == "register" else []
    quiet = cli(*arguments, "--json", "--progress", "none")
    assert quiet.err == "" and quiet.out
