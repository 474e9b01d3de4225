"""The common run of `batch` and `audit`: pairs become jobs; finished ones stay, the others run and are recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from somareg.batches.manifest import Entry, Manifest, key_of, read_manifest
from somareg.batches.pairs import BatchPair
from somareg.batches.work import PairDone, PairJob, shipped_weights
from somareg.config import make_config
from somareg.errors import SomaregError
from somareg.io.atomic import output_folder
from somareg.io.folders import without_inputs
from somareg.io.inputs import file_of, locate
from somareg.io.masks import check_mask_values
from somareg.io.paths import whole_path
from somareg.jobs.one import Outcome, Runner
from somareg.jobs.runner import open_runner
from somareg.report import OWNED
from somareg.soma.weights import DEFAULT_WEIGHTS
from somareg.tiepoints.use import check_use
from somareg.types import Progress

log = logging.getLogger("somareg.batch")


def job_of(pair: BatchPair, folder: Path | None, options: Mapping[str, Any], **saving: Any) -> PairJob:
    """The job of a pair; `saving` are arguments of `Result.save`, and without a folder nothing is saved."""
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
    place = None if folder is None else str((folder / pair.name).absolute())
    return PairJob(pair.moving, pair.reference, place, both, **saving)


def entries_of(
    pairs: Sequence[BatchPair], jobs: Mapping[str, PairJob], earlier: Mapping[str, Entry]
) -> dict[str, Entry]:
    """The entries of this list: earlier ones that are still valid, else pending ones."""
    entries, weights = {}, shipped_weights()
    for pair in pairs:
        job = jobs[pair.name]
        key = _key(job, weights)
        entry = earlier.get(pair.name)
        keep = entry is not None and entry.key == key and entry.still_holds(job.folder, job.reports)
        entries[pair.name] = entry if entry and keep else Entry(pair.name, pair.moving, pair.reference, key)
    return entries


def _key(job: PairJob, weights: str | None) -> str:
    """Key of the settings of a pair; modalities count as part of it only when the user names them."""
    cfg = make_config(job.options)
    named_roles = [role for role in ("moving_modality", "reference_modality") if role in job.options]
    return key_of(
        {
            "settings": cfg.model_dump(mode="json", exclude={"max_memory"}),
            "said": named_roles,
            "weights": weights if cfg.model in ("auto", DEFAULT_WEIGHTS) else None,
            "images": (job.moving, job.reference),
            "outputs": (job.force, job.stac),
        }
    )


def begin(
    pairs: Sequence[BatchPair], jobs: Mapping[str, PairJob], manifest: Manifest, *, overwrite: bool = False
) -> Manifest:
    """Write the manifest with the entries of this list; done ones of an earlier run stay if they are still valid.

    Raises:
        OutputError, InputError: see `read_manifest`.
    """
    earlier = read_manifest(manifest.folder, manifest.kind, overwrite=overwrite)
    lost = [name for name in earlier if name not in jobs]
    if lost:
        log.warning("%d pairs of an earlier run are no longer in the list; their outputs stay: %s", len(lost), lost)
    manifest.entries = entries_of(pairs, jobs, earlier)
    manifest.write()
    return manifest


def finish(
    manifest: Manifest,
    jobs: Mapping[str, PairJob],
    do: Callable[[PairJob], PairDone],
    workers: tuple[int | None, Any],
    tell: Progress,
    *,
    continue_on_error: bool = True,
) -> list[str]:
    """Do all unfinished pairs of a manifest; the caller holds the lock of its folder.

    Args:
        manifest: from `begin`.
        jobs: by name.
        do: function of one job, run here or on a worker.
        workers: processes on this machine, and Dask scheduler, see `open_runner`.
        tell: called with the last pair and the share of the pairs done.
        continue_on_error: False ends with the first pair that fails; the rest stays pending.

    Returns:
        Names of the pairs that were unfinished.
    """
    total = len(manifest.entries)
    todo = [entry.name for entry in manifest.entries.values() if entry.status != "done"]
    tell(f"{total - len(todo)} of {total} done before", 1 - len(todo) / total)
    if todo:
        count = None if workers[0] is None else min(workers[0], len(todo))
        with open_runner(count, workers[1]) as runner:
            _work(runner, manifest, jobs, todo, do, continue_on_error, tell)
    return todo


def _work(
    runner: Runner,
    manifest: Manifest,
    jobs: Mapping[str, PairJob],
    todo: list[str],
    do: Callable[[PairJob], PairDone],
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
        for index, outcome in runner.run(do, given_out()):
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
    if job.folder is not None:
        _clear(Path(job.folder), job)
    return manifest.update(
        name, status="failed", seconds=seconds, error_kind=failure.kind, error=" ".join(failure.message.split())
    )


def _clear(folder: Path, job: PairJob) -> None:
    """Remove outputs of an earlier run for a pair that failed now, because they no longer match the inputs."""
    if not folder.is_dir():
        return
    stale = without_inputs((folder / name for name in OWNED), files_of(job).values())
    with suppress(SomaregError, OSError):
        with output_folder(folder, overwrite=True, owned=[path.name for path in stale]):
            pass
        if not any(folder.iterdir()):
            folder.rmdir()


def files_of(job: PairJob) -> dict[str, str | Path]:
    """Input files of a pair: images, STAC Items, and files named by options."""
    files: dict[str, str | Path] = {f"file of {k}": v for k, v in job.options.items() if isinstance(v, str | Path)}
    for role, image in (("moving", job.moving), ("reference", job.reference)):
        files |= {f"{role} image": image, f"STAC Item of the {role} image": image.partition("#")[0]}
        with suppress(SomaregError):  # a missing one fails when the pair's turn comes
            files |= {f"{role} image": file_of(locate(image, role)) or image}
    return files
