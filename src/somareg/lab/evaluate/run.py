"""Run methods over the lists and write one JSON per method."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from somareg.errors import ConfigError
from somareg.io.atomic import make_folder, write_text
from somareg.lab.data.pairs import StoredPair, load_pair
from somareg.lab.evaluate import metrics
from somareg.lab.evaluate.list_file import committed_list
from somareg.lab.evaluate.peers import Method, make_method
from somareg.lab.evaluate.protocol import (
    LEVELS,
    PROTOCOL_VERSION,
    LoadedSample,
    Sample,
    SampleList,
    Split,
    check_names,
    load_sample,
)
from somareg.report.plain import plain
from somareg.runtime.version import __version__
from somareg.types import FloatArray

Record = dict[str, Any]
Summary = dict[str, Any]
Progress = Callable[[str, int, int], None]


def evaluate(
    data_dir: str | Path,
    sets: Collection[str],
    levels: Collection[str],
    methods: Collection[str | Method],
    *,
    limit: int | None = None,
    out_dir: str | Path,
    seed: int = 0,
    split: Split = "test",
    progress: Progress | None = None,
    lists: Sequence[SampleList] | None = None,
) -> list[Summary]:
    """Measure methods on the border-free lists, in one process.

    Args:
        data_dir: folder with `pairs.csv` and the images.
        sets: names of sets with a committed list; unused when `lists` is given.
        levels: keys of the protocol's levels.
        methods: names from `METHODS`, or methods.
        limit: only the first samples of each set and level.
        out_dir: gets `<method>.json`; results of other sets and levels in it are kept when they were made with the
            same weights, seed and protocol version.
        seed: passed to the methods; the same seed gives the same numbers (except times).
        split: "test" or "val".
        progress: called with (what, done, total) after each pair of each method.
        lists: use these instead of the committed lists.

    Returns:
        One summary per method, set and level (see `summarise`), in the order they were measured; JSON-ready, infinite
        figures are None.

    Raises:
        ConfigError: unknown set, level or method, or nothing to do.
        ReadError, InputError: the data folder does not hold what the lists name.
        UnsupportedError: a method needs an extra that is not installed.
        OutputError: `out_dir` cannot be written.
    """
    chosen = [make_method(method) if isinstance(method, str) else method for method in methods]
    levels = check_names(levels, LEVELS, "level")
    if lists is None:
        lists = [committed_list(name, split) for name in sets]
    if not (chosen and levels and lists):
        raise ConfigError("nothing to evaluate; name at least one set, one level and one method")
    folder = make_folder(out_dir)
    cells = [(made, level, made.samples.get(level, [])[:limit]) for made in lists for level in levels]
    total, done = sum(len(samples) for *_, samples in cells) * len(chosen), 0
    summaries: list[Summary] = []
    loader = _Loader(Path(data_dir))
    for made, level, samples in cells:
        rows: dict[str, list[_Row]] = {method.name: [] for method in chosen}
        for sample in samples:
            loaded = loader(sample)
            for method in chosen:
                rows[method.name].append(_measure(method, sample, loaded, seed))
                done += 1
                if progress:
                    progress(f"{method.name} {made.set} {level}", done, total)
        if samples:
            for method in chosen:
                cell = _cell(made, level, rows[method.name])
                _write(folder / f"{method.name}.json", method, seed, cell)
                summaries.append(plain({"method": method.name, **cell["summary"]}))
    return summaries


class _Loader:
    """Loads samples and keeps the last pair, which a list of one large scene asks for again and again."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.last: StoredPair | None = None

    def __call__(self, sample: Sample) -> LoadedSample:
        if self.last is None or self.last.entry != sample.pair:
            self.last = load_pair(self.data_dir, sample.pair)
        return load_sample(self.data_dir, sample, self.last)


class _Row:
    """The record of one pair and the check points that its cell's CE90 needs."""

    def __init__(self, record: Record, points: FloatArray) -> None:
        self.record, self.points = record, points


def _measure(method: Method, sample: Sample, loaded: LoadedSample, seed: int) -> _Row:
    started = time.perf_counter()
    prediction = method(loaded.moving, loaded.reference, level=sample.level, seed=seed)
    seconds = time.perf_counter() - started
    errors = metrics.point_errors(prediction.displacement, loaded.matrix, loaded.moving.shape)
    record = {
        "index": sample.index,
        "pair": sample.pair.name,
        "group": sample.pair.group,
        "rmse_px": round(metrics.rmse(errors), 4),  # libraries repeat to about 1e-6, not to the last bit
        "seconds": round(seconds, 5),
        "confidence": None if prediction.confidence is None else round(prediction.confidence, 6),
        "decision": prediction.decision,
        "predicted_rmse_px": None if prediction.predicted_rmse is None else round(prediction.predicted_rmse, 4),
    }
    return _Row(record, metrics.check_points(errors).round(4))


