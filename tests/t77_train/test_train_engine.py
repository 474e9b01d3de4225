"""The engine: skipping, averaging, two processes, settings; with a tiny network."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from somareg.errors import ConfigError, EstimationError, OutputError, ReadError, UnsupportedError
from somareg.lab.train.config import load_config, save_config
from somareg.lab.train.ema import Ema
from somareg.lab.train.guard import AtomicCheckpointIO
from somareg.lab.train.sources import NETWORK, seed_of
from somareg.lab.train.task import Schedule
from tests.t77_train.standin import (
    FixedValidator,
    NoiseSource,
    TinyNet,
    make_cfg,
    objective,
    parts,
    read,
    run,
    same,
    spawn,
)

pytestmark = pytest.mark.usefixtures("one_thread")


# --- what is not finite -----------------------------------------------------------------------------------------------


def poisoned(steps: set[int], gradient: bool = False) -> Any:
    def bad(network: nn.Module, batch: Any, cfg: Any, *, step: int, progress: float) -> Any:
        loss, logs = objective(network, batch, cfg, step=step, progress=progress)
        if step in steps:
            zero = network.get_parameter("last.bias").sum() * 0.0
            # a finite loss whose gradient is not: the slope of sqrt at 0
            loss = loss + zero.sqrt() if gradient else loss * math.inf
        return loss, logs

    return bad


@pytest.mark.parametrize("gradient", [False, True])
def test_a_step_that_is_not_finite_changes_nothing(tmp_path: Path, gradient: bool) -> None:
    run(make_cfg(max_steps=3), tmp_path / "before")
    bad = parts(objective=poisoned({3}, gradient))
    result = run(make_cfg(max_steps=4), tmp_path / "run", parts=bad)
    a, b = read(tmp_path / "before" / "last.ckpt"), read(tmp_path / "run" / "last.ckpt")
    assert (result.skipped, result.steps, b["somareg"]["bad_in_a_row"]) == (1, 4, 1)
    assert same(a["state_dict"], b["state_dict"])
    assert same(a["ema"], b["ema"])
    assert same(a["optimizer_states"][0]["state"][0], b["optimizer_states"][0]["state"][0])
    # and it goes on
    after = run(make_cfg(max_steps=5), tmp_path / "run", parts=bad, resume=True)
    c = read(tmp_path / "run" / "last.ckpt")
    assert (after.skipped, c["somareg"]["bad_in_a_row"]) == (1, 0)
    assert not same(b["state_dict"], c["state_dict"])


def test_a_checkpoint_of_another_optimiser_is_as_safe(tmp_path: Path) -> None:
    """Runs that began with AdamW unfused (float16, or before it was fused) still drop a bad step."""
    run(make_cfg(max_steps=3), tmp_path / "run")
    path = tmp_path / "run" / "last.ckpt"
    before = read(path)
    for group in before["optimizer_states"][0]["param_groups"]:
        group["fused"] = None
    torch.save(before, path)
    result = run(make_cfg(max_steps=4), tmp_path / "run", parts=parts(objective=poisoned({3})), resume=True)
    after = read(path)
    assert (result.skipped, result.steps) == (1, 4)
    assert same(before["state_dict"], after["state_dict"])


def test_divergence_ends_with_the_last_good_checkpoint(tmp_path: Path) -> None:
    cfg = make_cfg(max_steps=60, checkpoint_minutes=0.0)
    with pytest.raises(EstimationError, match=r"20 steps in a row up to step 24; lower optimiser\.lr"):
        run(cfg, tmp_path / "run", parts=parts(objective=poisoned(set(range(5, 60)))))
    checkpoint = read(tmp_path / "run" / "last.ckpt")
    assert all(bool(tensor.isfinite().all()) for tensor in checkpoint["state_dict"].values())
    assert checkpoint["somareg"]["skipped"] == 19


# --- a step by hand, in one process and in two ------------------------------------------------------------------------


def by_hand(steps: int, ranks: int, *, clip: float, seed: int = 3) -> tuple[TinyNet, list[Tensor]]:
    """The network after some steps with averaged gradients, and the average of its first kernel after every step."""
    cfg = make_cfg()
    torch.manual_seed(seed)
    network = TinyNet()
    sources = [NoiseSource(cfg, rank, torch.device("cpu")) for rank in range(ranks)]
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 1e-4}, {"params": vectors, "weight_decay": 0.0}], lr=1e-2
    )
    schedule = Schedule(cfg.optimiser, 6, None)
    average, averages = network.first.weight.detach().clone(), []
    for step in range(steps):
        optimiser.zero_grad()
        for rank, source in enumerate(sources):
            torch.manual_seed(seed_of(seed, rank, NETWORK, step))
            loss, _ = objective(network, source.batch(step), None, step=step, progress=0.0)
            (loss / ranks).backward()
        nn.utils.clip_grad_norm_(network.parameters(), clip)
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate(step, 0.0)
        optimiser.step()
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * network.first.weight.detach()
        averages.append(average)
    return network, averages


def test_a_step_is_what_the_settings_say(tmp_path: Path) -> None:
    run(make_cfg(optimiser={"clip": 0.05, "weight_decay": 1e-4}), tmp_path / "run")
    network, averages = by_hand(6, 1, clip=0.05)
    checkpoint = read(tmp_path / "run" / "last.ckpt")
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(checkpoint["state_dict"][f"network.{name}"], tensor, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(checkpoint["ema"]["first.weight"], averages[-1], rtol=1e-5, atol=1e-7)
    unclipped, _ = by_hand(6, 1, clip=math.inf)
    assert not torch.allclose(unclipped.first.weight, network.first.weight, rtol=1e-3)


def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    cfg = {"devices": 2, "strategy": "ddp", "max_steps": 4, "checkpoint_minutes": 0.0}
    process = spawn(tmp_path / "run", {"cfg": cfg})
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    checkpoint = read(tmp_path / "run" / "last.ckpt")
    assert (checkpoint["global_step"], checkpoint["somareg"]["processes"]) == (4, 2)
    network, averages = by_hand(4, 2, clip=1.0)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(checkpoint["state_dict"][f"network.{name}"], tensor, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(checkpoint["ema"]["first.weight"], averages[-1], rtol=1e-4, atol=1e-6)
    alone, _ = by_hand(4, 1, clip=1.0)  # the second process drew pairs of its own
    assert not torch.allclose(alone.first.weight, network.first.weight, rtol=1e-2, atol=1e-3)
    # a run of two goes on as a run of one
    assert run(make_cfg(max_steps=5), tmp_path / "run", resume=True).steps == 5


# --- averaged weights, validation, checkpoints ------------------------------------------------------------------------


def test_ema_swaps_in_and_out() -> None:
    torch.manual_seed(0)
    network = TinyNet()
    ema = Ema(network, 0.5)
    initial = network.first.weight.detach().clone()
    with torch.no_grad():
        network.first.weight.add_(1.0)
    ema.update(0, torch.tensor(True))  # decay 0.1
    torch.testing.assert_close(ema.average["first.weight"], initial + 0.9)
    own = network.first.weight.detach().clone()
    with pytest.raises(KeyError), ema.swapped_in():
        torch.testing.assert_close(network.first.weight.detach(), initial + 0.9)
        raise KeyError
    assert torch.equal(network.first.weight, own)
    assert "count" not in ema.average  # an integer has no average
    with pytest.raises(ReadError, match="do not fit"):
        ema.load({"first.weight": initial})


def test_validation_sees_the_average_and_keeps_the_best(tmp_path: Path) -> None:
    judge = FixedValidator()
    worse = {"cmr_1": 0.0, "cmr_3": 0.4, "median_px": 0.1}
    scores = judge.scores
    judge.scores = lambda n, d: scores(n, d) if len(judge.seen) < 4 else (scores(n, d), worse)[1]  # type: ignore[method-assign]
    lines: list[str] = []
    cfg = make_cfg(val_every_minutes=0.0)
    result = run(cfg, tmp_path / "run", parts=parts(validator=lambda _: judge), report=lines.append)
    last, best = read(tmp_path / "run" / "last.ckpt"), read(tmp_path / "run" / "best.ckpt")
    assert len(judge.seen) == len(lines) == 6
    assert not any(judge.training)
    assert torch.equal(judge.seen[5], last["ema"]["first.weight"])
    assert not torch.equal(last["ema"]["first.weight"], last["state_dict"]["network.first.weight"])
    assert best["global_step"] == 4  # the median fell up to here, later ones have a lower CMR
    assert best["somareg"]["scores"]["median_px"] == 0.25
    assert result.scores == last["somareg"]["scores"] == worse
    assert result.best == tmp_path / "run" / "best.ckpt"
    # weights in training are as if nobody had looked
    run(make_cfg(), tmp_path / "blind")
    assert same(last["state_dict"], read(tmp_path / "blind" / "last.ckpt")["state_dict"])


def test_the_checkpoint_holds_what_export_needs(tmp_path: Path) -> None:
    result = run(make_cfg(), tmp_path / "run")
    checkpoint = read(result.checkpoint)  # weights_only
    names = set(TinyNet().state_dict())
    assert {key for key in checkpoint["state_dict"] if key.startswith("network.")} == {f"network.{n}" for n in names}
    assert set(checkpoint["ema"]) == names - {"count"}
    assert all(tensor.dtype == torch.float32 for tensor in checkpoint["ema"].values())
    record = checkpoint["somareg"]
    assert record["data"] == [{"set": "noise", "role": "train", "pairs": 1, "licence": "none"}]
    assert (record["steps"], record["seed"], record["skipped"]) == (6, 3, 0)
    assert record["config"]["run"]["batch"] == 2
    assert record["minutes"] == result.minutes > 0
    assert json.loads(json.dumps(record)) == record


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path, guard = tmp_path / "last.ckpt", AtomicCheckpointIO()
    guard.save_checkpoint({"step": 1}, path)

    class Full:
        def __reduce__(self) -> Any:
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="make room and resume"):
        guard.save_checkpoint({"step": Full()}, path)
    assert guard.load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_half_precision_never_touches_the_batch(tmp_path: Path) -> None:
    seen: dict[str, torch.dtype] = {}

    class Multiplying(NoiseSource):
        def batch(self, step: int) -> Any:
            seen["draw"] = (torch.eye(2) @ torch.eye(2)).dtype
            return super().batch(step)

    def looking(network: nn.Module, batch: Any, *args: Any, **kwargs: Any) -> Any:
        seen["network"] = network(batch.moving).dtype
        return objective(network, batch, *args, **kwargs)

    run(make_cfg(precision="bf16-mixed"), tmp_path / "run", parts=parts(objective=looking, source=Multiplying))
    assert seen == {"draw": torch.float32, "network": torch.bfloat16}
    checkpoint = read(tmp_path / "run" / "last.ckpt")
    assert checkpoint["state_dict"]["network.first.weight"].dtype == torch.float32


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings_of_the_process_are_put_back(tmp_path: Path) -> None:
    torch.manual_seed(11)
    state = torch.get_rng_state()
    run(make_cfg(threads=2, tf32=True, max_steps=1), tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == 1
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match="cannot be had here"):
        run(make_cfg(accelerator="cuda"), tmp_path / "run")


def test_config_reads_what_it_writes(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("optimiser:\n  lr: 1e-4\n  weight_decay: 5\nrun: {devices: [0, 1], precision: bf16-mixed}\n")
    cfg = load_config(file, ["run.batch=16", "data.draw.scale=[0.9, 1.1]", "optimiser.schedule=time", "seed=7"])
    assert (cfg.optimiser.lr, cfg.optimiser.weight_decay, cfg.run.devices) == (1e-4, 5.0, (0, 1))
    assert (cfg.run.batch, cfg.data.draw.scale, cfg.seed) == (16, (0.9, 1.1), 7)
    save_config(cfg, tmp_path / "copy.yaml")
    assert load_config(tmp_path / "copy.yaml") == cfg
    assert load_config(None, extra={"data.tiles": ["a"]}).data.tiles == ("a",)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.bach=3", "unknown option 'run.bach'. Did you mean 'batch'?"),
        ("optimser.lr=3", "Did you mean 'optimiser'?"),
        ("run.batch=many", "bad value 'many' for option 'run.batch'"),
        ("run.batch", "write it as key.sub=value"),
        ("run.batch=0", "run.batch is 0; give 1 or more"),
        ("optimiser.schedule=cosin", "Did you mean 'cosine'?"),
        ("optimiser.schedule=cosine", "needs optimiser.total_steps or run.max_steps"),
        ("data.synthetic_share=1.5", "it is a share"),
        ("run=[1", "is not YAML"),
    ],
)
def test_config_errors_name_the_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_without_lightning_one_line_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['lightning'] = None\n"
        "import somareg.lab.train.config, somareg.lab.train.sources\n"
        "try:\n    import somareg.lab.train.engine\n"
        "except ValueError as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("pip install 'somareg[train]'")
    assert done.stdout.startswith(UnsupportedError.__name__)


def test_the_engine_needs_no_rasterio() -> None:
    code = "import sys; sys.modules['rasterio'] = None; import somareg.lab.train.engine, somareg.lab.train.judge"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_rank_never_repeats_anothers_draws() -> None:
    cfg = make_cfg()
    batches = {
        (rank, step): NoiseSource(cfg, rank, torch.device("cpu")).batch(step).moving
        for rank in range(2)
        for step in range(3)
    }
    keys = list(batches)
    for i, one in enumerate(keys):
        for other in keys[i + 1 :]:
            assert not torch.equal(batches[one], batches[other])
