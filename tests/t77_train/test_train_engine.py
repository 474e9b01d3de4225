"""The engine: exact resume, stopping, skipping, averaging, two processes; with a tiny network."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from somareg.errors import ConfigError, EstimationError, OutputError, ReadError, UnsupportedError
from somareg.lab.train import callbacks
from somareg.lab.train.config import OptimiserCfg, load_config, save_config
from somareg.lab.train.ema import Ema
from somareg.lab.train.guard import AtomicCheckpointIO
from somareg.lab.train.sources import NETWORK, seed_of
from somareg.lab.train.task import Schedule
from tests.t77_train.standin import FixedValidator, NoiseSource, TinyNet, make_cfg, objective, parts, read, run

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, averages, moments, step numbers and logged figures agree bit by bit."""
    a, b = read(one / "last.ckpt"), read(other / "last.ckpt")
    assert a["global_step"] == b["global_step"]
    assert same(a["state_dict"], b["state_dict"])
    assert same(a["ema"], b["ema"])
    moments = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (a, b)]
    assert all(same(moments[0][i], moments[1][i]) for i in moments[0])
    assert rows(one, "step", "loss", "lr") == rows(other, "step", "loss", "lr")


def rows(folder: Path, *columns: str, table: str = "train.csv") -> list[tuple[str, ...]]:
    with (folder / table).open(newline="") as file:
        return [tuple(row[name] for name in columns) for row in csv.DictReader(file)]


# --- exact resume -----------------------------------------------------------------------------------------------------


def test_a_resumed_run_is_the_run_that_was_not_stopped(tmp_path: Path) -> None:
    straight = run(make_cfg(log_every_steps=1), tmp_path / "straight")
    run(make_cfg(log_every_steps=1, max_steps=3), tmp_path / "halves")
    resumed = run(make_cfg(log_every_steps=1), tmp_path / "halves", resume=True)
    assert (straight.steps, resumed.steps, resumed.stopped) == (6, 6, "steps")
    assert_same_run(tmp_path / "straight", tmp_path / "halves")
    assert [step for (step,) in rows(tmp_path / "halves", "step")] == list("123456")
    # the check can fail: another seed gives other weights
    run(make_cfg(seed=4), tmp_path / "other")
    assert not same(read(tmp_path / "other" / "last.ckpt")["ema"], read(tmp_path / "halves" / "last.ckpt")["ema"])


def test_kill_and_resume(tmp_path: Path) -> None:
    cfg = {"checkpoint_minutes": 0.0, "max_steps": 400, "optimiser": {"total_steps": 40}}
    killed, last = tmp_path / "killed", tmp_path / "killed" / "last.ckpt"
    process = spawn(killed, {"cfg": cfg, "pause": 0.02})
    deadline = time.monotonic() + 50
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    done = read(last)["global_step"]  # whole, although the process died while it wrote one after the other
    target = done + 3
    resumed = run(make_cfg(max_steps=target, optimiser={"total_steps": 40}), killed, resume=True)
    run(make_cfg(max_steps=target, optimiser={"total_steps": 40}), tmp_path / "straight")
    assert resumed.steps == target > 3
    a, b = read(last), read(tmp_path / "straight" / "last.ckpt")
    assert same(a["state_dict"], b["state_dict"])
    assert same(a["ema"], b["ema"])


