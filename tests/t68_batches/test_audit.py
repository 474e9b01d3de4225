"""`somareg.audit`: an archive whose offsets, step and outlier are known; what is done stays done; what is written."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import somareg
from somareg.batches.audit import run as audit_run
from somareg.batches.audit.findings import ALL, SceneRecord, finding_of
from somareg.batches.audit.names import Facts
from somareg.batches.audit.page import render_page
from somareg.batches.audit.result import AuditResult
from somareg.batches.audit.run import judged
from somareg.batches.manifest import FileMark, read_manifest
from somareg.batches.offsets import Offset
from somareg.batches.work import PairDone, PairJob
from somareg.errors import ConfigError, InputError, OutputError
from tests.t68_batches.archives import LIGHT, NAMES, OFFSETS, write_archive, write_reference

FILES = ("audit.csv", "audit.html", "audit.json")


@dataclass(frozen=True)
class Archive:
    """Scenes on disk, and their audit against the reference."""

    folder: Path
    reference: Path
    out: Path
    result: AuditResult


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder = tmp_path_factory.mktemp("archive")
    reference = write_reference(folder)
    write_archive(folder / "in")
    (folder / "in" / "lost_20210101.tif").write_bytes(b"no image")
    result = somareg.audit(folder / "in", folder / "out", reference=reference, **LIGHT)
    return Archive(folder / "in", reference, folder / "out", result)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the scenes that are measured, in turn, by a stand-in that takes no time."""
    names: list[str] = []

    def do_pair(job: PairJob) -> PairDone:
        names.append(f"{Path(job.moving).name} on {Path(job.reference).name}")
        files = tuple(FileMark.of(path) for path in (job.moving, job.reference))
        return PairDone("go", 0.9, 0.3, None, 0.1, files, "Go.", offset(0.1, 0.0))

    monkeypatch.setattr(audit_run, "do_pair", do_pair)
    return names


def offset(dx: float, dy: float, sigma: float = 0.2, pixel_m: float | None = 10.0) -> Offset:
    px = Offset(dx, dy, sigma, math.hypot(dx, dy), 0.1, 0.0, 1.0)
    if pixel_m is None:
        return px
    return replace(px, dx_m=dx * pixel_m, dy_m=dy * pixel_m, sigma_m=sigma * pixel_m, rms_m=px.rms_px * pixel_m)


def record(number: int, own: Offset | None, *, series: str = "", dated: bool = True, **facts: str) -> SceneRecord:
    taken = datetime(2021, 1, 1, tzinfo=UTC) + timedelta(days=10 * number) if dated else None
    verdict = "go" if own else "no-go"
    finding = finding_of(verdict, own, 2.0)
    return SceneRecord(
        f"s{number:02d}", f"/in/s{number}.tif", "/r.tif", Facts(taken, **facts), series, verdict, 0.9, own, finding
    )


def noise(count: int, seed: int = 0, sigma: float = 0.2) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 2)) * sigma


# --- an archive, end to end -------------------------------------------------------------------------------------------


def test_offsets_are_those_that_were_made(archive: Archive) -> None:
    scenes = {scene.name: scene for scene in archive.result.scenes}
    for name, (dx, dy) in zip(NAMES, OFFSETS, strict=True):
        scene = scenes[name.removesuffix(".tif")]
        assert scene.verdict == "go"
        assert scene.offset is not None
        away = np.hypot(scene.offset.dx_px - dx, scene.offset.dy_px - dy)
        assert away < min(0.4, 2.5 * scene.offset.sigma_px)
        assert scene.offset.dx_m == pytest.approx(10 * scene.offset.dx_px, rel=2e-3)  # UTM stretches a little
        assert scene.offset.sigma_m == pytest.approx(10 * scene.offset.sigma_px, rel=2e-3)
        assert scene.offset.rms_px >= np.hypot(scene.offset.dx_px, scene.offset.dy_px) - 1e-6


def test_the_step_at_the_new_baseline_is_found_and_the_outlier_is_no_step(archive: Archive) -> None:
    result = archive.result
    (step,) = result.steps
    assert (step.series, step.first) == (ALL, NAMES[5].removesuffix(".tif"))
    assert step.last == NAMES[4].removesuffix(".tif")
    assert step.changes == ("baseline 02.14 to 04.00",)
    assert step.step.size == pytest.approx(20.0, abs=3 * step.step.sigma)
    assert step.step.size == pytest.approx(20.0, abs=3.0)
    assert result.outliers == (NAMES[2].removesuffix(".tif"),)
    (difference,) = result.differences
    assert (difference.kind, difference.value, difference.against) == ("baseline", "04.00", "02.14")
    assert difference.offset[0] == pytest.approx(20.0, abs=3.0)
    (series,) = result.series
    assert series.level[0] == pytest.approx(22.5, abs=3.0)  # since the step, metres
    assert series.scatter < 5.0


