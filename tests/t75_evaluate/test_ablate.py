"""The ablation runner and its page: rows are trained once, resumed, measured, and told side by side."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from somareg.errors import ConfigError, InputError, ReadError
from somareg.lab.data.tiles import TileSet
from somareg.lab.evaluate import ablate as runner
from somareg.lab.evaluate.ablate import RESULT, Interrupted, ablate, main
from somareg.lab.evaluate.ablation_config import ANOTHER_SEED, FULL, AblateCfg, row_config
from somareg.lab.evaluate.ablation_page import BEGIN, END, Setting, update_page
from somareg.lab.evaluate.ablation_rows import Judge, Measured, Row, Training
from somareg.lab.evaluate.diagnosis import Similarity
from somareg.lab.train import callbacks
from somareg.lab.train.config import TrainCfg
from somareg.lab.train.engine import train
from somareg.lab.train.export import read_checkpoint
from somareg.soma.network import Soma

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CPU = torch.device("cpu")
OFF = "fge-off_glam-full"

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

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_what_one_part_is_worth_without_another_is_told() -> None:
    good, bad = (0.5,) * 6, (3.0,) * 6
    rows = [row(FULL, good, good), row("orientation-off", good, bad), row("orientation-off_fge-off", bad, bad)]
    said = (
        "- Registration, neither orientation channels nor FGE against no orientation channels, better : worse (z): "
        "**0 : 6 (-2.0)**."
    )
    assert said in update_page(None, rows, SETTING)
    assert "against" not in update_page(None, rows[:2], SETTING)


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


def test_the_real_engine_trains_resumes_and_keeps_settings_apart(
    asked: AblateCfg, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = count()
    monkeypatch.setattr(callbacks, "monotonic", lambda: 0.1 * next(looks))  # how fast the machine is does not matter
    asked = replace(asked, rows=(FULL,))
    folder = asked.out / FULL
    begun = train(row_config(FULL, asked), folder, max_minutes=0.004)
    first = logged(folder)
    assert first[-1][0] == str(begun.steps)
    made = ablate(asked)[0].training
    assert made is not None
    assert made.steps > begun.steps
    assert asked.minutes <= made.minutes < asked.minutes + 0.002  # a look at the clock later at most
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
