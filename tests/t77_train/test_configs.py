"""The configurations in `configs/`: what they say, how they build on each other, and that the published one trains."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from somareg.errors import ConfigError
from somareg.lab.data.batch import PairBatch
from somareg.lab.train.config import TrainCfg, load_config, save_config
from somareg.lab.train.objective import objective
from somareg.lab.train.sources import open_source
from somareg.soma.fge import FgeCfg
from somareg.soma.network import Soma

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
STUDIES = {"ablation.yaml", "pretraining.yaml"}  # lists of rows, which t75_evaluate/test_ablation.py reads
FILES = sorted({path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml")} - STUDIES)
ROW = re.compile(
    r"\| \[`(?P<file>[^`]+)`\]\((?P=file)\) \| (?P<what>[^|]+) "
    r"\| (?P<count>[\d,]+) \| `(?P<command>[^`]+)` \|"
)
# Synthetic pairs of 96 px: small enough for a step of a ResNet-50 within seconds.
SMALL = (
    *("data.tiles=[]", "data.synthetic_share=1", "data.synthetic_pool=2", "data.synthetic_chunk=2"),
    *("data.synthetic_size=160", "data.draw.crop=96", "run.batch=2"),
)

pytestmark = pytest.mark.usefixtures("one_thread")


# --- the table ------------------------------------------------------------------------------------------------------


def table() -> dict[str, re.Match[str]]:
    return {row["file"]: row for row in ROW.finditer((CONFIGS / "README.md").read_text(encoding="utf-8"))}


def test_the_table_names_every_file() -> None:
    assert sorted(table()) == FILES
    assert len(FILES) >= 9


@pytest.mark.parametrize("file", FILES)
def test_a_file_builds_what_the_table_says(file: str) -> None:
    cfg = load_config(CONFIGS / file)
    with torch.device("meta"):  # every layer is made, no number is drawn
        network = Soma(cfg.network)
    row = table()[file]
    assert network.parameter_count == int(row["count"].replace(",", ""))
    name = Path(file).stem
    assert row["command"].startswith(f"somareg train -c configs/{file} -o runs/{name}")
    needs_minutes = cfg.optimiser.schedule == "time" and cfg.run.max_minutes is None
    assert needs_minutes == ("--max-minutes" in row["command"])


# --- extends --------------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_is_merged_into_the_one_that_it_extends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path / "base.yaml",
        "seed: 3\nrun: {batch: 5, ema: 0.5}\ndata: {tiles: [a, b], licences: {a: x}}\n"
        "network: {encoder: {fge: {filters: conv, directions: 4}}}",
    )
    write(
        tmp_path / "a" / "middle.yaml",
        "extends: ../base.yaml\nrun: {batch: 6}\ndata: {tiles: [c], licences: {b: y}}\n"
        "network: {encoder: {fge: {directions: 6}}}",
    )
    last = write(tmp_path / "a" / "b" / "last.yaml", "extends: ../middle.yaml\nnetwork: {encoder: {fge: null}}")
    monkeypatch.chdir(tmp_path / "a")  # relative to the file, wherever one stands
    middle = load_config(Path("middle.yaml"))
    assert (middle.seed, middle.run.batch, middle.run.ema) == (3, 6, 0.5)
    assert middle.data.tiles == ("c",)  # a list is replaced, a mapping merged
    assert middle.data.licences == {"a": "x", "b": "y"}
    assert middle.network.encoder.fge == FgeCfg(filters="conv", directions=6)
    found = load_config(last, ["run.ema=0.25"], {"seed": 4})
    assert found.network.encoder.fge is None
    assert (found.seed, found.run.batch, found.run.ema) == (4, 6, 0.25)
    save_config(found, tmp_path / "saved.yaml")
    assert "extends" not in (tmp_path / "saved.yaml").read_text()
    assert load_config(tmp_path / "saved.yaml") == found
    # YAML 1.1 would read the word as false
    assert load_config(None, ["network.encoder.fge.filters=off"]).network.encoder.fge == FgeCfg(filters="off")
    assert load_config(None, ["network.encoder.fge.attention=false"]).network.encoder.fge == FgeCfg(attention=False)
    with pytest.raises(ConfigError, match=r"attention"):
        load_config(None, ["network.encoder.fge.attention=off"])
    # a switched-off part can be switched on again, from its defaults
    write(tmp_path / "a" / "on.yaml", "extends: b/last.yaml\nnetwork: {encoder: {fge: {directions: 4}}}")
    assert load_config(tmp_path / "a" / "on.yaml").network.encoder.fge == FgeCfg(directions=4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: one.yaml", r"one\.yaml extends itself"),
        ("extends: two.yaml", r"one\.yaml extends itself"),
        ("extends: absent.yaml", r"one\.yaml: extends names .*absent\.yaml, which is no file"),
        ("extends: [two.yaml]", r"one\.yaml: extends is \['two\.yaml'\]; give one YAML file"),
        ("extends: typo.yaml", r"unknown option 'run\.bach'\. Did you mean 'batch'"),
        ("run: {extends: typo.yaml}", r"unknown option 'run\.extends'"),
    ],
)
def test_what_cannot_be_extended_is_refused(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "two.yaml", "extends: link/one.yaml")  # a cycle through another spelling of the same folder
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    write(tmp_path / "typo.yaml", "run: {bach: 3}")
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path / "one.yaml", text))


# --- the published configuration ------------------------------------------------------------------------------------


def tiny_dinov2(folder: Path) -> Path:
    """A random DINOv2 with registers in the hub's format, 16 channels instead of 1024."""
    transformers = pytest.importorskip("transformers")
    settings = transformers.Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14
    )
    torch.manual_seed(0)
    transformers.Dinov2WithRegistersModel(settings).save_pretrained(folder)
    return folder