def test_a_scene_that_fails_is_told_and_takes_no_part(archive: Archive) -> None:
    lost = next(scene for scene in archive.result.scenes if scene.name == "lost_20210101")
    assert lost.finding == "failed"
    assert lost.offset is None
    assert "lost_20210101.tif" in lost.error
    assert archive.result.counts["failed"] == 1
    assert any("1 scene could not be measured" in note for note in archive.result.notes)


def test_nothing_but_the_report_and_the_manifest_is_written(archive: Archive) -> None:
    assert sorted(path.name for path in archive.out.iterdir() if not path.name.startswith(".")) == [
        *FILES,
        "manifest.jsonl",
    ]


def test_files_hold_every_figure(archive: Archive) -> None:
    document = json.loads((archive.out / "audit.json").read_text())
    assert document["schema_version"] == "1.0"
    assert (document["mode"], document["unit"]) == ("reference", "m")
    with (archive.out / "audit.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == [scene["name"] for scene in document["scenes"]]
    by_name = {row["name"]: row for row in rows}
    first = by_name[NAMES[0].removesuffix(".tif")]
    assert (first["date"], first["platform"], first["orbit"], first["baseline"]) == (
        "2021-01-04T10:30:00Z",
        "S2A",
        "094",
        "02.14",
    )
    assert first["series"] == "S2A R094"
    assert by_name["lost_20210101"]["dx_px"] == ""
    page = (archive.out / "audit.html").read_text()
    assert page.count('class="plot"') == 2
    assert "baseline 02.14 to 04.00" in page


def test_the_same_call_again_measures_only_what_failed_and_writes_the_same(archive: Archive) -> None:
    before = {name: (archive.out / name).read_bytes() for name in FILES}
    again = somareg.audit(archive.folder, archive.out, reference=archive.reference, **LIGHT)
    assert again.redone == ("lost_20210101",)
    assert {name: (archive.out / name).read_bytes() for name in FILES} == before


def test_its_line_is_short(archive: Archive) -> None:
    line = repr(archive.result)
    assert line.startswith("<AuditResult 10 scenes: 1 failed, 1 off")
    assert "1 step, 1 outlier" in line
    assert "\n" not in line


def test_it_is_saved_elsewhere_too(archive: Archive, tmp_path: Path) -> None:
    folder = archive.result.save(tmp_path / "copy")
    assert (folder / "audit.csv").read_bytes() == (archive.out / "audit.csv").read_bytes()
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == sorted(FILES)


def test_dates_against_those_before_them(archive: Archive, tmp_path: Path) -> None:
    result = somareg.audit(
        [archive.folder / name for name in NAMES], tmp_path / "out", consecutive=True, moving_modality="sar",
        reference_modality="sar", **LIGHT,
    )  # fmt: skip
    assert result.mode == "consecutive"
    assert len(result.scenes) == len(NAMES) - 1
    scenes = {scene.name: scene for scene in result.scenes}
    made = np.diff(np.array(OFFSETS), axis=0)
    for name, (dx, dy) in zip(NAMES[1:], made, strict=True):
        own = scenes[name.removesuffix(".tif")].offset
        assert own is not None
        assert np.hypot(own.dx_px - dx, own.dy_px - dy) < 0.5
    assert result.outliers == (NAMES[2].removesuffix(".tif"),)
    (step,) = result.steps
    assert (step.last, step.first) == tuple(name.removesuffix(".tif") for name in NAMES[4:6])


def test_pairs_that_are_off_are_named(archive: Archive, tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    rows = [f"{archive.folder / name},{archive.reference}" for name in (NAMES[0], NAMES[2], NAMES[5])]
    table.write_text("\n".join(["moving,reference", *rows]) + "\n")
    result = somareg.audit(table, tmp_path / "out", tolerance_px=3.0, **LIGHT)
    assert result.mode == "pairs"
    assert [scene.finding for scene in result.scenes] == ["fine", "off", "fine"]
    assert result.steps == ()
    assert result.scenes[1].offset is not None
    assert result.scenes[1].offset.rms_px == pytest.approx(math.hypot(7.3, 5.0), abs=0.5)


# --- going on ---------------------------------------------------------------------------------------------------------


def test_only_what_changed_is_measured_again(tmp_path: Path, measured: list[str]) -> None:
    reference = write_reference(tmp_path)
    files = write_archive(tmp_path / "in", NAMES[:3], OFFSETS[:3])
    somareg.audit(tmp_path / "in", tmp_path / "out", reference=reference)
    assert len(measured) == 3
    files[1].write_bytes(files[0].read_bytes())
    write_archive(tmp_path / "in", NAMES[3:4], OFFSETS[3:4])
    del measured[:]
    somareg.audit(tmp_path / "in", tmp_path / "out", reference=reference)
    assert measured == [f"{name} on reference.tif" for name in (NAMES[1], NAMES[3])]
    del measured[:]
    somareg.audit(tmp_path / "in", tmp_path / "out", reference=reference, preset="precise")
    assert len(measured) == 4
    assert {entry.status for entry in read_manifest(tmp_path / "out", "audit").values()} == {"done"}


def test_another_tolerance_needs_no_measuring(tmp_path: Path, measured: list[str]) -> None:
    reference = write_reference(tmp_path)
    write_archive(tmp_path / "in", NAMES[:2], OFFSETS[:2])
    first = somareg.audit(tmp_path / "in", tmp_path / "out", reference=reference)
    second = somareg.audit(tmp_path / "in", tmp_path / "out", reference=reference, tolerance_px=0.0)
    assert len(measured) == 2
    assert first.counts == {"fine": 2}
    assert second.counts == {"unsure": 2}


def test_a_kill_loses_one_scene_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: list[str]) -> None:
    reference = write_reference(tmp_path)
    write_archive(tmp_path / "in", NAMES[:4], OFFSETS[:4])
    good = audit_run.do_pair

    def dies(job: PairJob) -> PairDone:
        if len(measured) == 2:
            raise KeyboardInterrupt
        return good(job)

    monkeypatch.setattr(audit_run, "do_pair", dies)
    with pytest.raises(KeyboardInterrupt):
        somareg.audit(tmp_path / "in", tmp_path / "out", reference=reference)
    assert not (tmp_path / "out" / "audit.json").exists()
    monkeypatch.setattr(audit_run, "do_pair", good)
    somareg.audit(tmp_path / "in", tmp_path / "out", reference=reference)
    assert len(measured) == 4


def test_the_reference_is_no_scene_of_its_archive(tmp_path: Path, measured: list[str]) -> None:
    reference = write_reference(tmp_path)
    write_archive(tmp_path, NAMES[:2], OFFSETS[:2])
    result = somareg.audit(tmp_path, tmp_path / "out", reference=reference)
    assert len(measured) == 2
    assert "reference.tif is the reference and no scene" in result.notes


def test_batches_and_audits_keep_out_of_each_others_folders(tmp_path: Path, measured: list[str]) -> None:
    reference = write_reference(tmp_path)
    write_archive(tmp_path / "in", NAMES[:1], OFFSETS[:1])
    somareg.audit(tmp_path / "in", tmp_path / "audit", reference=reference)
    with pytest.raises(OutputError, match="holds a run of somareg audit"):
        somareg.batch(tmp_path / "in", tmp_path / "audit", reference=reference)
    (tmp_path / "batch").mkdir()
    (tmp_path / "batch" / "manifest.jsonl").write_text('{"somareg_batch": 1}\n')
    with pytest.raises(OutputError, match="holds a run of somareg batch"):
        somareg.audit(tmp_path / "in", tmp_path / "batch", reference=reference)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds no audit"):
        somareg.audit(tmp_path / "in", tmp_path / "other", reference=reference)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ConfigError, "nothing to compare the scenes with"),
        ({"reference": "r.tif", "consecutive": True}, ConfigError, "not both"),
        ({"reference": "r.tif", "tolerance_px": -1.0}, ConfigError, "0 or more"),
        ({"reference": "r.tif", "tolerance_px": math.nan}, ConfigError, "0 or more"),
        ({"reference": "r.tif", "asset": "B08"}, ConfigError, "asset goes with a STAC file"),
        ({"consecutive": True}, InputError, "one scene alone"),
        ({"reference": "r.tif", "presett": "fast"}, ConfigError, "presett"),
    ],
)
def test_a_wrong_question_is_refused_before_work(
    arguments: dict[str, Any], error: type[Exception], message: str, tmp_path: Path, measured: list[str]
) -> None:
    write_archive(tmp_path / "in", NAMES[:1], OFFSETS[:1])
    with pytest.raises(error, match=message):
        somareg.audit(tmp_path / "in", tmp_path / "out", **arguments)
    assert measured == []
    assert not (tmp_path / "out").exists()


