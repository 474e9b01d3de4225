"""The ablation runner: rows differ in what they are named for, resume, are measured alike; chance is called chance."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from somareg.errors import ConfigError, InputError, ReadError
from somareg.features.fge import FgeCfg
from somareg.lab.data.samples import ProtocolSamples, SampleStack
from somareg.lab.data.tiles import TileSet
from somareg.lab.evaluate import ablate as runner
from somareg.lab.evaluate.ablate import RESULT, Interrupted, ablate, main
from somareg.lab.evaluate.ablation_config import ANOTHER_SEED, FULL, PUBLISHED, ROWS, AblateCfg, overlaid, row_config
from somareg.lab.evaluate.ablation_page import BEGIN, END, Comparison, Setting, compare, standard_error, update_page
from somareg.lab.evaluate.ablation_rows import Judge, Measured, Row, Training
from somareg.lab.evaluate.diagnosis import Similarity
from somareg.lab.evaluate.metrics import point_errors, rmse
from somareg.lab.train.config import TrainCfg, load_config
from somareg.lab.train.engine import train
from somareg.lab.train.export import read_checkpoint
from somareg.lab.train.validation import validate_samples
from somareg.matching.glam import LocalCfg
from somareg.matching.network import Soma
from tests.small_network import small_network

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CPU = torch.device("cpu")
OFF = "fge-off_glam-full"
SIDE = 96

BASE = """
network:
  encoder:
    compact: {band_channels: 4, widths: [8, 8, 8, 16], depths: [1, 1, 1, 1], outputs: [8, 8, 8, 16]}
    fge: {directions: 4, sigmas: [0.8]}
  glam: {coarse: {channels: 16, layers: 1, heads: 2}}