def _cell(made: SampleList, level: str, rows: list[_Row]) -> dict[str, Any]:
    place = {"set": made.set, "role": made.role, "level": level, "crop": made.crop}
    place |= {"residual": made.residual, "quoted_from": made.quoted_from}
    records = [row.record for row in rows]
    ce90 = metrics.ce90([row.points for row in rows])
    good_px = max(2.0, made.quoted_from)
    return {**place, "summary": {**place, **summarise(records, good_px), "ce90_px": ce90}, "records": records}


def summarise(records: Sequence[Record], good_px: float = 2.0) -> Summary:
    """Figures of one method on one set and level; `good_px` is the RMSE below which a "go" is right.

    Returns:
        n; cmr (threshold -> share) and cmr_interval (threshold -> 95 % interval); median_px; auc (0-5 px);
        auroc_2px and auroc_3px of the confidence (None where undefined); go, go_of_good, false_go (None without
        decisions); predicted_within_2x among "go" pairs; seconds_median; failures (no estimate); peak_memory_mb.
    """
    rmses = np.array([record["rmse_px"] for record in records], float)
    places = _places(records)
    go = [r for r in records if r["decision"] == "go" and r["predicted_rmse_px"] is not None]
    rates = metrics.go_rates([record["decision"] for record in records], rmses, good_px=good_px) or {}
    return {
        "n": len(records),
        "cmr": {f"{k:g}": metrics.cmr(rmses, k) for k in metrics.THRESHOLDS},
        "cmr_interval": {f"{k:g}": metrics.cmr_interval(rmses, k, places) for k in metrics.THRESHOLDS},
        "median_px": float(np.median(rmses)),
        "auc": metrics.auc(rmses),
        "auroc_2px": _auroc(records, rmses, 2.0),
        "auroc_3px": _auroc(records, rmses, 3.0),
        "go": rates.get("go"),
        "go_of_good": rates.get("go_of_good"),
        "false_go": rates.get("false_go"),
        "predicted_within_2x": metrics.within_factor(
            np.array([r["predicted_rmse_px"] for r in go]), np.array([r["rmse_px"] for r in go])
        ),
        "seconds_median": float(np.median([record["seconds"] for record in records])),
        "failures": int(np.isinf(rmses).sum()),
        "peak_memory_mb": peak_memory_mb(),
    }


def _places(records: Sequence[Record]) -> list[str]:
    """What the bootstrap draws: places, or pairs where the places are too few."""
    groups = [record["group"] for record in records]
    return groups if len(set(groups)) >= metrics.MIN_GROUPS else [record["pair"] for record in records]


def _auroc(records: Sequence[Record], rmses: FloatArray, good_px: float) -> float | None:
    scores = [record["confidence"] for record in records]
    if any(score is None for score in scores):
        return None
    return metrics.auroc(np.array(scores, float), rmses < good_px)


def peak_memory_mb() -> float | None:
    """Largest resident size of this process so far (all methods run in it so far), MB; None where unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def machine() -> dict[str, Any]:
    """What the times were measured on."""
    torch = sys.modules.get("torch")
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "threads_opencv": cv2.getNumThreads(),
        "threads_torch": torch.get_num_threads() if torch else None,
        "python": platform.python_version(),
        "opencv": cv2.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _write(path: Path, method: Method, seed: int, cell: dict[str, Any]) -> None:
    """Put a cell into a method's file, whole or not at all; infinite errors become null."""
    weights = getattr(method, "weights", None)
    head = {"method": method.name, "weights": weights, "protocol": PROTOCOL_VERSION, "seed": seed}
    cells = [old for old in _earlier_cells(path, head) if _key(old) != _key(cell)]
    content = {
        **head,
        "somareg": __version__,
        "preset": getattr(method, "preset", None),
        "parameters": getattr(method, "parameters", 0),
        "machine": machine(),
        "cells": [*cells, cell],
    }
    write_text(path, by_lines(plain(content)), overwrite=True)


def by_lines(content: dict[str, Any]) -> str:
    """JSON with a pair's record per line: thousands of them stay small, and a comparison shows which changed."""
    cells = [
        _text({key: value for key, value in cell.items() if key != "records"})[:-1]
        + ', "records": [\n'
        + ",\n".join(_text(record) for record in cell["records"])
        + "\n]}"
        for cell in content["cells"]
    ]
    head = json.dumps({key: value for key, value in content.items() if key != "cells"}, indent=1, allow_nan=False)
    return head.removesuffix("\n}") + ',\n "cells": [\n' + ",\n".join(cells) + "\n]}\n"


def _text(content: Any) -> str:
    return json.dumps(content, allow_nan=False)


def _earlier_cells(path: Path, head: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        same = all(content.get(key) == value for key, value in head.items())
        return list(content["cells"]) if same else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _key(cell: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(cell[key] for key in ("set", "role", "level"))
