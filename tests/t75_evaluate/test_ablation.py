"""The study of ablations: rows are trained once, resumed, judged on the same samples, and compared place by place."""

from __future__ import annotations

import csv
import json
import math
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from somareg.config import from_mapping
from somareg.errors import ConfigError, ReadError
from somareg.lab.data.bundle import write_bundle
from somareg.lab.data.stacks import ProtocolSamples
from somareg.lab.data.tiles import TileSet
from somareg.lab.evaluate.metrics import paired_signs, sign_test
from somareg.lab.train import callbacks
from somareg.lab.train.config import load_config
from somareg.lab.train.engine import train
from somareg.lab.train.export import network_state, read_checkpoint
from somareg.lab.train.validation import sample_errors
from somareg.lab.train.yaml_files import read_extended
from somareg.soma.network import Soma
from tests.programs import program
from tests.t75_evaluate.meadow import stack

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")

PLAN = """
network:
  encoder:
    compact: {band_channels: 4, widths: [8, 8, 8, 16], depths: [1, 1, 1, 1], outputs: [8, 8, 8, 16]}
    fge: {directions: 4, sigmas: [0.8]}
  glam: {coarse: null}
data: {draw: {crop: 64, smooth_share: 0.0}}
optimiser: {warmup_steps: 2}
run: {batch: 1, log_every_steps: 1, checkpoint_minutes: 0.0, max_minutes: 7, threads: 1}
"""
STUDY = """
plan: plan.yaml
common: [run.accelerator=cpu]
reference: full
judged: [meadow m, meadow H]
limit: 2
rows:
  full: []
  "FGE: off": [network.encoder.fge=null]
"""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return program("benchmarks/ablation.py")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiles of noise, samples of two levels."""
    draw, number, size = torch.Generator().manual_seed(0), 2, 128
    tiles = TileSet(
        sar=torch.randint(0, 256, (number, size, size), generator=draw, dtype=torch.uint8),
        optical=torch.randint(0, 256, (number, 3, size, size), generator=draw, dtype=torch.uint8),
        valid=torch.ones((number, size, size), dtype=torch.bool),
        label=torch.eye(2, 3).repeat(number, 1, 1),
        group=("a", "b"),
        source=("meadow",) * number,
        name=("meadow/1@0,0", "meadow/2@0,0"),
    )
    samples = ProtocolSamples((stack("m", [2.0, 3.0, 0.0]), stack("H", [9.0, 4.0])))
    path = tmp_path_factory.mktemp("pack") / "pack.safetensors"
    write_bundle(path, [tiles], samples, max_mb=4.0)
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "plan.yaml").write_text(PLAN)
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


def words(pack: Path, place: Path, *more: str) -> list[str]:
    """The arguments of a call whose files are all in one folder."""
    return [
        *(str(pack), "--study", str(place / "study.yaml"), "--out", str(place / "out")),
        *("--results", str(place / "results.json"), *more),
    ]


def results(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / "results.json").read_text())
    return found


def cells(text: str, label: str) -> list[list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return [line[1:] for line in lines if line[0] == label]


# --- training and judging ---------------------------------------------------------------------------------------------


def test_rows_are_trained_judged_and_kept(
    script: ModuleType, pack: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(words(pack, place, "--steps", "2", "--page", str(place / "page.md"))) == 0
    printed, told = capsys.readouterr()
    assert told.splitlines() == ["full, 2 steps, seed 0", "FGE: off, 2 steps, seed 0"]
    assert (place / "page.md").read_text() == printed[:-1]
    found = results(place)
    assert [(row["row"], row["budget"], row["seed"]) for row in found["rows"]] == [
        ("weight-free", None, None),
        ("full", "2 steps", 0),
        ("FGE: off", "2 steps", 0),
    ]
    free, full, off = found["rows"]
    # both images of a sample are the same, whatever its truth says
    assert free["errors"] == {
        "meadow m": pytest.approx([2.0, 3.0], abs=0.3),
        "meadow H": pytest.approx([9, 4], abs=0.3),
    }
    assert (full["training"]["steps"], full["training"]["batch"]) == (2, 1)
    assert full["training"]["minutes"] > 0
    assert off["changes"] == ["network.encoder.fge=null"]
    assert off["training"]["parameters"] < full["training"]["parameters"]
    # what was judged are the averaged weights, by registration
    checkpoint = place / "out" / "2-steps" / "fge-off-0" / "last.ckpt"
    cfg = load_config(checkpoint.parent / "config.yaml")
    assert cfg.network.encoder.fge is None and (cfg.optimiser.total_steps, cfg.run.max_minutes) == (2, None)
    network = Soma(cfg.network).eval()
    network.load_state_dict(network_state(read_checkpoint(checkpoint), checkpoint))
    expected = sample_errors(network, stack("m", [2.0, 3.0, 0.0]), 2, CPU)
    assert off["errors"]["meadow m"] == [None if math.isinf(e) else pytest.approx(e, abs=1e-3) for e in expected]
    # the same call does nothing; without a length it prints the tables; a moved pack is the same pack
    before = (place / "results.json").read_bytes()
    monkeypatch.setattr(script, "train", None)
    moved = place / "moved.safetensors"
    moved.write_bytes(pack.read_bytes())
    for again in (words(pack, place, "--steps", "2"), words(pack, place), words(moved, place, "--steps", "2")):
        assert script.main(again) == 0
        assert capsys.readouterr().out == printed
    assert (place / "results.json").read_bytes() == before


def test_equal_minutes_stand_beside_equal_steps(
    script: ModuleType, pack: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = count()
    monkeypatch.setattr(callbacks, "monotonic", lambda: 0.1 * next(looks))  # how fast the machine is does not matter
    assert script.main(words(pack, place, "--minutes", "0.02", "--steps", "1")) == 0
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if line.startswith("#")] == ["## 0.02 minutes", "## 1 steps"]
    timed, counted = cells(text, "full")
    assert int(timed[-2]) > 1 and counted[-2] == "1"
    assert timed[-1] == "0.02"
    assert len(cells(text, "weight-free")) == 2
    assert sum(row["row"] == "weight-free" for row in results(place)["rows"]) == 1


def test_a_stopped_study_goes_on(
    script: ModuleType, pack: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A signal in the second row keeps the first one and the steps of the second."""
    trainings = []

    def stopping(cfg: Any, folder: Path, **options: Any) -> Any:
        trainings.append(folder.name)
        if cfg.network.encoder.fge is not None:
            return train(cfg, folder, **options)
        train(cfg, folder, max_minutes=1e-9, **options)  # one step, as far as a signal would let it go
        return SimpleNamespace(stopped="interrupted")

    with monkeypatch.context() as patched:
        patched.setattr(script, "train", stopping)
        assert script.main(words(pack, place, "--steps", "3")) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert trainings == ["full-0", "fge-off-0"]
    assert [row["row"] for row in results(place)["rows"]] == ["weight-free", "full"]
    folder = place / "out" / "3-steps" / "fge-off-0"
    first = logged(folder)
    assert [step for step, _ in first] == ["1"]
    assert script.main(words(pack, place, "--steps", "3")) == 0
    assert "full, 3 steps" not in capsys.readouterr().err
    assert logged(folder)[:1] == first and [step for step, _ in logged(folder)] == ["1", "2", "3"]
    # killed between training and judging: the checkpoint is whole, no step is added
    text = (place / "results.json").read_text()
    (place / "results.json").write_text(text[: text.rindex(",\n{")] + "\n]}\n")
    monkeypatch.setattr(script, "train", None)
    assert script.main(words(pack, place, "--steps", "3")) == 0
    again, before = results(place)["rows"], json.loads(text)["rows"]
    assert [row["errors"] for row in again] == [row["errors"] for row in before]


