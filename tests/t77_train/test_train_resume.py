"""A run stops in time and on a signal, and goes on as if it had not stopped; its folder is safe."""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from somareg.errors import ConfigError, OutputError, ReadError
from somareg.lab.train import callbacks
from somareg.lab.train.config import OptimiserCfg
from somareg.lab.train.task import Schedule
from tests.t77_train.standin import FixedValidator, make_cfg, objective, parts, read, rows, run, same, spawn

pytestmark = pytest.mark.usefixtures("one_thread")


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, averages, moments, step numbers and logged figures agree bit by bit."""
    a, b = read(one / "last.ckpt"), read(other / "last.ckpt")
    assert a["global_step"] == b["global_step"]
    assert same(a["state_dict"], b["state_dict"])
    assert same(a["ema"], b["ema"])
    moments = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (a, b)]
    assert all(same(moments[0][i], moments[1][i]) for i in moments[0])
    assert rows(one, "step", "loss", "lr") == rows(other, "step", "loss", "lr")


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
    deadline = time.monotonic() + 300
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


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_run_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    run(make_cfg(), tmp_path / "run")
    with pytest.raises(OutputError, match="not empty; continue with --resume, replace its run with --overwrite"):
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
