"""The calibrations that ship tell related images from unrelated ones, and know a failure."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch

from somareg.config import make_config
from somareg.errors import ConfigError
from somareg.geometry import AffineTransform
from somareg.matching.engine import Alignment, EngineCfg, align
from somareg.matching.evidence import NO_EVIDENCE
from somareg.quality import Engine, load_calibration
from somareg.quality import calibration as calibration_module
from somareg.quality.signs import SIGNS
from somareg.register.choose import choose_model
from somareg.soma.weights import DEFAULT_WEIGHTS, embedded
from tests.synthetic import make_pair
from tests.t40_matching.conftest import as_pair

ENGINES: tuple[Engine, ...] = ("orientation", "learned")
STILL = AffineTransform.identity()
FAILED = Alignment(STILL, None, None, NO_EVIDENCE, math.inf, math.inf, "no window could be matched")


@pytest.fixture(scope="module")
def related() -> Alignment:
    return align(as_pair(make_pair(0, 192, shift=(5, -3))), (STILL,), EngineCfg())


@pytest.fixture(scope="module")
def unrelated() -> Alignment:
    pair = replace(make_pair(0, 192), moving=make_pair(77, 192).moving)
    return align(as_pair(pair), (STILL,), EngineCfg())


@pytest.mark.parametrize("engine", ENGINES)
def test_shipped_calibration_tells_related_from_unrelated(
    engine: Engine, related: Alignment, unrelated: Alignment
) -> None:
    calibration = load_calibration(engine)
    assert 0 < calibration.review < calibration.go < 1
    good, bad = calibration.probability(related), calibration.probability(unrelated)
    assert calibration.go <= good <= 1
    assert 0 <= bad < calibration.go
    assert related.evidence.zscore > unrelated.evidence.zscore + 1
    assert related.evidence.hit_ratio > unrelated.evidence.hit_ratio + 0.3


@pytest.mark.parametrize("engine", ENGINES)
def test_shipped_calibration_predicts_more_error_for_the_unrelated(
    engine: Engine, related: Alignment, unrelated: Alignment
) -> None:
    calibration = load_calibration(engine)
    good, bad = calibration.predict_rmse(related, 1), calibration.predict_rmse(unrelated, 1)
    assert 0 < good < 1
    assert bad > 2 * good
    assert calibration.predict_rmse(related, 4) == pytest.approx(4 * good)
    assert calibration.ce90_per_rmse > 1


@pytest.mark.parametrize("engine", ENGINES)
def test_shipped_calibration_knows_a_failure(engine: Engine) -> None:
    calibration = load_calibration(engine)
    assert calibration.probability(FAILED) == 0
    assert calibration.predict_rmse(FAILED, 1) == math.inf


def test_a_calibration_of_other_signs_is_refused_but_can_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a sign was added, a new fit must not ask the calibration that it replaces."""
    monkeypatch.setattr(calibration_module, "SIGNS", {**SIGNS, "another": abs})
    load_calibration.cache_clear()
    try:
        with pytest.raises(ConfigError, match="fit it anew"):
            load_calibration("learned")
        device = torch.device("cpu")
        assert choose_model(make_config({"model": "orientation"}), device).engine == "orientation"
        if embedded():
            assert choose_model(make_config({"model": DEFAULT_WEIGHTS}), device).engine == "learned"
    finally:
        load_calibration.cache_clear()


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, 1e9])
def test_extreme_evidence_gives_finite_answers(related: Alignment, value: float) -> None:
    odd = replace(
        related,
        forward_backward_px=value,
        split_half_px=value,
        evidence=replace(related.evidence, peak_offset_px=value if value == value else math.nan),
    )
    for engine in ENGINES:
        calibration = load_calibration(engine)
        assert 0 <= calibration.probability(odd) <= 1
        assert math.isfinite(calibration.predict_rmse(odd, 1))


def test_each_engine_has_its_own_calibration() -> None:
    free, learned = (load_calibration(engine) for engine in ENGINES)
    assert load_calibration("learned") is learned  # read once
    assert free is not learned
    assert free.weights is None
    assert learned.weights is None or re.fullmatch("[0-9a-f]{64}", learned.weights)
    assert all(len(c.success) == len(c.error) == len(SIGNS) + 1 for c in (free, learned))
