"""`batch`: every pair of a list registered and saved, in a folder that a later run goes on from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from somareg.batches.manifest import FILE_NAME, Entry, Manifest, key_of, read_manifest
from somareg.batches.pairs import BatchPair, Pairs, find_pairs, unmatched
from somareg.batches.summary import CSV_NAME, JSON_NAME, BatchResult
from somareg.batches.work import PairDone, PairJob, do_pair, shipped_weights
from somareg.config import make_config
from somareg.config.arguments import RegisterOptions
from somareg.errors import SomaregError, guarded
from somareg.io.atomic import check_writable, output_folder
from somareg.io.folders import keep_inputs, make_folder, without_inputs
from somareg.io.inputs import file_of, locate
from somareg.io.lock import folder_lock
from somareg.io.masks import check_mask_values
from somareg.io.paths import check_folder_name, whole_path
from somareg.jobs.one import Outcome, Runner
from somareg.jobs.runner import open_runner
from somareg.matching.weights import DEFAULT_WEIGHTS
from somareg.report import OWNED, check_reports
from somareg.tiepoints.use import check_use
from somareg.types import Progress, Reports

log = logging.getLogger("somareg.batch")


@guarded
def batch(
    pairs: Pairs,
    out: str | Path,
    *,
    reference: str | Path | None = None,
    workers: int | None = None,
    dask: Any = None,
    overwrite: bool = False,
    force: bool = False,
    stac: bool = False,
    reports: Reports = "problems",
    continue_on_error: bool = True,
    progress: Progress | None = None,
    **options: Unpack[RegisterOptions],
) -> BatchResult:
    """Register many pairs and save each into its own folder; called again, go on from what is done.

    A pair is done anew when its settings, its files or the weights have changed, when it failed, and when its outputs
    are gone. A bad pair is recorded and the others go on.

    Args:
        pairs: a CSV with the columns moving, reference and, if you like, name and options of `register`; a folder of
            moving images; or a list of (moving, reference).
        out: folder for one folder per pair, `manifest.jsonl`, `summary.csv` and `summary.json`.
        reference: to a folder of moving images, the folder of references, matched by name without suffix, or one
            reference for all (a time series; each process decodes it once).
        workers: processes on this machine (extra `dask`). A script that asks for them needs the usual
            `if __name__ == "__main__":`.
        dask: address of a Dask scheduler, or a `distributed.Client`; its workers must see the same files.
        overwrite: do all pairs anew, and allow a folder that holds other things.
        force, stac: see `Result.save`.
        reports: whose `report.html` is written: "all" pairs', "problems" (every verdict but *go*), or "none". What is
            missing is made when it is asked for later, by doing its pairs again.
        continue_on_error: False ends the run with the first pair that fails; the rest stays pending.
        progress: called with what was done and the share of the pairs that are.
        **options: of `register`, for all pairs; a row of the table goes before them.

    Returns:
        An entry per pair, counts, and the worst of them.

    Raises:
        ConfigError: an unknown option or column, or a bad value; nothing has been done then.
        ReadError, InputError: the list cannot be used, or an earlier manifest is damaged.
        OutputError: another run is at work in the folder, or it cannot be written.
        ClusterError: no worker is left; run again to go on.
    """
    check_use(make_config(options))
    check_reports(reports)
    if stac:
        from somareg.report.stac import need_pystac

        need_pystac()
    found = find_pairs(pairs, reference)
    folder = Path(out)
    jobs = {pair.name: _job(pair, folder, options, force=force, stac=stac, reports=reports) for pair in found}
    tell = progress or (lambda stage, share: None)
    lonely = _unmatched(pairs, reference)
    check_folder_name(folder)
    _spare_inputs(folder, pairs, jobs.values())
    make_folder(folder)
    with folder_lock(folder) as lock:
        check_writable(folder, overwrite=True, lock=lock)
        manifest = _begin(found, jobs, read_manifest(folder, overwrite=overwrite), folder)
        todo = [entry.name for entry in manifest.entries.values() if entry.status != "done"]
        tell(f"{len(found) - len(todo)} of {len(found)} done before", 1 - len(todo) / len(found))
        if todo:
            count = None if workers is None else min(workers, len(todo))
            with open_runner(count, dask) as runner:
                _work(runner, manifest, jobs, todo, continue_on_error, tell)
        result = BatchResult(folder, tuple(manifest.entries.values()), tuple(todo), tuple(lonely))
        result.save()
    return result


@guarded
def planned(
    pairs: Pairs,
    out: str | Path,
    *,
    reference: str | Path | None = None,
    overwrite: bool = False,
    force: bool = False,
    stac: bool = False,
    reports: Reports = "problems",
    **options: Unpack[RegisterOptions],
) -> list[Entry]:
    """What `batch` would find done ("done") and do ("pending"), without doing it; args as there."""
    check_use(make_config(options))
    check_reports(reports)
    found, folder = find_pairs(pairs, reference), Path(out)
    jobs = {pair.name: _job(pair, folder, options, force=force, stac=stac, reports=reports) for pair in found}
    return list(_entries(found, jobs, read_manifest(folder, overwrite=overwrite), folder).values())


def _job(pair: BatchPair, folder: Path, options: Mapping[str, Any], **saving: Any) -> PairJob:
    """What a worker is told; `saving` are arguments of `Result.save`."""
    both = {**options, **pair.options}
    try:
        cfg = make_config(both)
        check_use(cfg)
        for name in ("moving_mask", "reference_mask"):
            mask = getattr(cfg, name)
            check_mask_values(mask, getattr(cfg, f"{name}_values"), f"{name}_values")
            both |= {} if mask is None else {name: whole_path(mask)}
    except SomaregError as error:
        raise type(error)(f"pair '{pair.name}': {error}") from error
    return PairJob(pair.moving, pair.reference, str((folder / pair.name).absolute()), both, **saving)


def _entries(
    pairs: list[BatchPair], jobs: Mapping[str, PairJob], earlier: Mapping[str, Entry], folder: Path
) -> dict[str, Entry]:
    """The entries of this list: as they were where that still holds, else pending."""
    entries, weights = {}, shipped_weights()
    for pair in pairs:
        job = jobs[pair.name]
        key = _key(job, weights)
        known = earlier.get(pair.name)
        keep = known is not None and known.key == key and known.still_holds(folder, job.reports)
        entries[pair.name] = known if known and keep else Entry(pair.name, pair.moving, pair.reference, key)
    return entries


def _key(job: PairJob, weights: str | None) -> str:
    """What the pair is done with; what STAC Items tell counts only for modalities that nobody said."""
    cfg = make_config(job.options)
    said = [role for role in ("moving_modality", "reference_modality") if role in job.options]
    return key_of(
        {
            "settings": cfg.model_dump(mode="json", exclude={"max_memory"}),
            "said": said,
            "weights": weights if cfg.model in ("auto", DEFAULT_WEIGHTS) else None,
            "images": (job.moving, job.reference),
            "outputs": (job.force, job.stac),
        }
    )


def _begin(pairs: list[BatchPair], jobs: Mapping[str, PairJob], earlier: Mapping[str, Entry], folder: Path) -> Manifest:
    gone = [name for name in earlier if name not in jobs]
    if gone:
        log.warning("%d pairs of an earlier run are not in the list any more; their folders stay: %s", len(gone), gone)
    manifest = Manifest(folder, _entries(pairs, jobs, earlier, folder))
    manifest.write()
    return manifest


def _work(
    runner: Runner,
    manifest: Manifest,
    jobs: Mapping[str, PairJob],
    todo: list[str],
    continue_on_error: bool,
    tell: Progress,
) -> None:
    total = len(manifest.entries)
    done = total - len(todo)

    def given_out() -> Iterator[PairJob]:
        for name in todo:
            manifest.update(name, status="running")
            yield jobs[name]

    try:
        for index, outcome in runner.run(do_pair, given_out()):
            entry = _record(manifest, todo[index], jobs[todo[index]], outcome)
            done += 1
            tell(f"{done} of {total}: {entry.name} {entry.verdict or 'failed'}", done / total)
            if entry.status == "failed" and not continue_on_error:
                break
    finally:
        for name, entry in manifest.entries.items():
            if entry.status == "running":
                manifest.entries[name] = replace(entry, status="pending")
        manifest.write()


def _record(manifest: Manifest, name: str, job: PairJob, outcome: Outcome[PairDone]) -> Entry:
    seconds = round(outcome.seconds, 3)
    if outcome.failure is None:
        facts = vars(outcome.result())
        return manifest.update(name, status="done", seconds=seconds, **facts)
    failure = outcome.failure
    log.debug("pair %s failed\n%s", name, failure.trace)
    _clear(manifest.folder / name, job)
    return manifest.update(
        name, status="failed", seconds=seconds, error_kind=failure.kind, error=" ".join(failure.message.split())
    )


def _clear(folder: Path, job: PairJob) -> None:
    """Take away what an earlier run left for a pair that has failed now: it is no longer what the inputs say."""
    if not folder.is_dir():
        return
    stale = without_inputs((folder / name for name in OWNED), _files_of(job).values())
    with suppress(SomaregError, OSError):
        with output_folder(folder, overwrite=True, owned=[path.name for path in stale]):
            pass
        if not any(folder.iterdir()):
            folder.rmdir()


def _spare_inputs(folder: Path, pairs: Pairs, jobs: Iterable[PairJob]) -> None:
    """Refuse a folder where the batch's own files have the name of something that it reads."""
    outputs = [folder / name for name in (FILE_NAME, CSV_NAME, JSON_NAME)]
    keep_inputs(outputs, {"table of pairs": pairs if isinstance(pairs, str | Path) else None})
    for job in jobs:
        keep_inputs(outputs, _files_of(job))


def _files_of(job: PairJob) -> dict[str, str | Path]:
    """What a pair reads: images, STAC Items, and files that options name."""
    files: dict[str, str | Path] = {f"file of {k}": v for k, v in job.options.items() if isinstance(v, str | Path)}
    for role, image in (("moving", job.moving), ("reference", job.reference)):
        files |= {f"{role} image": image, f"STAC Item of the {role} image": image.partition("#")[0]}
        with suppress(SomaregError):  # one that is missing is told when the pair's turn comes
            files |= {f"{role} image": file_of(locate(image, role)) or image}
    return files


def _unmatched(pairs: Pairs, reference: str | Path | None) -> list[str]:
    if not isinstance(pairs, str | Path) or reference is None or not Path(reference).is_dir():
        return []
    names = unmatched(pairs, reference)
    if names:
        log.warning("%d images have no partner of the same name: %s", len(names), ", ".join(names[:8]))
    return names
