"""`somareg eval --verdict`: ask the questions, fit the calibration, write its coefficients and its tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from somareg.config import make_config
from somareg.io.atomic import write_text
from somareg.lab.evaluate.verdict.fit import fit
from somareg.lab.evaluate.verdict.observations import gather, log_path, read
from somareg.lab.evaluate.verdict.tables import bars, judged, markdown
from somareg.quality.signs import SIGNS
from somareg.register.choose import WEIGHT_FREE, Chosen, choose_device, choose_model
from somareg.soma.weights import DEFAULT_WEIGHTS

MODELS = {"ours": DEFAULT_WEIGHTS, "orientation": WEIGHT_FREE}
"""Models by the names that methods of the benchmark have."""


def calibrate(
    data_dir: Path,
    out_dir: Path,
    methods: Sequence[str],
    *,
    seed: int = 0,
    limit: int | None = None,
    refit: bool = False,
    device: str = "auto",
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, dict[str, Any]]:
    """Calibrate engines, and say how good their verdicts are.

    Args:
        data_dir: of the pairs.
        out_dir: for `observations-ENGINE.jsonl`, which a killed run goes on with, `calibration-ENGINE.json`, to be
            copied to `somareg/quality`, and `calibration-ENGINE.md`.
        methods: "orientation", "ours", a model that ships or a file of weights.
        seed: of the draws.
        limit: questions at most, of each kind some.
        refit: ask nothing, take the observations that are there.
        device: see `somareg.register`.
        progress: told of each question.

    Returns:
        By engine: the record that was written, and its "bars", rows (asked, measured, met or missed).

    Raises:
        ConfigError, WeightsError: see `somareg.load_model`.
        ReadError: observations are missing or damaged.
        InputError: too few observations for a fit, or of several models.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in methods:
        where = choose_device(device)
        chosen = choose_model(make_config({"model": MODELS.get(name, name)}), where)
        log = log_path(out_dir, chosen.engine)
        if not refit:
            gather(data_dir, log, chosen, where, seed=seed, limit=limit, progress=progress)
        found[chosen.engine] = _write(out_dir, chosen, read(log), seed)
    return found


def _write(out_dir: Path, chosen: Chosen, rows: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    calibration = fit(rows)
    local = calibration.local
    record = {
        "model": chosen.card.name if chosen.card else chosen.name,
        "weights": calibration.weights,
        "signs": list(SIGNS),
        "success": calibration.success,
        "error": calibration.error,
        "go": calibration.go,
        "review": calibration.review,
        "ce90_per_rmse": calibration.ce90_per_rmse,
        "local": [local.constant, local.predicted, local.unseen, local.spread, local.away],
        "fitted_on": {"pairs": len(rows), "unrelated": sum(not row["related"] for row in rows), "seed": seed},
    }
    stem = f"calibration-{chosen.engine}"
    write_text(out_dir / f"{stem}.json", json.dumps(record, indent=1) + "\n", overwrite=True)
    write_text(out_dir / f"{stem}.md", markdown(rows, calibration), overwrite=True)
    return {**record, "bars": bars(judged(rows, calibration))}
