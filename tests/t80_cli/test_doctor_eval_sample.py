"""`doctor`, `eval` and the demo pair inside the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import rasterio

from somareg.cli import sample
from somareg.io import ground_metric, read_raster
from somareg.soma.weights import read_card, store
from tests.small_network import save_network, small_network
from tests.t80_cli.conftest import Cli, FakeApi


def test_doctor_is_content_with_this_machine(cli: Cli, fake_api: FakeApi) -> None:
    done = cli("doctor")
    assert done.code == 0, done.out
    for name in ("system", "versions", "device", "threads", "memory", "formats", "weights", "sample", "self-test"):
        assert name in done.out
    assert "FAIL" not in done.out


def test_doctor_tells_what_is_ill(cli: Cli, fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_api.decision = "no-go"
    monkeypatch.setattr(sample, "FOLDER", tmp_path)
    done = cli("doctor", "--json")
    report = json.loads(done.out)
    assert done.code == 1
    assert report["healthy"] is False
    assert "reinstall somareg" in report["checks"]["sample"]["found"]
    assert {name for name, check in report["checks"].items() if not check["ok"]} == {"sample", "self-test"}


def test_doctor_checks_the_verdict_of_the_self_test(cli: Cli, fake_api: FakeApi) -> None:
    fake_api.decision = "no-go"
    assert "the demo pair got no-go" in cli("doctor").out


def test_doctor_shows_the_weights_that_ship(
    cli: Cli, fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(store, "files", lambda package: tmp_path)

    def found() -> dict[str, Any]:
        check: dict[str, Any] = json.loads(cli("doctor", "--json").out)["checks"]["weights"]
        return check

    assert found() == {"ok": True, "found": "none in this installation; model='auto' matches without weights"}
    path = save_network(small_network(), tmp_path / "compact.safetensors", name="meadow-3")
    card = read_card(path)
    for text in ("compact: version meadow-3", f"{card.parameters:,} parameters", "licence none", card.sha256):
        assert text in found()["found"]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert found()["ok"] is False
    assert "sha256 differs" in found()["found"]


def test_demo_sample_is_a_proper_pair() -> None:
    moving, reference = sample.sample_pair()
    with rasterio.open(moving) as sar, rasterio.open(reference) as optical:
        assert sar.crs.to_epsg() == optical.crs.to_epsg() == 3395
        assert (sar.transform, sar.shape) == (optical.transform, optical.shape)
        assert sar.transform.a == pytest.approx(10, abs=0.001)
        assert max(sar.shape) <= 768
        assert (sar.count, optical.count) == (1, 3)
        assert sar.descriptions == ("VH (display-scaled)",)
        for file, mission in ((sar, "S1A_IW_GRDH"), (optical, "S2A_MSIL1C")):
            assert file.tags()["PRODUCT"].startswith(mission)
            assert file.tags()["SENSING_DATE"].startswith("2020-")
            assert "Copernicus" in file.tags()["TIFFTAG_COPYRIGHT"]
    assert moving.stat().st_size + reference.stat().st_size <= 2_000_000
    # what `somareg demo` says: World Mercator stretches 8.3 m on the ground to 10
    metric = ground_metric(read_raster(reference, role="reference").grid)
    assert metric is not None
    assert metric.pixel_m == pytest.approx((8.33, 8.33), abs=0.03)


def test_eval_passes_names_on_and_prints_the_table(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def evaluate(data: Path, sets: list[str], levels: list[str], methods: list[str], **options: Any) -> list[Any]:
        asked.update(options, data=data, sets=sets, levels=levels, methods=methods)
        options["progress"]("identity a m", 1, 2)
        return [{"method": "identity", "ce90_px": float("nan")}]

    monkeypatch.setattr("somareg.lab.evaluate.run.evaluate", evaluate)
    monkeypatch.setattr("somareg.lab.evaluate.table.table", lambda out: f"table of {out}")
    arguments = ["eval", "--data", tmp_path, "--sets", "a, b", "--levels", "m", "--methods", "identity"]
    arguments += ["--limit", "3", "--split", "val", "-o", tmp_path / "out"]
    done = cli(*arguments)
    assert (done.code, done.out) == (0, f"table of {tmp_path / 'out'}\n")
    assert (asked["sets"], asked["levels"], asked["limit"], asked["split"]) == (["a", "b"], ["m"], 3, "val")
    assert json.loads(cli(*arguments, "--json").out)["results"] == [{"method": "identity", "ce90_px": None}]


def test_eval_without_data_says_so(cli: Cli, tmp_path: Path) -> None:
    done = cli("eval", "--data", tmp_path / "nowhere", "--sets", "a", "-o", tmp_path / "out")
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert "nowhere: no such folder" in done.err


def test_eval_judges_the_verdict(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def calibrate(data: Path, out: Path, methods: list[str], **options: Any) -> dict[str, Any]:
        asked.update(options, data=data, methods=methods)
        options["progress"]("ombria/160/val/m/3", 1, 2)
        out.mkdir(exist_ok=True)
        (out / "calibration-learned.md").write_text("| asked | measured |\n")
        return {"learned": {"model": "compact-1", "go": 0.9, "review": 0.3, "bars": [("a", "1", "met")], "success": []}}

    monkeypatch.setattr("somareg.lab.evaluate.verdict.run.calibrate", calibrate)
    arguments = ["eval", "--verdict", "--data", tmp_path, "-o", tmp_path / "out", "--methods", "ours", "--limit", "9"]
    done = cli(*arguments, "--refit")
    assert done.code == 0 and "| asked | measured |" in done.out
    assert (asked["methods"], asked["limit"], asked["refit"]) == (["ours"], 9, True)
    told = json.loads(cli(*arguments, "--json").out)
    assert told["engines"]["learned"] == {"model": "compact-1", "go": 0.9, "review": 0.3, "bars": [["a", "1", "met"]]}


@pytest.mark.parametrize(("options", "words"), [(["--refit"], "--refit goes with --verdict"), ([], "--sets")])
def test_eval_says_what_is_missing(cli: Cli, tmp_path: Path, options: list[str], words: str) -> None:
    done = cli("eval", "--data", tmp_path, "-o", tmp_path / "out", *options)
    assert done.code != 0 and words in done.err