# --- what measured scenes tell together -------------------------------------------------------------------------------


def test_no_go_and_failed_scenes_take_no_part() -> None:
    values = noise(10)
    scenes = [record(i, None if i in (3, 7) else offset(*values[i])) for i in range(10)]
    result = judged(Path("out"), "reference", scenes, 2.0)
    assert result.counts == {"unmeasured": 2, "fine": 8}
    assert [scene.z is None for scene in result.scenes] == [i in (3, 7) for i in range(10)]
    assert result.series[0].scenes == 8


def test_each_orbit_is_a_series_with_steps_of_its_own() -> None:
    values = noise(24, sigma=0.1)
    values[1::2, 0] += 1.5  # the second orbit lies elsewhere
    values[13::2, 1] += 4.0  # and moves
    scenes = [
        record(i, offset(*values[i]), series=f"S2A R{i % 2}", orbit=str(i % 2), platform="S2A") for i in range(24)
    ]
    result = judged(Path("out"), "reference", scenes, 2.0)
    own = [step for step in result.steps if step.series == "S2A R1"]
    assert [step.first for step in own] == ["s13"]
    assert own[0].step.size == pytest.approx(40.0, abs=3.0)
    assert not [step for step in result.steps if step.series == "S2A R0"]
    assert not result.outliers  # against their own orbit, none is off
    assert [series.name for series in result.series] == [ALL, "S2A R0", "S2A R1"]
    assert {(d.kind, d.value, d.against) for d in result.differences} == {("orbit", "1", "0")}