data: {draw: {crop: 64, smooth_share: 0.0}}
optimiser: {warmup_steps: 2}
run: {batch: 1, log_every_steps: 1, checkpoint_minutes: 0.0, max_minutes: 7, accelerator: cpu}
"""


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- configurations ---------------------------------------------------------------------------------------------------


def of_clone(**options: Any) -> AblateCfg:
    """The configurations of this clone."""
    return AblateCfg(Path("out"), ("t",), Path("v"), configs=CONFIGS, **options)


def test_only_what_a_row_changes_comes_into_the_base() -> None:
    base = {"a": {"x": 1, "y": 2}, "b": {"z": [1]}, "own": 3}
    full = {"a": {"x": 5, "y": 5}, "b": {"z": [2]}}
    assert overlaid(base, full, full) == base
    assert overlaid(base, full, {"a": {"x": 6, "y": 5}, "b": {"z": [2]}}) == {**base, "a": {"x": 6, "y": 2}}
    assert overlaid(base, full, {"a": {"x": 5, "y": 5}, "b": None}) == {**base, "b": None}
    assert overlaid({**base, "a": None}, full, {**full, "a": {"x": 6, "y": 5}})["a"] == {"x": 6, "y": 5}


def test_rows_differ_from_the_full_one_in_what_they_are_named_for() -> None:
    full = row_config(FULL, of_clone())
    tiny = load_config(CONFIGS / "tiny.yaml")
    assert full.network == tiny.network
    encoder, glam = full.network.encoder, full.network.glam
    fge = encoder.fge
    assert fge is not None
    assert fge.sigmas == (0.8,) != FgeCfg().sigmas  # the base's own
    networks = {
        OFF: replace(encoder, fge=None),
        "fge-attention_glam-full": replace(encoder, fge=replace(fge, filters="off")),
        "fge-filters_glam-full": replace(encoder, fge=replace(fge, attention=False)),
        "orientation-off": replace(encoder, compact=replace(encoder.compact, orientation=None)),
        "fge-full_glam-affine": replace(glam, local=None),
        "fge-full_glam-flow": replace(glam, affine=False),
    }
    networks["orientation-off_fge-off"] = replace(networks["orientation-off"], fge=None)
    for name, part in networks.items():
        where = "glam" if "glam-affine" in name or "glam-flow" in name else "encoder"
        wanted = replace(full, network=replace(full.network, **{where: part}))
        assert row_config(name, of_clone()) == wanted, name
    assert row_config(ANOTHER_SEED, of_clone(seed=4)) == replace(full, seed=5)
    assert set(ROWS) == {FULL, ANOTHER_SEED, PUBLISHED, *networks}


def test_all_rows_train_on_equal_terms() -> None:
    asked = of_clone(minutes=0.5, seed=9, threads=1, accelerator="cpu")
    base = load_config(CONFIGS / "tiny.yaml")
    for name in ROWS:
        cfg = row_config(name, asked)
        assert (cfg.data.tiles, cfg.data.validation, cfg.data.synthetic_share) == (("t",), None, 0.0)
        assert (cfg.optimiser.schedule, cfg.optimiser.total_minutes) == ("time", 0.5)
        assert cfg.optimiser.warmup_steps == base.optimiser.warmup_steps
        assert (cfg.run.max_minutes, cfg.run.max_steps, cfg.run.threads) == (None, None, 1)
        assert cfg.seed == 9 + (name == ANOTHER_SEED)
    published, own = row_config(PUBLISHED, asked), load_config(CONFIGS / f"{PUBLISHED}.yaml")
    assert (published.network, published.objective) == (own.network, own.objective)
    assert (published.data.draw, published.run.batch, published.optimiser.lr) == (own.data.draw, 6, own.optimiser.lr)


@pytest.mark.parametrize("name", ["fge-of_glam-full", "ablation/fge-off_glam-full", ""])
def test_an_unknown_row_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no row '.*' among the configurations"):
        row_config(name, of_clone())


@pytest.mark.parametrize("wrong", [{"minutes": 0.0}, {"minutes": math.nan}, {"limit": 0}, {"threads": 0}])
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        of_clone(**wrong)


# --- what a difference means ------------------------------------------------------------------------------------------


def test_samples_are_compared_one_by_one() -> None:
    full = np.array([1.0, 1.0, 1.0, 4.0, 40.0, math.inf, math.inf, 4.9])
    row = np.array([0.7, 1.1, 2.0, 9.0, 60.0, math.inf, 3.0, 70.0])
    # better: -0.3 and a failure that is none; worse: +1.0 and 4 px that are lost; the rest is alike
    assert compare(row, full) == Comparison(better=2, worse=2)
    assert compare(full, row) == Comparison(better=2, worse=2)
    assert compare(full, full) == Comparison(0, 0)
    assert compare(full - 0.5, full).worse == 0
    assert Comparison(9, 2).z == -Comparison(2, 9).z == pytest.approx(6 / math.sqrt(11))
    assert Comparison(0, 0).z == Comparison(3, 3).z == Comparison(3, 4).z == 0.0


def test_a_difference_that_chance_makes_is_rarely_clear() -> None:
    """Exact: for every number of samples that differ, a fair coin calls it clear in at most 1 case of 20."""
    for count in range(1, 80):
        clear = sum(math.comb(count, k) for k in range(count + 1) if Comparison(k, count - k).is_clear)
        assert clear / 2**count <= 0.05
    assert Comparison(6, 0).is_clear
    assert not Comparison(5, 0).is_clear
    assert Comparison(20, 50).is_clear


def test_the_standard_error_is_the_deviation_of_a_share() -> None:
    shares = np.random.default_rng(0).binomial(30, 0.1, 20_000) / 30
    assert standard_error(0.1, 30) == pytest.approx(float(shares.std()), rel=0.02)


# --- the page ---------------------------------------------------------------------------------------------------------

SETTING = Setting(3.0, "python -m somareg.lab.evaluate.ablate --minutes 3")


def row(name: str, near: tuple[float | None, ...], far: tuple[float | None, ...], quoted: float = 1.0) -> Row:
    errors = {"meadow m": near, "meadow H": far}
    found = Measured(
        "s", dict.fromkeys(errors, quoted), errors, errors, errors, (Similarity("matched 1/2", 0.5, 0.25, 9),)
    )
    made = Training(1234, 3.0, 90, 360, 0, 4, 128, 0.0, {"meadow": 7}, "CPU", 0, "9.9")
    return Row(name, found, made)


def cells(text: str, label: str) -> list[list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return [line[1:] for line in lines if line[0] == label]


def test_the_tables_say_what_was_measured() -> None:
    full = row(FULL, (0.5, 1.5, 2.5, 9.0), (0.9, 4.0, 6.0, None))
    lost = row(OFF, (9.0,) * 4, (9.0, 9.0, None, None))
    text = update_page(None, [full, lost], SETTING)
    alone, stages, registration, likeness, training = cells(text, "full")
    assert alone == ["25", "50", "75", "75", "2.00", "25", "25", "25", "50", "5.00", "–"]
    assert alone == stages == registration
    assert cells(text, "FGE: off")[0] == [*["0"] * 4, "9.00", *["0"] * 4, "∞", "0 : 5 (-1.8)"]
    assert likeness == ["0.50 / 0.25"]
    assert training == ["1,234", "128", "4", "0", "3.00", "90", "0", "360", "2.0"]
    assert SETTING.command in text
    assert "4 of meadow m, 4 of meadow H" in text
    assert "standard error of a share is 25 points at 50 %, and 15 at 10 %" in text
    assert "3 minutes of training per row on CPU, from meadow (7 pairs); seed 0, somareg 9.9." in text


def test_clear_differences_are_named() -> None:
    good, bad = (0.5,) * 6, (3.0,) * 6
    rows = [row(FULL, good, good), row(OFF, bad, bad), row("custom", good, bad[:5] + good[:1])]
    text = update_page(None, rows, SETTING)
    assert cells(text, "FGE: off")[0][-1] == "**0 : 12 (-3.2)**"
    assert cells(text, "custom")[0][-1] == "0 : 5 (-1.8)"
    assert "- Registration, worse than the full row by more than 2 standard errors: FGE: off." in text
    assert "- Registration, better than the full row by more than 2 standard errors: none." in text
    assert "another seed alone" not in text
    assert "Registration: another seed alone" in update_page(None, [*rows, row(ANOTHER_SEED, bad, bad)], SETTING)
    assert "no full row" in update_page(None, rows[1:], SETTING)


def test_no_threshold_below_the_labels_is_quoted() -> None:
    text = update_page(None, [row(FULL, (0.5,), (0.5,), quoted=2.0)], SETTING)
    assert cells(text, "full")[0][:4] == ["–", "100", "100", "100"]


def test_prose_around_the_tables_is_kept(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "ablations.md"
    rows = [row(FULL, (0.5,), (0.5,))]
    first = update_page(page, rows, SETTING)
    assert page.read_text().startswith("# Ablations\n")
    page.write_text("# Mine\n\nbefore\n\n" + page.read_text().partition("\n\n")[2] + "\nafter\n")
    update_page(page, [row(FULL, (7.0,), (7.0,))], SETTING)
    changed = page.read_text()
    assert changed.startswith(f"# Mine\n\nbefore\n\n{BEGIN}\n")
    assert changed.endswith(f"{END}\n\nafter\n")
    assert first not in changed
    update_page(page, rows, SETTING)
    assert first in page.read_text()
    assert page.read_text().count(BEGIN) == 1
    page.write_text("# No marks")
    with pytest.raises(InputError, match="does not say where the table goes"):
        update_page(page, rows, SETTING)
    assert page.read_text() == "# No marks"


def test_the_page_of_this_clone_takes_the_tables(tmp_path: Path) -> None:
    page = tmp_path / "ablations.md"
    page.write_text((CONFIGS.parent / "docs" / "ablations.md").read_text(encoding="utf-8"), encoding="utf-8")
    assert update_page(page, [row(FULL, (0.5,), (0.5,))], SETTING) in page.read_text(encoding="utf-8")


# --- measuring --------------------------------------------------------------------------------------------------------


def stack(level: str, shifts: list[float]) -> SampleStack:
    """Smooth noise; the truth is a shift along x."""
    generator = torch.Generator().manual_seed(len(level) + len(shifts))
    noise = torch.rand((len(shifts), 1, SIDE // 4, SIDE // 4), generator=generator)
    grey = torch.nn.functional.interpolate(noise, scale_factor=4, mode="bicubic").clamp(0, 1).mul(255).byte()
    matrix = torch.eye(2, 3, dtype=torch.float64).repeat(len(shifts), 1, 1)
    matrix[:, 0, 2] = torch.tensor(shifts, dtype=torch.float64)
    reference = grey.expand(-1, 3, -1, -1).contiguous()
    index, group = tuple(range(len(shifts))), ("g",) * len(shifts)
    return SampleStack("meadow", "val", level, grey[:, 0].contiguous(), reference, matrix, index, group, 1.0)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = ProtocolSamples((stack("m", [2.0, 3.0, 0.0]), stack("H", [9.0, 4.0])))
    return made.save(tmp_path_factory.mktemp("samples") / "val.safetensors")


def test_registration_is_measured_as_validation_does(samples: Path) -> None:
    network = small_network()
    found = Judge(samples, 3, CPU).of_network(network)
    errors = found.registration
    assert {name: len(each) for name, each in errors.items()} == {"meadow m": 2, "meadow H": 1}
    scores = validate_samples(network, ProtocolSamples.load(samples), 3, CPU)
    for name in errors:
        value = float(np.median([math.inf if e is None else e for e in errors[name]]))
        # the lattice of 16 x 16 points against all pixels
        assert value == pytest.approx(scores[f"{name.replace(' ', '_')}/median_px"], rel=2e-2, abs=1e-3)
    assert [s.name for s in found.similarity][:3] == ["before FGE 1/2", "before FGE 1/4", "before FGE 1/8"]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that finds nothing, in no time."""
    monkeypatch.setattr("somareg.lab.evaluate.ablation_rows.align", lambda *_, **__: SimpleNamespace(failure="nothing"))


