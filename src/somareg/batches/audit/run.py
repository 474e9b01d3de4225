"""`audit`: measure every scene of an archive without warping, and analyse the offsets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Unpack

from somareg.batches.audit.findings import (
    ALL,
    Mode,
    SceneRecord,
    SeriesRecord,
    Unit,
    course_in,
    differences,
    finding_of,
    series_name,
    series_record,
    step_records,
    unit_of,
)
from somareg.batches.audit.result import OWNED, AuditResult
from somareg.batches.audit.save import save
from somareg.batches.audit.scenes import Scene, Scenes, find_scenes
from somareg.batches.audit.steps import LEAST, Course
from somareg.batches.finish import begin, files_of, finish, job_of
from somareg.batches.manifest import FILE_NAME, Entry, Manifest
from somareg.batches.pairs import BatchPair, find_pairs, unmatched
from somareg.batches.work import do_pair
from somareg.config import make_config
from somareg.config.arguments import RegisterOptions
from somareg.errors import ConfigError, InputError, guarded
from somareg.io.atomic import check_writable
from somareg.io.folders import keep_inputs, make_folder
from somareg.io.lock import folder_lock
from somareg.io.paths import check_folder_name, whole_path
from somareg.tiepoints.use import check_use
from somareg.types import Progress
from somareg.types.brief import count

TOLERANCE_PX = 2.0
"""Default RMS displacement up to which a scene is fine."""


@guarded
def audit(
    scenes: Scenes,
    out: str | Path,
    *,
    reference: str | Path | None = None,
    consecutive: bool = False,
    glob: str | None = None,
    asset: str | None = None,
    tolerance_px: float = TOLERANCE_PX,
    workers: int | None = None,
    dask: Any = None,
    overwrite: bool = False,
    continue_on_error: bool = True,
    progress: Progress | None = None,
    **options: Unpack[RegisterOptions],
) -> AuditResult:
    """Measure the offsets of an archive's scenes, and find drift, steps and outliers; a second call resumes.

    Nothing is warped, and a scene's only output is its line in `manifest.jsonl`. A scene is measured anew when
    its settings, its files or the weights have changed, and when it failed.

    Args:
        scenes: a folder, a table, a STAC file or a list, see `find_scenes`. A table with a column `reference`, or a
            list of (moving, reference), is a data set of pairs that should be aligned.
        out: folder for `audit.csv`, `audit.json`, `audit.html` and `manifest.jsonl`.
        reference: image that every scene is compared with; or, for a folder of scenes, a folder of references, matched
            by name without suffix: a data set of pairs.
        consecutive: compare each date with the one before it.
        glob, asset: see `find_scenes`.
        tolerance_px: RMS displacement up to which a scene is fine, reference pixels.
        workers, dask, continue_on_error, progress: as for `batch`.
        overwrite: measure all anew, and allow a folder with other content.
        **options: of `register`, for all scenes; a row of a table takes precedence.

    Returns:
        Records of scenes, series, steps and differences; its files are written.

    Raises:
        ConfigError: an unknown option or a bad value, or no reference or several; nothing is done.
        ReadError, InputError, UnsupportedError: the scenes cannot be listed, or an earlier manifest is damaged.
        OutputError: another run is at work in the folder, or it cannot be written.
        ClusterError: no worker is left; run again to continue.
    """
    check_use(make_config(options))
    if not tolerance_px >= 0:
        raise ConfigError(f"tolerance_px is {tolerance_px}; give 0 or more pixels")
    mode, archive, notes = _scenes(scenes, reference, consecutive, glob, asset)
    pairs = find_pairs([_pair(scene, options) for scene in archive])
    folder = Path(out)
    jobs = {pair.name: job_of(pair, None, options) for pair in pairs}
    check_folder_name(folder)
    outputs = [folder / name for name in (FILE_NAME, *OWNED)]
    keep_inputs(outputs, {"list of scenes": scenes if isinstance(scenes, str | Path) else None})
    for job in jobs.values():
        keep_inputs(outputs, files_of(job))
    make_folder(folder)
    with folder_lock(folder) as lock:
        check_writable(folder, overwrite=True, lock=lock)
        manifest = begin(pairs, jobs, Manifest(folder, kind="audit"), overwrite=overwrite)
        tell = progress or (lambda stage, share: None)
        redone = finish(manifest, jobs, do_pair, (workers, dask), tell, continue_on_error=continue_on_error)
        entries = [manifest.entries[pair.name] for pair in pairs]
        records = [_record(scene, entry, tolerance_px) for scene, entry in zip(archive, entries, strict=True)]
        result = replace(judged(folder, mode, records, tolerance_px, notes), redone=tuple(redone))
        result.save(lock=lock)
    return result


def judged(
    folder: Path, mode: Mode, scenes: Sequence[SceneRecord], tolerance_px: float, notes: Sequence[str] = ()
) -> AuditResult:
    """Analyse all measured scenes together.

    A scene is compared with its own series when at least six of that were measured, else with all scenes. A chain of
    dates crosses series and counts as one.
    """
    unit = unit_of([scene.offset for scene in scenes])
    order, course = course_in(scenes, unit, mode)
    records, steps, remarks = list(scenes), step_records(scenes, order, course, ALL), list(notes)
    courses = {ALL: (order, course)}
    names = sorted({scene.series for scene in scenes if scene.series})
    for name in names if len(names) > 1 and mode != "consecutive" else ():
        places = [i for i, scene in enumerate(scenes) if scene.series == name]
        inner, own = course_in([scenes[i] for i in places], unit, mode)
        if len(inner) < 2 * LEAST:
            continue
        mine = [places[i] for i in inner]
        courses[name] = mine, own
        steps += step_records(scenes, mine, own, name)
    for places, each in courses.values():  # a series takes precedence over all scenes
        for place, z, is_outlier in zip(places, each.z.tolist(), each.outliers.tolist(), strict=True):
            records[place] = replace(records[place], z=z, is_outlier=is_outlier)
    missing = sum(scene.facts.date is None for scene in scenes)
    if mode != "pairs" and missing:
        words = "the order of the list replaces time" if missing == len(scenes) else "they are not used for steps"
        remarks.append(f"{count(missing, 'scene')} without a date: {words}")
    unseen = sum(scene.offset is None for scene in scenes)
    if unseen:
        remarks.append(f"{count(unseen, 'scene')} could not be measured and are not used in the statistics")
    if unit == "px" and any(scene.offset and scene.offset.dx_m is not None for scene in scenes):
        remarks.append("some scenes have no metres: levels and steps are in pixels")
    return AuditResult(
        folder=folder,
        mode=mode,
        unit=unit,
        tolerance_px=tolerance_px,
        scenes=tuple(records),
        series=tuple(_series(scenes, courses, unit, mode)),
        steps=tuple(steps),
        differences=tuple(differences(scenes, unit, course)) if mode == "reference" else (),
        notes=tuple(remarks),
        saver=save,
    )


def _series(
    scenes: Sequence[SceneRecord], courses: Mapping[str, tuple[list[int], Course]], unit: Unit, mode: Mode
) -> Iterator[SeriesRecord]:
    """All scenes, and each series of several that has a measured scene."""
    names = sorted({scene.series for scene in scenes if scene.offset and scene.series})
    scatter = courses[ALL][1].scatter
    for name in (ALL, *(names if len(names) > 1 else ())):
        if name in courses:
            own, course = courses[name]
            steps, scatter_here = course.steps, course.scatter
        else:
            own = [i for i, scene in enumerate(scenes) if scene.offset and scene.series == name]
            steps, scatter_here = (), scatter
        if own:
            own_steps = steps if mode == "reference" else ()
            yield series_record(name, [scenes[i] for i in own], own_steps, unit, scatter_here)


def _scenes(
    scenes: Scenes, reference: str | Path | None, consecutive: bool, glob: str | None, asset: str | None
) -> tuple[Mode, list[Scene], list[str]]:
    """The mode, the scenes with their references, and notes."""
    if reference is not None and consecutive:
        raise ConfigError("give a reference or consecutive, not both")
    if reference is not None and Path(reference).is_dir():
        if not isinstance(scenes, str | Path) or not Path(scenes).is_dir() or glob or asset:
            raise ConfigError(
                f"{reference} is a folder of references: give a folder of scenes, too, without glob and asset"
            )
        pairs = find_pairs(scenes, reference)
        lonely = unmatched(scenes, reference)
        notes = [f"no partner of the same name: {', '.join(Path(one).name for one in lonely)}"] if lonely else []
        return "pairs", [replace(find_scenes([p.moving])[0], reference=p.reference) for p in pairs], notes
    found = find_scenes(scenes, glob=glob, asset=asset)
    if found[0].reference:
        if reference is not None or consecutive:
            raise ConfigError("the scenes name references of their own; leave out reference and consecutive")
        return "pairs", found, []
    found.sort(key=lambda scene: (scene.facts.date is None, scene.facts.date.timestamp() if scene.facts.date else 0.0))
    if consecutive:
        if len(found) < 2:
            raise InputError("one scene alone has no date before it; give a reference, or more scenes")
        chain = [replace(b, reference=a.image, reference_modality=a.modality) for a, b in pairwise(found)]
        return "consecutive", chain, []
    if reference is None:
        raise ConfigError("nothing to compare the scenes with: give a reference, consecutive, or a table of pairs")
    whole = whole_path(reference)
    others = [replace(scene, reference=whole) for scene in found if scene.image != whole]
    if not others:
        raise InputError(f"the reference {reference} is the only scene")
    left_out = [f"{Path(whole).name} is the reference and no scene"] if len(others) < len(found) else []
    return "reference", others, left_out


def _pair(scene: Scene, options: Mapping[str, Any]) -> BatchPair:
    own = dict(scene.options)
    for name, modality in (("moving_modality", scene.modality), ("reference_modality", scene.reference_modality)):
        if modality and name not in {*own, *options}:
            own[name] = modality
    return BatchPair(scene.name, scene.image, scene.reference, own)


def _record(scene: Scene, entry: Entry, tolerance_px: float) -> SceneRecord:
    name = series_name(scene.facts, scene.series)
    record = SceneRecord(entry.name, entry.moving, entry.reference, scene.facts, name, None, None, None, "pending")
    if entry.status == "failed":
        return replace(record, finding="failed", error=entry.error or "")
    if entry.status != "done" or entry.verdict is None:
        return record
    return replace(
        record,
        verdict=entry.verdict,
        probability=entry.probability,
        offset=entry.measured,
        finding=finding_of(entry.verdict, entry.measured, tolerance_px),
    )
