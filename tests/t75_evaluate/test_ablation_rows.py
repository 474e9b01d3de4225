"""Rows of ablations differ in what they are named for and are measured alike; chance is called chance."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from somareg.errors import ConfigError
from somareg.lab.data.stacks import ProtocolSamples
from somareg.lab.evaluate.ablation_compare import Comparison, compare, standard_error
from somareg.lab.evaluate.ablation_config import ANOTHER_SEED, FULL, PUBLISHED, ROWS, AblateCfg, overlaid, row_config
from somareg.lab.evaluate.ablation_rows import Judge
from somareg.lab.evaluate.metrics import point_errors, rmse
from somareg.lab.train.config import load_config
from somareg.lab.train.validation import validate_samples
from somareg.soma.fge import FgeCfg
from somareg.soma.glam.local_flow import LocalCfg
from somareg.soma.network import Soma
from tests.small_network import small_network
from tests.t75_evaluate.meadow import SIDE

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CPU = torch.device("cpu")
OFF = "fge-off_glam-full"

pytestmark = pytest.mark.usefixtures("one_thread")


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


# --- measuring --------------------------------------------------------------------------------------------------------


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