@pytest.mark.usefixtures("failing")
def test_errors_belong_to_their_samples(samples: Path) -> None:
    """A matcher that may not move leaves every sample at its own start."""
    cfg = small_network().cfg
    rigid = replace(cfg.glam, coarse=None, affine=False, local=LocalCfg(variance_px2=1e-9))
    judge = Judge(samples, None, CPU)
    found, start = judge.of_network(Soma(replace(cfg, glam=rigid)).eval()), judge.of_identity()
    for errors in (found.network, found.stages, start.network, start.stages, start.registration):
        assert errors == {
            "meadow m": pytest.approx((2.0, 3.0, 0.0), abs=1e-3),
            "meadow H": pytest.approx((9.0, 4.0), abs=1e-3),
        }
    assert found.registration == {"meadow m": (None,) * 3, "meadow H": (None,) * 2}
    truth = ProtocolSamples.load(samples).stacks[1].matrix[0].numpy()
    dense = rmse(point_errors(np.zeros((2, SIDE, SIDE), np.float32), truth, (SIDE, SIDE)))
    assert start.registration["meadow H"][0] == pytest.approx(dense, abs=1e-5)
    assert start.quoted_from == {"meadow m": 1.0, "meadow H": 1.0}


@pytest.mark.usefixtures("failing")
def test_the_network_may_start_from_the_identity(samples: Path) -> None:
    """Random coarse matches are far off; without them the stages stay within their reach."""
    found = Judge(samples, None, CPU).of_network(small_network())
    for name, starts in {"meadow m": (2.0, 3.0, 0.0), "meadow H": (9.0, 4.0)}.items():
        assert found.network[name] != found.stages[name]
        for error, start in zip(found.stages[name], starts, strict=True):
            assert error is not None
            assert abs(error - start) < 30