def logged(folder: Path) -> list[tuple[str, str]]:
    with (folder / "train.csv").open(newline="") as file:
        return [(line["step"], line["loss"]) for line in csv.DictReader(file)]


@pytest.fixture
def quick(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains nothing and measures nothing."""
    monkeypatch.setattr(
        script, "trained", lambda cfg, folder: (Soma(cfg.network), {"steps": 1, "minutes": 0.5, "parameters": 2})
    )
    monkeypatch.setattr(script, "measured", lambda _, judged, __: {name: [1.0] * n for name, (_, n) in judged.items()})


@pytest.mark.usefixtures("quick")
def test_results_of_different_terms_are_not_mixed(
    script: ModuleType, pack: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(old: str, new: str, *more: str) -> str:
        (place / "study.yaml").write_text(STUDY.replace(old, new))
        assert script.main(words(pack, place, "--steps", "2", *more)) == 2
        return capsys.readouterr().err

    script.main(words(pack, place, "--steps", "2"))
    before = (place / "results.json").read_bytes()
    assert "made with another 'judged'" in told("limit: 2", "limit: 1")
    assert "made with another 'common'" in told("cpu]", "cpu, run.batch=2]")
    assert "has 'FGE: off' with other settings" in told("fge=null", "fge.attention=false")
    assert "no samples 'meadow R'" in told("meadow H", "meadow R")
    assert "no row 'ful' for a reference. Did you mean 'full'" in told("reference: full", "reference: ful")
    assert "would share a folder" in told("full: []", "full: []\n  FGE off: []")
    assert "unknown option 'network.encoder.fgee'" in told("fge=null", "fgee=null")
    assert "unknown option 'limits'" in told("limit", "limits")
    assert "run.max_steps is 0" in told("", "", "--steps", "0")
    assert "total_minutes is -1" in told("", "", "--minutes", "-1")
    ProtocolSamples((stack("m", [1.0]),)).save(place / "more.safetensors")
    assert "'meadow m' is in two of the files" in told("", "", "--samples", str(place / "more.safetensors"))
    (place / "study.yaml").write_text(STUDY)
    assert script.main(words(place / "nothing.safetensors", place, "--steps", "2")) == 2
    assert "nothing.safetensors" in capsys.readouterr().err
    assert (place / "results.json").read_bytes() == before
    (place / "results.json").write_text("[]")
    assert "holds no results of ablations" in told("", "")


@pytest.mark.usefixtures("quick")
def test_test_samples_judge_no_study(script: ModuleType, pack: Path, place: Path) -> None:
    study = from_mapping(script.Study, {**read_extended(place / "study.yaml"), "judged": ["meadow R"]})
    one = stack("R", [1.0])
    ProtocolSamples((type(one)(one.set, "test", *(getattr(one, key) for key in one.__slots__[2:])),)).save(
        place / "test.safetensors"
    )
    with pytest.raises(ConfigError, match="'meadow R' are test samples"):
        script.judged_samples(study, [pack, place / "test.safetensors"])


def test_a_folder_of_other_settings_is_kept_apart(script: ModuleType, pack: Path, place: Path) -> None:
    cfg = load_config(place / "plan.yaml", [], {"data.tiles": [str(pack)], "run.max_steps": 1})
    script.trained(cfg, place / "run")
    other = load_config(place / "plan.yaml", [], {"data.tiles": [str(pack)], "run.max_steps": 2})
    with pytest.raises(ConfigError, match="was trained with other settings"):
        script.trained(other, place / "run")


@pytest.mark.parametrize("name", ["ablation.yaml", "pretraining.yaml"])
def test_the_studies_of_this_clone_are_read(script: ModuleType, name: str) -> None:
    """Every row differs from the others and builds a network, and the reference is the plan itself."""
    study = from_mapping(script.Study, read_extended(ROOT / "configs" / name))
    plan = ROOT / "configs" / study.plan
    rows = {name: load_config(plan, (*study.common, *settings)) for name, settings in study.rows.items()}
    assert len({repr(cfg) for cfg in rows.values()}) == len(rows)
    assert rows[study.reference] == load_config(plan, study.common)
    if name == "ablation.yaml":
        assert rows["FGE: attention only"].network.encoder.fge.filters == "off"  # type: ignore[union-attr]
    with torch.device("meta"):
        assert all(Soma(cfg.network).parameter_count > 0 for cfg in rows.values())


# --- what a difference means ------------------------------------------------------------------------------------------


def test_samples_are_compared_one_by_one() -> None:
    full = np.array([1.0, 1.0, 1.0, 4.0, 40.0, math.inf, math.inf, 4.9])
    row = np.array([0.7, 1.1, 2.0, 9.0, 60.0, math.inf, 3.0, 70.0])
    # better by 0.3 px and where the other fails; worse by 1 px and where it fails itself; the rest is alike
    assert paired_signs(row, full).tolist() == [1, 0, -1, -1, 0, 0, 1, 0]
    assert paired_signs(full, row).tolist() == [-1, 0, 1, 1, 0, 0, -1, 0]


def test_the_sign_test_counts_places() -> None:
    apart = [str(i) for i in range(11)]
    better, worse, z = sign_test(np.array([1.0] * 9 + [-1.0] * 2), apart)
    assert (better, worse) == (9, 2)
    assert z == pytest.approx((7 - 1) / math.sqrt(11))
    assert sign_test(np.array([-1.0] * 9 + [1.0] * 2), apart)[2] == pytest.approx(-z)
    # by hand: places a +2, b +1 - 1 = 0, c -1: a sum of 1, which the continuity correction takes away
    assert sign_test(np.array([1.0, 1.0, 1.0, -1.0, -1.0]), ["a", "a", "b", "b", "c"]) == (3, 2, 0.0)
    # by hand: places +3, +2: (5 - 1) / sqrt(9 + 4); as if apart it would be 4 / sqrt(5)
    assert sign_test(np.ones(5), ["a", "a", "a", "b", "b"])[2] == pytest.approx(4 / math.sqrt(13))
    assert sign_test(np.zeros(3), ["a", "b", "c"]) == (0, 0, 0.0)


def test_a_difference_that_chance_makes_is_rarely_clear() -> None:
    """Exact: for every number of places that differ, a fair coin goes beyond 2 in at most 1 case of 20."""
    for number in range(1, 60):
        z = [sign_test(np.repeat([1.0, -1.0], [k, number - k]), [*map(str, range(number))])[2]
             for k in range(number + 1)]  # fmt: skip
        assert sum(math.comb(number, k) for k in range(number + 1) if abs(z[k]) > 2) / 2**number <= 0.05


def entry(name: str, seed: int | None, near: list[float | None], far: list[float | None]) -> dict[str, Any]:
    made = {} if seed is None else {"training": {"parameters": 1234, "steps": 1200 + seed, "minutes": 2.5}}
    budget = None if seed is None else "5 minutes"
    return {"row": name, "budget": budget, "seed": seed, "errors": {"a m": near, "a H": far}, **made}


def test_the_tables_pool_seeds_and_quote_what_labels_support(script: ModuleType) -> None:
    judged = {"a m": {"quoted_from": 1.0, "places": ["x", "y"]}, "a H": {"quoted_from": 3.0, "places": ["x", "z"]}}
    rows = [
        entry("weight-free", None, [0.5, 1.5], [9.0, None]),
        entry("full", 0, [0.5, 1.5], [2.5, None]),
        entry("full", 1, [0.9, 2.5], [2.5, 4.0]),
        entry("off", 0, [1.5, 2.5], [2.5, 4.0]),
        entry("off", 1, [1.5, 2.5], [9.0, 4.9]),
        entry("lost", 7, [None, None], [None, None]),
    ]
    text = "\n".join(script.tables({"reference": "full", "judged": judged, "rows": rows}))
    # near: 0.5, 0.9, 1.5, 2.5; far: 2.5, 2.5, 4, failed
    assert cells(text, "full") == [
        ["50 / 75 / 100; 0.90", "– / – / 50; 2.50", "–", "1,234", "1,200, 1,201", "2.50, 2.50"]
    ]
    # seed 0: x -1, y -1, x 0, z +1; seed 1: x -1, y 0, x -1, z -1: x -3, y -1, z 0
    assert cells(text, "off")[0][2] == f"1 : 5 ({-(4 - 1) / math.sqrt(10):+.1f})"
    # against seed 0: x -1; against seed 1: x +1, y +1, x -1, z -1: x -1, y 1, z -1
    assert cells(text, "weight-free")[0][2:] == ["2 : 3 (+0.0)", "–", "–", "–"]
    assert cells(text, "lost")[0][:3] == ["0 / 0 / 0; inf", "– / – / 0; inf", "–"]  # the reference has no such seed
    assert "full, each seed against the one before: 1 : 2 (+0.0)." in text


def test_results_that_are_none_are_named(script: ModuleType, tmp_path: Path) -> None:
    for content in ("{", '{"a": 1}', '{"a": 1, "rows": 3}'):
        (tmp_path / "r.json").write_text(content)
        with pytest.raises(ReadError, match=r"r\.json holds no results"):
            script.read_results(tmp_path / "r.json", {"a": 1})
    assert script.read_results(tmp_path / "none.json", {"a": 1}) == []
