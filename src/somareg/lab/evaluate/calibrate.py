"""Fit the verdict: run the engine on pairs of known truth and on unrelated pairs, then learn what evidence means.

Run `python -m somareg.lab.evaluate.calibrate --data DIR --out FOLDER --model NAME`. It writes the observations and the
coefficients of the model's engine (`calibration-orientation.json` or `calibration-learned.json`, to be copied to
`somareg/quality`), and prints the figures of `benchmarks/calibration.md`. No test pair is used: the sets and roles are
listed in `SOURCES`.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from somareg.config import make_config
from somareg.errors import InputError, ReadError, SomaregError
from somareg.geometry import AffineTransform, compose
from somareg.io import from_array
from somareg.lab.evaluate.metrics import point_errors, rmse
from somareg.lab.evaluate.protocol import SetInfo
from somareg.lab.evaluate.sample import Sample, load_sample
from somareg.lab.evaluate.sampling import make_list
from somareg.matching.engine import align
from somareg.preprocess.prepare import prepare
from somareg.quality.calibration import FEATURES, Calibration, evidence_vector
from somareg.register.choose import (
    LONGEST,
    WEIGHT_FREE,
    Chosen,
    choose_device,
    choose_model,
    engine_settings,
    pair_tensors,
    search_radius,
)

FALSE_GO = 0.005  # aimed at, so that another draw of unrelated pairs stays below 1 %


@dataclass(frozen=True)
class Source:
    """Pairs to calibrate on.

    Attributes:
        info: set, crop and role.
        levels: of the protocol.
        related, unrelated: number of pairs per level, and in all.
        apart: pixels between crop origins that count as another place inside one scene.
        exact: whether labels are good enough to learn the error from.
    """

    info: SetInfo
    levels: tuple[str, ...]
    related: int
    unrelated: int
    apart: int = 10**9
    exact: bool = True


def _info(name: str, crop: int, role: str) -> SetInfo:
    return SetInfo(name, crop, "", 1.0, {"val": role}, {"val": 1})


SOURCES = (
    Source(_info("ombria", 160, "val"), ("E", "m", "M", "H", "A"), 24, 100),
    Source(_info("sen12patches", 160, "train"), ("E", "m", "M", "H", "A"), 24, 100),
    Source(_info("multisensor", 160, "val"), ("m", "H", "A"), 30, 80),
    Source(_info("vhrcity", 160, "val"), ("m", "A"), 20, 40),
    Source(_info("sen12scenes", 256, "train"), ("m", "M", "H", "A"), 16, 50, apart=900),
    Source(_info("sih", 512, "train"), ("m", "H", "A"), 12, 30, apart=900),
    Source(_info("sih", 224, "train"), ("m", "M", "H", "A"), 16, 40, apart=900),
    Source(_info("vhr", 128, "val-vhr"), ("m",), 0, 40, exact=False),
)


def observe(
    moving: NDArray[Any],
    reference: NDArray[Any],
    truth: NDArray[np.float64] | None,
    chosen: Chosen,
    device: torch.device,
) -> dict[str, Any]:
    """Evidence of a model for one pair and its error, with the settings of `register`.

    Args:
        moving: (H, W) or (C, H, W) SAR.
        reference: (C, H, W) optical.
        truth: (2, 3) reference -> moving pixel centres, or (2, H, W) displacement; None when the images are unrelated.
        chosen: the model.
        device: where it runs.
    """
    cfg = make_config({})
    here, there = from_array(reference, role="reference"), from_array(moving, role="moving")
    radius = search_radius(cfg, here.grid)
    prepared = prepare(there, here, AffineTransform.identity(), cfg, longest=LONGEST[cfg.preset], radius_px=radius)
    pair = pair_tensors(prepared, device, (cfg.reference_modality, cfg.moving_modality))
    settings = engine_settings(cfg, here.grid, radius)
    found = align(pair, prepared.starts, settings, network=chosen.network)
    error = math.inf
    if truth is not None:
        height, width = here.grid.shape
        yy, xx = np.mgrid[0:height, 0:width].astype(float)
        points = np.stack([xx.ravel(), yy.ravel()], axis=-1)
        correction = compose(found.affine, found.flow.field) if found.flow else found.affine
        displacement = (correction(points) - points).T.reshape(2, height, width).astype(np.float32)
        error = rmse(point_errors(displacement, truth, moving.shape[-2:]))
    return {
        "weights": chosen.card.sha256 if chosen.card else None,
        "related": truth is not None,
        "rmse": None if math.isinf(error) else error,
        "evidence": evidence_vector(found).tolist(),
        "failed": bool(found.failure),
    }


def observations(data_dir: Path, seed: int, chosen: Chosen, device: torch.device) -> Iterator[dict[str, Any]]:
    """Every related and unrelated pair of `SOURCES`."""
    for source in SOURCES:
        count = max(source.related, math.ceil(source.unrelated / len(source.levels)))
        made = make_list(data_dir, source.info, "val", count=count, levels=source.levels, seed=seed)
        label = {"set": source.info.name, "crop": source.info.crop, "exact": source.exact}
        for level in source.levels:
            for sample in made.samples[level][: source.related]:
                loaded = load_sample(data_dir, sample)
                yield {
                    **label,
                    "level": level,
                    "pair": sample.pair.name,
                    **observe(loaded.moving, loaded.reference, loaded.truth(), chosen, device),
                }
        every = [sample for level in source.levels for sample in made.samples[level]]
        for k in range(source.unrelated):
            first = every[k % len(every)]
            second = _elsewhere(every, first, k, source.apart)
            moving, reference = load_sample(data_dir, first).moving, load_sample(data_dir, second).reference
            found = observe(moving, reference, None, chosen, device)
            yield {**label, "level": "unrelated", "pair": first.pair.name, **found}


def _elsewhere(every: list[Sample], first: Sample, k: int, apart: int) -> Sample:
    """A sample of another place.

    Raises:
        InputError: there is none.
    """
    order = np.random.default_rng([7, k]).permutation(len(every))
    for i in order:
        other = every[int(i)]
        distance = math.hypot(other.origin[0] - first.origin[0], other.origin[1] - first.origin[1])
        if place(other) != place(first) or distance > apart:
            return other
    raise InputError(f"all samples of {first.pair.set} show one place; give a folder with pairs of several places")


def place(sample: Sample) -> tuple[str, str]:
    """Set and place of a sample; names that differ in "before" and "after" alone show one place.

    The groups of `vhr` tell where its pairs were published, and every pair shows a place of its own.
    """
    shown = sample.pair.name if sample.pair.set == "vhr" else sample.pair.group
    return sample.pair.set, re.sub("before|after", "", shown.lower())


def fit(rows: list[dict[str, Any]]) -> Calibration:
    """Coefficients and thresholds from observations; how they do on others is told by `cross_validated`."""
    x = np.array([row["evidence"] for row in rows])
    good = np.array([row["rmse"] is not None and row["rmse"] < 2.0 for row in rows], float)
    centre, scale = x.mean(0), x.std(0) + 1e-9
    design = np.column_stack([(x - centre) / scale, np.ones(len(x))])
    # Both outcomes weigh the same, so that the probability does not depend on how many unrelated pairs were drawn.
    weight = np.where(good > 0, 0.5 / good.mean(), 0.5 / (1 - good.mean()))
    beta = np.zeros(design.shape[1])
    penalty = 0.02 * len(x) * np.diag([*np.ones(x.shape[1]), 0.0]) / 10
    for _ in range(60):
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -30, 30)))
        gradient = design.T @ (weight * (good - p)) - penalty @ beta
        hessian = (design * (weight * p * (1 - p))[:, None]).T @ design + penalty + 1e-6 * np.eye(len(beta))
        beta += np.clip(np.linalg.solve(hessian, gradient), -2, 2)
    success = _unscale(beta, centre, scale)
    close = np.array([row["exact"] and row["rmse"] is not None and row["rmse"] < 5.0 for row in rows])
    target = np.log(np.array([row["rmse"] or 1.0 for row in rows]))[close]
    a = design[close]
    error = _unscale(
        np.linalg.solve(a.T @ a + 0.02 * len(a) * np.diag([*np.ones(len(FEATURES)), 0.0]), a.T @ target), centre, scale
    )
    probability = 1 / (1 + np.exp(-np.clip(design @ beta, -30, 30)))
    unrelated = probability[[not row["related"] for row in rows]]
    go = float(max(0.5, np.quantile(unrelated, 1 - FALSE_GO) + 0.01))
    return Calibration(tuple(success), tuple(error), round(min(go, 0.99), 4), round(go / 3, 4), 1.5)


def _unscale(beta: NDArray[np.float64], centre: NDArray[np.float64], scale: NDArray[np.float64]) -> list[float]:
    slope = beta[:-1] / scale
    return [*(float(s) for s in slope), float(beta[-1] - slope @ centre)]


def figures(rows: list[dict[str, Any]], calibration: Calibration) -> dict[str, float]:
    """How good the verdict is: false go on unrelated pairs, go on good pairs, predicted error within a factor 2."""
    p, predicted = _apply(rows, calibration)
    related = np.array([row["related"] for row in rows])
    error = np.array([math.inf if row["rmse"] is None else row["rmse"] for row in rows])
    exact = np.array([row["exact"] for row in rows])
    go = p >= calibration.go
    good = related & (error < 2.0)
    judged = go & related & exact
    ratio = predicted[judged] / np.maximum(error[judged], 1e-6)
    return {
        "unrelated": int((~related).sum()),
        "false_go_unrelated": float(go[~related].mean()),
        "review_or_go_unrelated": float((p >= calibration.review)[~related].mean()),
        "good": int(good.sum()),
        "go_of_good": float(go[good].mean()),
        "bad_of_go": float((error[go & related] >= 2.0).mean()),
        "over_3px_of_go": float((error[go & related] >= 3.0).mean()),
        "within_factor_2": float(((ratio > 0.5) & (ratio < 2.0)).mean()),
    }


def _apply(rows: list[dict[str, Any]], c: Calibration) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x = np.column_stack([np.array([row["evidence"] for row in rows]), np.ones(len(rows))])
    failed = np.array([row["failed"] for row in rows])
    p = 1 / (1 + np.exp(-np.clip(x @ np.array(c.success), -30, 30)))
    return np.where(failed, 0.0, p), np.exp(x @ np.array(c.error))


def cross_validated(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean figures of two halves, each judged by the calibration of the other; halves share no pair."""
    names = sorted({row["pair"] for row in rows})
    first = set(np.random.default_rng(0).permutation(names)[: len(names) // 2].tolist())
    scenes = len(names) < 2
    halves = [[], []]  # type: list[list[dict[str, Any]]]
    for i, row in enumerate(rows):
        one_scene = row["set"] in {"sih", "sen12scenes"} or scenes
        halves[i % 2 if one_scene else int(row["pair"] in first)].append(row)
    results = [figures(test, fit(train)) for train, test in (halves, halves[::-1])]
    return {key: float(np.mean([result[key] for result in results])) for key in results[0]}


def record_of(rows: list[dict[str, Any]], model: str, seed: int) -> dict[str, Any]:
    """The content of a `calibration-ENGINE.json`: what `load_calibration` reads, and how good it is.

    Raises:
        InputError: the observations are of several models.
    """
    weights = {row["weights"] for row in rows}
    if len(weights) != 1:
        raise InputError(f"the observations are of {len(weights)} models; observe anew, without --refit")
    calibration = replace(fit(rows), weights=weights.pop())
    return {
        "model": model,
        "weights": calibration.weights,
        "features": list(FEATURES),
        "success": calibration.success,
        "error": calibration.error,
        "go": calibration.go,
        "review": calibration.review,
        "ce90_per_rmse": calibration.ce90_per_rmse,
        "fitted_on": {"pairs": len(rows), "seed": seed, **figures(rows, calibration)},
        "cross_validated": cross_validated(rows),
    }


def _observed(log: Path) -> list[dict[str, Any]]:
    """The observations in a file.

    Raises:
        ReadError: it is missing, or not lines of JSON.
    """
    try:
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise ReadError(f"observations {log} cannot be read ({error}); observe anew, without --refit") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Observe, fit, report; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m somareg.lab.evaluate.calibrate", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the pairs (benchmarks/README.md)")
    parser.add_argument("--out", type=Path, required=True, help="folder for observations and coefficients")
    parser.add_argument("--model", default=WEIGHT_FREE, help="orientation, a model that ships, or a .safetensors file")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--refit", action="store_true", help="use the observations already in --out")
    asked = parser.parse_args(arguments)
    try:
        device = choose_device(asked.device)
        chosen = choose_model(make_config({"model": asked.model}), device)
        log = asked.out / f"observations-{chosen.engine}.jsonl"
        if not asked.refit:
            asked.out.mkdir(parents=True, exist_ok=True)
            with log.open("w", encoding="utf-8") as stream:
                for row in observations(asked.data, asked.seed, chosen, device):
                    stream.write(json.dumps(row) + "\n")
                    stream.flush()
        rows = _observed(log)
        record = record_of(rows, chosen.card.name if chosen.card else chosen.name, asked.seed)
    except SomaregError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    (asked.out / f"calibration-{chosen.engine}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: record[key] for key in ("model", "go", "review", "fitted_on", "cross_validated")}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