def test_the_weight_free_engine_solves_what_has_one_sensor(samples: Path) -> None:
    found = Judge(samples, 3, CPU).of_engine()
    # the two images of a sample are the same, whatever its truth says
    assert found.registration == {
        "meadow m": pytest.approx((2.0, 3.0), abs=0.3),
        "meadow H": pytest.approx((9.0,), abs=0.3),
    }
    assert found.network == {}


# --- the runner -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configurations and tiles."""
    place = tmp_path_factory.mktemp("place")
    (place / "configs" / "ablation").mkdir(parents=True)
    (place / "configs" / "base.yaml").write_text(BASE)
    (place / "configs" / "ablation" / f"{FULL}.yaml").write_text("{}")
    (place / "configs" / "ablation" / f"{OFF}.yaml").write_text("network: {encoder: {fge: null}}")
    draw = torch.Generator().manual_seed(0)
    count, size = 2, 128
    TileSet(
        sar=torch.randint(0, 256, (count, size, size), generator=draw, dtype=torch.uint8),
        optical=torch.randint(0, 256, (count, 3, size, size), generator=draw, dtype=torch.uint8),
        valid=torch.ones((count, size, size), dtype=torch.bool),
        label=torch.eye(2, 3).repeat(count, 1, 1),
        group=("a", "b"),
        source=("meadow",) * count,
        name=("meadow/1@0,0", "meadow/2@0,0"),
    ).save(place / "tiles-00000.safetensors")
    return place


