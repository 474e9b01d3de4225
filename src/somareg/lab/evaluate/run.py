"""Run methods over the lists and write one JSON per method."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from somareg.errors import ConfigError, InputError
from somareg.io.folders import make_folder
from somareg.lab.data.pairs import StoredPair, load_pair
from somareg.lab.evaluate import metrics
from somareg.lab.evaluate.list_file import set_lists
from somareg.lab.evaluate.peers import Method, make_method
from somareg.lab.evaluate.protocol import LEVELS, WARPED, WARPED_LEVELS, WHOLE, Split, asked_levels
from somareg.lab.evaluate.results import write_cell
from somareg.lab.evaluate.sample import LoadedSample, Sample, SampleList, load_sample
from somareg.lab.evaluate.summary import Record, Summary, summarise
from somareg.lab.evaluate.table import read_folder
from somareg.lab.evaluate.whole import load_whole
from somareg.lab.evaluate.whole_pair import WholeSample
from somareg.report.plain import plain
from somareg.types import FloatArray

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
    """Measure methods on the border-free lists and on whole pairs, in one process.

    Args:
        data_dir: folder with `pairs.csv` and the images.
        sets: names of sets; unused when `lists` is given.
        levels: names of the protocol's levels, "N" for all of its strengths, "whole" for sets of whole pairs.
        methods: names from `METHODS`, or methods.
        limit: only the first samples of each set and level.
        out_dir: gets `<method>.json`; results of other sets and levels in it are kept when they were made with the
            same weights, seed and protocol version.
        seed: passed to the methods; the same seed gives the same numbers (except times).
        split: "test" or "val".
        progress: called with (what, done, total) after each pair of each method.
        lists: use these instead of the committed lists.

    Returns:
        One summary per method, set, role and level (see `summarise`), of whole pairs followed by those of their
        modalities ("part"), in the order they were measured; JSON-ready, infinite figures are None.

    Raises:
        ConfigError: unknown set, level or method, a set that has none of the levels, or nothing to do.
        ReadError, InputError: the data folder does not hold what the lists name.
        UnsupportedError: a method needs an extra that is not installed.
        OutputError: `out_dir` cannot be written.
        InputError: `out_dir` holds a JSON file that is no result.
    """
    built = [make_method(method) if isinstance(method, str) else method for method in methods]
    levels = asked_levels(levels)
    if lists is None:
        lists = [listed for name in sets for listed in set_lists(data_dir, name, split)]
    if not (built and levels and lists):
        raise ConfigError("nothing to evaluate; name at least one set, one level and one method")
    _check_levels(lists, levels)
    folder = make_folder(out_dir)
    read_folder(folder)  # the table needs all of it: told before hours of measuring, not after
    cells = [(listed, level, listed.of(level)[:limit]) for listed in lists for level in levels]
    total, done = sum(len(samples) for *_, samples in cells) * len(built), 0
    summaries: list[Summary] = []
    loader = _Loader(Path(data_dir))
    for listed, level, samples in cells:
        rows: dict[str, list[_Row]] = {method.name: [] for method in built}
        for sample in samples:
            loaded = loader(sample)
            for method in built:
                rows[method.name].append(_measure(method, sample, loaded, seed, listed.is_labelled))
                done += 1
                if progress:
                    progress(f"{method.name} {listed.set} {level}", done, total)
        if samples:
            for method in built:
                cell = _cell(listed, level, rows[method.name])
                write_cell(folder / f"{method.name}.json", method, seed, cell)
                summaries += [plain({"method": method.name, **each}) for each in (cell["summary"], *cell["parts"])]
    return summaries


def _check_levels(lists: Sequence[SampleList], levels: Sequence[str]) -> None:
    """Check that every set has one of the levels.

    Raises:
        ConfigError: a set has none of the levels.
    """
    for name in dict.fromkeys(listed.set for listed in lists):
        has = [level for level in (*LEVELS, WHOLE) if any(listed.of(level) for listed in lists if listed.set == name)]
        if not set(has) & set(levels):
            there = ", ".join(dict.fromkeys(WARPED if level in WARPED_LEVELS else level for level in has))
            raise ConfigError(f"set '{name}' has no level {', '.join(levels)}; it has {there}: add one to the levels")


class _Loader:
    """Loads samples and caches the last pair, which all samples of one large scene share."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.last: StoredPair | None = None

    def __call__(self, sample: Sample | WholeSample) -> LoadedSample:
        if isinstance(sample, WholeSample):
            return load_whole(self.data_dir, sample)
        if self.last is None or self.last.entry != sample.pair:
            self.last = load_pair(self.data_dir, sample.pair)
        return load_sample(self.data_dir, sample, self.last)


class _Row:
    """The record of one pair and the check points that its cell's CE90 needs."""

    def __init__(self, record: Record, points: FloatArray) -> None:
        self.record, self.points = record, points


def _measure(method: Method, sample: Sample | WholeSample, loaded: LoadedSample, seed: int, is_labelled: bool) -> _Row:
    started = time.perf_counter()
    prediction = method(loaded.moving, loaded.reference, level=sample.level, seed=seed, known=loaded.known)
    seconds = time.perf_counter() - started
    shape, moving_shape = (image.shape[-2:] for image in (loaded.reference, loaded.moving))
    field = prediction.displacement
    if field is not None and field.shape != (2, *shape):
        raise InputError(f"method '{method.name}' returned a displacement {field.shape}; it is (2, H, W) {(2, *shape)}")
    errors = metrics.point_errors(
        field,
        loaded.truth(),
        shape,
        moving_shape=moving_shape,
        reference_mask=loaded.known.reference_mask,
        moving_mask=loaded.known.moving_mask,
    )
    record = {
        "index": sample.index,
        "pair": sample.pair.name,
        "group": sample.pair.group,
        **_told(sample),
        # libraries are reproducible to about 1e-6, not to the last bit
        "rmse_px": round(metrics.rmse(errors), 4) if is_labelled else None,
        "seconds": round(seconds, 5),
        "confidence": None if prediction.confidence is None else round(prediction.confidence, 6),
        "decision": prediction.decision,
        "predicted_rmse_px": None if prediction.predicted_rmse is None else round(prediction.predicted_rmse, 4),
    }
    return _Row(record, metrics.check_points(errors).round(4))


def _told(sample: Sample | WholeSample) -> Record:
    """Facts about a sample in a record, beside its pair."""
    if isinstance(sample, WholeSample):
        return {"modality": sample.pair.modality}
    if sample.warp is None:
        return {}
    return {"warp_px": sample.warp.rms_px, "warp_length_px": sample.warp.length_px}


def _cell(listed: SampleList, level: str, rows: list[_Row]) -> dict[str, Any]:
    place: dict[str, Any] = {"set": listed.set, "role": listed.role, "level": level, "crop": listed.crop}
    place |= {"residual": listed.residual, "quoted_from": listed.quoted_from}
    parts = []
    for name, quoted_from in listed.parts.items():
        if own := [row for row in rows if row.record.get("modality") == name]:
            parts.append({**place, "part": name, "quoted_from": quoted_from, **_figures(own, quoted_from)})
    summary = {**place, **_figures(rows, listed.quoted_from)}
    return {**place, "summary": summary, "parts": parts, "records": [row.record for row in rows]}


def _figures(rows: Sequence[_Row], quoted_from: float | None) -> Summary:
    ce90 = None if quoted_from is None else metrics.ce90([row.points for row in rows])
    return {**summarise([row.record for row in rows], quoted_from), "ce90_px": ce90}
