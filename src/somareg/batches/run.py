"""`batch`: register and save every pair of a list, in a folder from which a later run resumes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Unpack

from somareg.batches.finish import begin, entries_of, files_of, finish, job_of
from somareg.batches.manifest import FILE_NAME, Entry, Manifest, read_manifest
from somareg.batches.pairs import Pairs, find_pairs, unmatched
from somareg.batches.summary import CSV_NAME, JSON_NAME, BatchResult
from somareg.batches.work import PairJob, do_pair
from somareg.config import make_config
from somareg.config.arguments import RegisterOptions
from somareg.errors import guarded
from somareg.io.atomic import check_writable
from somareg.io.folders import keep_inputs, make_folder
from somareg.io.lock import folder_lock
from somareg.io.paths import check_folder_name
from somareg.report import check_reports
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
    """Register many pairs and save each into its own folder; a second call resumes.

    A pair is done again when its settings, its files or the weights have changed, when it failed, and when its outputs
    are missing. A failed pair is recorded and does not stop the others.

    Args:
        pairs: a CSV with the columns moving, reference and optionally name and options of `register`; a folder of
            moving images; or a list of (moving, reference).
        out: folder for one folder per pair, `manifest.jsonl`, `summary.csv` and `summary.json`.
        reference: to a folder of moving images, the folder of references, matched by name without suffix, or one
            reference for all (a time series; each process decodes it once).
        workers: processes on this machine.
        dask: address of a Dask scheduler, or a `distributed.Client`; its workers must see the same files.
        overwrite: do all pairs anew, and allow a folder with other content.
        force, stac: see `Result.save`.
        reports: pairs with a `report.html`: "all", "problems" (every verdict but *go*), or "none". A later call
            that asks for more pages does their pairs again.
        continue_on_error: False ends the run with the first pair that fails; the rest stays pending.
        progress: called with the last pair and the share of the pairs done.
        **options: of `register`, for all pairs; a row of the table takes precedence.

    Returns:
        An entry per pair, counts, and the worst of them.

    Raises:
        ConfigError: an unknown option or column, or a bad value; nothing is done.
        ReadError, InputError: the list cannot be used, or an earlier manifest is damaged.
        OutputError: another run is at work in the folder, or it cannot be written.
        ClusterError: no worker is left; run again to continue.
    """
    check_use(make_config(options))
    check_reports(reports)
    if stac:
        from somareg.report.stac import need_pystac

        need_pystac()
    listed_pairs = find_pairs(pairs, reference)
    folder = Path(out)
    jobs = {pair.name: job_of(pair, folder, options, force=force, stac=stac, reports=reports) for pair in listed_pairs}
    tell = progress or (lambda stage, share: None)
    lonely = _unmatched(pairs, reference)
    check_folder_name(folder)
    _spare_inputs(folder, pairs, jobs.values())
    make_folder(folder)
    with folder_lock(folder) as lock:
        check_writable(folder, overwrite=True, lock=lock)
        manifest = begin(listed_pairs, jobs, Manifest(folder), overwrite=overwrite)
        todo = finish(manifest, jobs, do_pair, (workers, dask), tell, continue_on_error=continue_on_error)
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
    """The entries that `batch` would start from: "done" ones and "pending" ones that it would do; same arguments."""
    check_use(make_config(options))
    check_reports(reports)
    listed_pairs, folder = find_pairs(pairs, reference), Path(out)
    jobs = {pair.name: job_of(pair, folder, options, force=force, stac=stac, reports=reports) for pair in listed_pairs}
    return list(entries_of(listed_pairs, jobs, read_manifest(folder, overwrite=overwrite)).values())


def _spare_inputs(folder: Path, pairs: Pairs, jobs: Iterable[PairJob]) -> None:
    """Refuse a folder where the batch's own files would overwrite an input."""
    outputs = [folder / name for name in (FILE_NAME, CSV_NAME, JSON_NAME)]
    keep_inputs(outputs, {"table of pairs": pairs if isinstance(pairs, str | Path) else None})
    for job in jobs:
        keep_inputs(outputs, files_of(job))


def _unmatched(pairs: Pairs, reference: str | Path | None) -> list[str]:
    if not isinstance(pairs, str | Path) or reference is None or not Path(reference).is_dir():
        return []
    names = unmatched(pairs, reference)
    if names:
        log.warning("%d images have no partner of the same name: %s", len(names), ", ".join(names[:8]))
    return names