@pytest.fixture
def asked(place: Path, samples: Path, tmp_path: Path) -> AblateCfg:
    return AblateCfg(
        out=tmp_path / "out",
        tiles=(str(place / "tiles-00000.safetensors"),),
        validation=samples,
        minutes=0.02,
        limit=2,
        rows=(FULL, OFF),
        configs=place / "configs",
        base="base.yaml",
        accelerator="cpu",
    )


Trainings = list[tuple[TrainCfg, Path]]


def told(judge: Judge, network: Soma | None = None) -> Measured:
    """In place of the judge: the error of every sample is what tells the network's weights."""
    error = 0.5 if network is None else float(sum(p.detach().abs().sum() for p in network.parameters()))
    errors = {"meadow m": (error,) * (judge.limit or 9)}
    alone = {} if network is None else errors
    return Measured(judge.fingerprint, {"meadow m": 1.0}, network=alone, stages=alone, registration=errors)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    """Every call of the engine, which does not train but leaves a checkpoint with the minutes used up.

    The judge is a stand-in too.
    """
    for name in ("of_network", "of_engine"):
        monkeypatch.setattr(Judge, name, told)
    calls: Trainings = []

    def fake(cfg: TrainCfg, folder: Path, *, resume: bool) -> SimpleNamespace:
        assert resume
        calls.append((cfg, folder))
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(cfg.seed)
        state = Soma(cfg.network).state_dict()
        record = {"minutes": cfg.optimiser.total_minutes, "steps": 5, "skipped": 1, "synthetic_share": 0.0}
        record |= {"data": [{"set": "meadow", "pairs": 2}], "device": "CPU", "seed": cfg.seed, "version": "1"}
        whole = {f"network.{name}": torch.zeros_like(tensor) for name, tensor in state.items()}
        torch.save({"state_dict": whole, "ema": state, "somareg": record}, folder / "last.ckpt")
        return SimpleNamespace(stopped="time")

    monkeypatch.setattr("somareg.lab.train.engine.train", fake)
    return calls


def test_a_finished_row_is_not_trained_again(asked: AblateCfg, trainings: Trainings) -> None:
    rows = ablate(asked)
    assert [row.name for row in rows] == [FULL, OFF, "weight-free", "identity"]
    assert [folder.name for _, folder in trainings] == [FULL, OFF]
    assert [cfg for cfg, _ in trainings] == [row_config(name, asked) for name in (FULL, OFF)]
    made = rows[0].training
    assert made is not None
    assert (made.steps, made.pairs, made.crop, made.drawn_from) == (5, 5, 64, {"meadow": 2})
    before = {path: path.read_bytes() for path in asked.out.glob("*.json")}
    assert ablate(asked) == rows
    assert len(trainings) == 2
    assert {path: path.read_bytes() for path in asked.out.glob("*.json")} == before
    assert len(json.loads((asked.out / RESULT).read_text())["rows"]) == 4
    # other samples are measured anew, without training
    more = ablate(replace(asked, limit=4))
    assert len(trainings) == 2
    assert [len(row.measured.registration["meadow m"]) for row in more] == [4, 4, 4, 2]
    # a row whose folder was removed is made anew
    (asked.out / FULL / "last.ckpt").unlink()
    ablate(asked)
    assert [folder.name for _, folder in trainings] == [FULL, OFF, FULL]