def prepared(file: str, *settings: str) -> tuple[TrainCfg, Soma, PairBatch]:
    cfg = load_config(CONFIGS / file, [*SMALL, *settings])
    torch.manual_seed(0)
    network = Soma(cfg.network).train()
    source = open_source(cfg.data, batch=cfg.run.batch, seed=0, rank=0, device=torch.device("cpu"))
    return cfg, network, source.batch(0)


def backward(network: Soma, batch: PairBatch, cfg: TrainCfg) -> float:
    """Loss and fresh gradients, the stages starting from the same places every time."""
    network.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    loss, _ = objective(network, batch, cfg.objective, step=0, progress=0.0)
    loss.backward()
    return loss.item()


def without_gradient(network: Soma) -> list[str]:
    return [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def step_and_check(cfg: TrainCfg, network: Soma, batch: PairBatch, lr: float) -> None:
    """One step lowers the loss of the same batch; after it every parameter has a finite gradient that is not 0."""
    before = backward(network, batch, cfg)
    optimiser = torch.optim.AdamW(network.parameters(), lr, weight_decay=cfg.optimiser.weight_decay)
    torch.nn.utils.clip_grad_norm_(network.parameters(), cfg.optimiser.clip, error_if_nonfinite=True)
    optimiser.step()
    after = backward(network, batch, cfg)
    assert after < before
    assert without_gradient(network) == []
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_the_published_weights() -> None:
    paper = load_config(CONFIGS / "soma-paper.yaml")
    assert {name: value for name, value in vars(paper.objective.weights).items() if value} == {
        **{"flow": 1.0, "matching": 0.5, "reconstruction": 0.1},
        **{"nll": 0.1, "uniformity": 0.1, "certainty": 0.1},
    }


def test_the_published_configuration_takes_a_step(tmp_path: Path) -> None:
    folder = tiny_dinov2(tmp_path / "dinov2")
    stand_in = f"network.encoder.dinov2={{folder: {folder}, channels: 16, size: 448}}"
    cfg, network, batch = prepared("soma-paper.yaml", stand_in, "data.draw.crop=64")
    straight = replace(cfg, objective=replace(cfg.objective, turned=1.0))  # every pair teaches every stage
    trunk = network.get_submodule("encoder.branches.sar.backbone.trunk")
    assert sum(p.numel() for p in trunk.parameters()) > 23e6  # a ResNet-50 without its classifier
    shown = network.encoder.dinov2
    assert shown is not None
    vit = shown.load()
    frozen = {name: value.clone() for name, value in vit.state_dict().items()}
    step_and_check(straight, network, batch, cfg.optimiser.lr)
    assert all(torch.equal(frozen[name], value) for name, value in vit.state_dict().items())
    assert not any("dinov2" in name for name in network.state_dict())


def test_the_small_variant_takes_a_step() -> None:
    cfg, network, batch = prepared("soma-paper-small.yaml")
    straight = replace(cfg, objective=replace(cfg.objective, turned=1.0))
    step_and_check(straight, network, batch, 1e-4)  # its own rate, early in the warm-up
    paper = load_config(CONFIGS / "soma-paper.yaml")
    assert cfg.objective == paper.objective
    assert cfg.network.encoder.fge == paper.network.encoder.fge


def test_without_the_delta_supervision_the_middle_stages_learn_nothing() -> None:
    """Why `nll` stands among the published weights; reconstruction is off, for it reaches features but not matches."""
    cfg, network, batch = prepared("soma-paper-small.yaml", "objective.turned=1", "objective.weights.reconstruction=0")
    with_it = replace(cfg.objective.weights, nll=0.1)
    without = replace(cfg.objective.weights, nll=0.0)
    middle = [f"glam.log_temperature.{stride}" for stride in (8, 4)]
    branches = network.encoder.branches
    middle += [
        f"encoder.branches.{branch}.backbone.top_down.smooth.{stride}.2.weight"
        for branch in branches
        for stride in (4, 8)
    ]
    for weights, idle in ((without, set(middle)), (with_it, set())):
        backward(network, batch, replace(cfg, objective=replace(cfg.objective, weights=weights)))
        assert set(without_gradient(network)) & set(middle) == idle
