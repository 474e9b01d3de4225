"""The page on pretraining: one command pretrains, trains the rows and draws; a second one has nothing to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from somareg.lab.data.bundle import write_bundle
from somareg.lab.data.stacks import ProtocolSamples
from somareg.lab.data.tiles import TileSet
from somareg.lab.train.export import network_state, read_checkpoint
from somareg.soma.weights import load_network
from tests.programs import program
from tests.t75_evaluate.meadow import stack

PLAN = """
network:
  encoder:
    compact: {band_channels: 4, widths: [8, 8, 8, 16], depths: [1, 1, 1, 1], outputs: [8, 8, 8, 16]}
    fge: null
  glam: {coarse: null}
data: {draw: {crop: 64, smooth_share: 0.0}}
optimiser: {warmup_steps: 1}
run: {batch: 1, log_every_steps: 1, checkpoint_minutes: 0.0, threads: 1}
"""
STUDY = """
plan: plan.yaml
common: [run.accelerator=cpu]
reference: from nothing
judged: [meadow m]
limit: 1
rows:
  from nothing: []
  pretrained, frozen: [initial=runs/pretrained/sar.safetensors, "frozen=[encoder.branches.sar.backbone]"]
"""


@pytest.mark.usefixtures("one_thread")
def test_the_rows_start_from_weights_that_saw_no_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    script = program("benchmarks/questions/pretraining.py")
    dice = torch.Generator().manual_seed(0)
    tiles = TileSet(
        sar=torch.randint(0, 256, (2, 128, 128), generator=dice, dtype=torch.uint8),
        optical=torch.randint(0, 256, (2, 3, 128, 128), generator=dice, dtype=torch.uint8),
        valid=torch.ones((2, 128, 128), dtype=torch.bool),
        label=torch.eye(2, 3).repeat(2, 1, 1),
        group=("a", "b"),
        source=("meadow",) * 2,
        name=("meadow/1@0,0", "meadow/2@0,0"),
    )
    pack = tmp_path / "pack.safetensors"
    write_bundle(pack, [tiles], ProtocolSamples((stack("m", [2.0]),)), max_mb=4.0)
    (tmp_path / "plan.yaml").write_text(PLAN)
    (tmp_path / "study.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    arguments = [str(pack), "--minutes", "0.02", "--study", str(tmp_path / "study.yaml")]
    arguments += ["--json", str(tmp_path / "results.json"), "--picture", str(tmp_path / "rows.png")]
    assert script.main(arguments) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["row"] for row in rows] == ["weight-free", "from nothing", "pretrained, frozen"]
    assert (tmp_path / "rows.png").stat().st_size > 1000
    # Frozen: the SAR encoder of that row is the pretrained one, bit by bit.
    pretrained = load_network(tmp_path / script.WEIGHTS).encoder.branches["sar"].state_dict()
    folder = tmp_path / "runs" / "pretraining" / "0.02-minutes" / "pretrained-frozen-0"
    last = folder / script.LAST
    state = network_state(read_checkpoint(last), last)
    same = [name for name in pretrained if name.startswith("backbone")]
    assert same
    for name in same:
        torch.testing.assert_close(state[f"encoder.branches.sar.{name}"], pretrained[name], rtol=0, atol=0)
    before = (tmp_path / "results.json").read_text()
    assert script.main(arguments) == 0
    assert (tmp_path / "results.json").read_text() == before