def test_the_averaged_weights_are_measured(asked: AblateCfg, trainings: Trainings) -> None:
    found = ablate(replace(asked, rows=(FULL,)))[0].measured
    cfg, _ = trainings[0]
    torch.manual_seed(cfg.seed)
    network = Soma(cfg.network)  # what the stand-in gave as average; its last weights are zeros
    assert found == told(Judge(asked.validation, asked.limit, CPU), network)
    assert min(found.network["meadow m"]) > 0


def test_a_signal_stops_the_runner_and_it_goes_on(
    asked: AblateCfg, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("somareg.lab.train.engine.train", lambda *_, **__: SimpleNamespace(stopped="interrupted"))
        with pytest.raises(Interrupted):
            ablate(asked)
        assert not list(asked.out.glob("*.json"))
        assert main(arguments_of(asked)) == 130
    assert main(arguments_of(asked)) == 0
    assert len(trainings) == 2


def arguments_of(asked: AblateCfg, *more: str) -> list[str]:
    return [
        *("--data", *asked.tiles, "--validation", str(asked.validation), "--out", str(asked.out)),
        *("--minutes", str(asked.minutes), "--limit", str(asked.limit), "--rows", *asked.rows),
        *("--configs", str(asked.configs), "--base", asked.base, "--accelerator", "cpu", *more),
    ]


def test_the_command_writes_the_page_and_says_its_own_words(
    asked: AblateCfg, trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments_of(asked, "--page", "page.md")) == 0
    text = (tmp_path / "page.md").read_text()
    assert f"--out out --minutes 0.02 --limit 2 --rows {FULL} {OFF}" in text  # where it was run is nobody's business
    assert [len(cells(text, label)) for label in ("full", "FGE: off", "weight-free engine")] == [4, 4, 1]
    assert text.partition(BEGIN)[2].partition(END)[0].strip() == capsys.readouterr().out.strip()
    (tmp_path / "bare.md").write_text("no marks")
    assert main(arguments_of(replace(asked, out=tmp_path / "new"), "--page", "bare.md")) == 2
    assert "bare.md does not say where" in capsys.readouterr().err
    assert len(trainings) == 2  # told before anything was trained
    assert main(arguments_of(replace(asked, rows=("fge-of",)))) == 2
    assert "no row 'fge-of'" in capsys.readouterr().err


def test_a_damaged_row_is_named(asked: AblateCfg, trainings: Trainings) -> None:
    ablate(asked)
    (asked.out / f"{OFF}.json").write_text('{"name": 3}')
    with pytest.raises(ReadError, match=rf"{OFF}\.json is not a row of ablations"):
        ablate(asked)


def test_the_real_engine_trains_resumes_and_keeps_settings_apart(asked: AblateCfg) -> None:
    asked = replace(asked, rows=(FULL,))
    folder = asked.out / FULL
    begun = train(row_config(FULL, asked), folder, max_minutes=0.004)
    first = logged(folder)
    assert first[-1][0] == str(begun.steps)
    made = ablate(asked)[0].training
    assert made is not None
    assert made.steps > begun.steps
    assert asked.minutes <= made.minutes < asked.minutes + 0.1
    assert logged(folder)[: len(first)] == first  # it went on, and did not begin again
    assert [step for step, _ in logged(folder)] == [str(i + 1) for i in range(made.steps)]
    assert read_checkpoint(folder / "last.ckpt")["somareg"]["scores"] == {}  # no minute went into validation
    assert (made.parameters, made.drawn_from) == (Soma(row_config(FULL, asked).network).parameter_count, {"meadow": 2})
    with pytest.raises(ConfigError, match="was trained with other settings"):
        ablate(replace(asked, minutes=0.03))
    assert runner.main(arguments_of(asked)) == 0


def logged(folder: Path) -> list[tuple[str, str]]:
    with (folder / "train.csv").open(newline="") as file:
        return [(line["step"], line["loss"]) for line in csv.DictReader(file)]
