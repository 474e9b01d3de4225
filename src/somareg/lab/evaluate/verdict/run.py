"""`somareg eval --verdict`: observe pairs, fit the calibration, write its coefficients and tables."""

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
"""Models by the names of the benchmark's methods."""


def calibrate(
    data_dir: Path,
    out_dir: Path,
    methods: Sequence[str],
    *,
    seed: int = 0,
    limit: int | None = None,
    refit: bool = False,
    device: str = "auto",
    dinov2: str | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, dict[str, Any]]:
    """Calibrate engines and evaluate their verdicts.

    Args:
        data_dir: of the pairs.
        out_dir: for `observations-ENGINE.jsonl`, with which a killed run continues, `calibration-ENGINE.json`, to be
            copied to `somareg/quality`, and `calibration-ENGINE.md`.
        methods: "orientation", "ours", a shipped model or a file of weights.
        seed: of the draws.
        limit: most questions, some of each kind.
        refit: use existing observations only.
        device: see `somareg.register`.
        dinov2: the same, for a file of weights.
        progress: called with each question.

    Returns:
        By engine: the record that was written, and its "bars", rows (asked, measured, met or missed).

    Raises:
        ConfigError, WeightsError: see `somareg.load_model`.
        ReadError: observations are missing or damaged.
        InputError: too few observations for a fit, or of several models.
    """
    records: dict[str, dict[str, Any]] = {}
    for name in methods:
        where = choose_device(device)
        named = dinov2 if name.endswith(".safetensors") else None
        model = choose_model(make_config({"model": MODELS.get(name, name), "dinov2": named}), where)
        log = log_path(out_dir, model.engine)
        if not refit:
            gather(data_dir, log, model, where, seed=seed, limit=limit, progress=progress)
        records[model.engine] = _write(out_dir, model, read(log), seed)
    return records


def _write(out_dir: Path, model: Chosen, rows: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    calibration = fit(rows)
    local = calibration.local
    record = {
        "model": model.card.name if model.card else model.name,
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
    stem = f"calibration-{model.engine}"
    write_text(out_dir / f"{stem}.json", json.dumps(record, indent=1) + "\n", overwrite=True)
    write_text(out_dir / f"{stem}.md", markdown(rows, calibration), overwrite=True)
    return {**record, "bars": bars(judged(rows, calibration))}