def spawn(out: Path, options: dict[str, Any]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(WORKER), str(out), json.dumps(options)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def test_a_run_that_is_done_stays_as_it_is(tmp_path: Path) -> None:
    run(make_cfg(), tmp_path / "run")
    before = read(tmp_path / "run" / "last.ckpt")
    again = run(make_cfg(), tmp_path / "run", resume=True)
    assert (again.steps, again.stopped) == (6, "done")
    assert again.minutes == before["somareg"]["minutes"]
    assert same(read(tmp_path / "run" / "last.ckpt")["state_dict"], before["state_dict"])


def test_minutes_add_up_over_resumes(tmp_path: Path, clock: Clock) -> None:
    cfg = make_cfg(max_steps=None, optimiser={"schedule": "constant"})
    chosen = parts(objective=clock.objective)
    first = run(cfg, tmp_path / "run", max_minutes=1.0, parts=chosen)
    second = run(cfg, tmp_path / "run", max_minutes=0.5, resume=True, parts=chosen)
    assert (first.steps, second.steps) == (10, 15)
    assert first.minutes == pytest.approx(1.0)
    assert second.minutes == pytest.approx(1.5)
    assert read(second.checkpoint)["somareg"]["minutes"] == pytest.approx(1.5)


# --- time -------------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that only work moves: 6 s per step, 30 s per validation."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def objective(self, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        self.seconds += 6.0
        return objective(*args, **kwargs)

    def validator(self) -> FixedValidator:
        judge, clock = FixedValidator(), self
        scores = judge.scores

        def slow(network: nn.Module, device: torch.device) -> dict[str, float]:
            clock.seconds += 30.0
            return scores(network, device)

        judge.scores = slow  # type: ignore[method-assign]
        return judge


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(callbacks, "monotonic", lambda: made.seconds)
    return made


def test_stops_in_time_with_the_last_validation_inside(tmp_path: Path, clock: Clock) -> None:
    judge = clock.validator()
    cfg = make_cfg(max_steps=None, val_every_minutes=2.0, optimiser={"schedule": "time"})
    result = run(
        cfg, tmp_path / "run", max_minutes=5.0, parts=parts(objective=clock.objective, validator=lambda _: judge)
    )
    assert result.stopped == "time"
    assert 4.9 <= clock.seconds / 60 <= 5.0 + 0.1  # one step may end after the limit
    # validated after 2 min, 2 min after that, and in the end
    assert [row[0] for row in rows(tmp_path / "run", "step", table="validation.csv")] == ["20", "40"]
    assert read(result.checkpoint)["global_step"] == result.steps == 40
    assert read(result.checkpoint)["somareg"]["scores"] == result.scores


def test_the_time_schedule_ends_with_the_time(tmp_path: Path, clock: Clock) -> None:
    cfg = make_cfg(max_steps=None, log_every_steps=1, optimiser={"schedule": "time", "warmup_steps": 0, "floor": 0.0})
    run(cfg, tmp_path / "run", max_minutes=1.0, parts=parts(objective=clock.objective))
    rates = [float(rate) for (rate,) in rows(tmp_path / "run", "lr")]
    expected = [1e-2 * 0.5 * (1 + math.cos(math.pi * k / 10)) for k in range(10)]
    assert rates == pytest.approx(expected, rel=1e-4)


def test_total_minutes_span_resumes(tmp_path: Path, clock: Clock) -> None:
    wanted = {"schedule": "time", "warmup_steps": 0, "floor": 0.0, "total_minutes": 1.0}
    cfg = make_cfg(max_steps=None, log_every_steps=1, optimiser=wanted)
    chosen = parts(objective=clock.objective)
    run(cfg, tmp_path / "run", max_minutes=0.6, parts=chosen)
    result = run(cfg, tmp_path / "run", max_minutes=30.0, resume=True, parts=chosen)
    assert (result.steps, result.stopped) == (10, "time")
    rates = [float(rate) for (rate,) in rows(tmp_path / "run", "lr")]
    assert rates == pytest.approx([1e-2 * 0.5 * (1 + math.cos(math.pi * k / 10)) for k in range(10)], rel=1e-4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_the_step(tmp_path: Path, number: signal.Signals) -> None:
    def interrupted(*args: Any, step: int, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        if step == 2:
            os.kill(os.getpid(), number)
        return objective(*args, step=step, **kwargs)

    before = signal.getsignal(number)
    result = run(make_cfg(), tmp_path / "run", parts=parts(objective=interrupted))
    assert (result.stopped, result.steps) == ("interrupted", 3)
    assert signal.getsignal(number) is before
    assert run(make_cfg(), tmp_path / "run", resume=True).steps == 6
    run(make_cfg(), tmp_path / "straight")
    assert same(read(tmp_path / "run" / "last.ckpt")["ema"], read(tmp_path / "straight" / "last.ckpt")["ema"])


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
    _, errors = process.communicate(timeout=100)
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
    ema.update(0)  # decay 0.1
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


# --- the folder and its configuration ---------------------------------------------------------------------------------


def test_a_run_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    run(make_cfg(), tmp_path / "run")
    with pytest.raises(OutputError, match="not empty; go on with --resume, replace its run with --overwrite"):
        run(make_cfg(), tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    again = run(make_cfg(max_steps=2), tmp_path / "run", overwrite=True)
    assert again.steps == 2
    assert len(rows(tmp_path / "run", "step")) == 1
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds no run"):
        run(make_cfg(), tmp_path / "other", resume=True)


def test_a_run_that_never_saved_is_in_nobodys_way(tmp_path: Path) -> None:
    def broken(cfg: Any, rank: int, device: torch.device) -> Any:
        raise ReadError("no such tiles")

    with pytest.raises(ReadError):
        run(make_cfg(), tmp_path / "run", parts=parts(source=broken))
    assert (tmp_path / "run" / "config.yaml").exists()
    assert run(make_cfg(max_steps=2), tmp_path / "run").steps == 2


def test_resume_of_nothing_starts(tmp_path: Path) -> None:
    assert run(make_cfg(max_steps=2), tmp_path / "run", resume=True).steps == 2


def test_a_run_can_go_on_in_another_folder(tmp_path: Path) -> None:
    run(make_cfg(max_steps=3), tmp_path / "first")
    result = run(make_cfg(), tmp_path / "second", resume=tmp_path / "first" / "last.ckpt")
    run(make_cfg(), tmp_path / "straight")
    assert result.steps == 6
    assert same(read(tmp_path / "second" / "last.ckpt")["ema"], read(tmp_path / "straight" / "last.ckpt")["ema"])
    with pytest.raises(OutputError, match="--overwrite"):
        run(make_cfg(), tmp_path / "straight", resume=tmp_path / "first" / "last.ckpt")


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    run(make_cfg(max_steps=2), tmp_path / "run")
    path = tmp_path / "run" / "last.ckpt"
    content = read(path)
    content["somareg"]["config"]["network"] = {"other": 1}
    torch.save(content, path)
    with pytest.raises(ConfigError, match=r"another 'network\."):
        run(make_cfg(), tmp_path / "run", resume=True)
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ReadError, match="damaged"):
        run(make_cfg(), tmp_path / "run", resume=True)


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


def test_a_schedule_over_time_needs_a_time(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--max-minutes"):
        run(make_cfg(optimiser={"schedule": "time"}), tmp_path / "run")


def test_schedule_by_its_formula() -> None:
    cosine = Schedule(OptimiserCfg(lr=2.0, warmup_steps=4, schedule="cosine", floor=0.1), 100, None)
    assert [cosine.learning_rate(k, 0) / cosine.learning_rate(4, 0) for k in range(3)] == pytest.approx(
        [0.25, 0.5, 0.75], rel=5e-3
    )
    assert cosine.learning_rate(50, 0) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert cosine.learning_rate(100, 0) == cosine.learning_rate(500, 0) == pytest.approx(0.2)
    assert cosine.progress(25, 99.0) == 0.25
    constant = Schedule(OptimiserCfg(lr=2.0, warmup_steps=0, schedule="constant"), 100, 10.0)
    assert constant.learning_rate(99, 9.0) == 2.0
    assert constant.progress(10, 9.0) == 0.9


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