def test_scenes_without_dates() -> None:
    values = noise(12)
    values[6:, 0] += 5.0
    none = judged(Path("out"), "reference", [record(i, offset(*v), dated=False) for i, v in enumerate(values)], 2.0)
    assert [step.first for step in none.steps] == ["s06"]
    assert any("order of the list" in note for note in none.notes)
    some = judged(Path("out"), "reference", [record(i, offset(*v), dated=i > 2) for i, v in enumerate(values)], 2.0)
    assert [step.first for step in some.steps] == ["s06"]
    assert some.scenes[0].z is None
    assert any("3 scenes without a date" in note for note in some.notes)


def test_one_scene_without_metres_makes_all_pixels() -> None:
    scenes = [record(i, offset(*v, pixel_m=None if i == 4 else 10.0)) for i, v in enumerate(noise(6))]
    result = judged(Path("out"), "reference", scenes, 2.0)
    assert result.unit == "px"
    assert any("have no metres" in note for note in result.notes)


@pytest.mark.parametrize(
    ("verdict", "rms", "sigma", "finding"),
    [
        ("go", 1.9, 0.1, "fine"),
        ("go", 15.0, 0.5, "off"),
        ("review", 15.0, 0.5, "suspect"),
        ("review", 1.0, 5.0, "fine"),
        ("go", 2.5, 0.5, "unsure"),
        ("go", 2.5, 0.1, "off"),
    ],
)
def test_findings(verdict: Any, rms: float, sigma: float, finding: str) -> None:
    assert finding_of(verdict, offset(rms, 0.0, sigma), 2.0) == finding
    assert finding_of("no-go", None, 2.0) == "unmeasured"


def test_hostile_names_are_text_on_the_page() -> None:
    evil = "<script>alert(1)</script>\"'&"
    scenes = [replace(record(i, offset(*v)), name=evil + str(i), series=evil * (i % 2)) for i, v in enumerate(noise(8))]
    scenes[0] = replace(scenes[0], finding="failed", error=evil, offset=None)
    page = render_page(judged(Path("out"), "reference", scenes, 2.0, [evil]))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 8


def test_names_of_bytes_that_are_no_characters_are_written(tmp_path: Path) -> None:
    scenes = [
        replace(record(i, offset(*v)), name=f"odd\udcff{i}", moving=f"/in/\udcff{i}") for i, v in enumerate(noise(6))
    ]
    result = judged(tmp_path / "out", "reference", scenes, 2.0)
    result.save()
    assert sorted(path.name for path in (tmp_path / "out").glob("audit.*")) == sorted(FILES)
    assert "odd\\udcff3" in (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("mode", ["reference", "consecutive", "pairs"])
def test_few_scenes_make_a_page(count: int, mode: Any) -> None:
    scenes = [record(i, offset(0.1, 0.2)) for i in range(count)] + [record(9, None)]
    assert "</html>" in render_page(judged(Path("out"), mode, scenes, 2.0))


@pytest.mark.parametrize("days", [0, 3, 40, 400, 4000, 20000])
def test_dates_along_the_axis_are_few_and_inside(days: int) -> None:
    taken = [datetime(1984, 3, 30, tzinfo=UTC) + timedelta(days=days * i / 5) for i in range(6)]
    scenes = [replace(record(i, offset(0.1, i)), facts=Facts(date)) for i, date in enumerate(taken)]
    page = render_page(judged(Path("out"), "reference", scenes, 2.0))
    drawing = page[page.index("<svg") : page.index("</svg>")]
    assert drawing.count('class="tick"') <= 7 + 10
