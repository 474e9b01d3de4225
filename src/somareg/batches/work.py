"""One pair of a batch, in any process, and the cache of references of each process."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from somareg.batches.manifest import FileMark
from somareg.batches.offsets import Offset, offset_of
from somareg.config import SCENE_PX, RegisterConfig, make_config
from somareg.errors import SomaregError
from somareg.io.inputs import Located, file_of, locate, open_image, read_image, told_modalities
from somareg.io.masks import mask_file
from somareg.io.paths import file_behind, named
from somareg.io.stac import StacAsset
from somareg.register import api
from somareg.runtime.budget import allowed, limited
from somareg.soma.weights import DEFAULT_WEIGHTS, embedded, read_card
from somareg.types import Decision, Raster, Reports, Result

_KEPT = 0.1  # share of the memory limit; a reference that needs more is not decoded whole


@dataclass(frozen=True)
class PairJob:
    """The job of one pair.

    Attributes:
        moving, reference: paths that the worker can read, or STAC references.
        folder: where `Result.save` writes, on a disk that worker and caller share; None for a pair that is only
            measured.
        options: of `register`.
        force, stac, reports: of `Result.save`.
    """

    moving: str
    reference: str
    folder: str | None
    options: Mapping[str, Any]
    force: bool = False
    stac: bool = False
    reports: Reports = "all"


@dataclass(frozen=True)
class PairDone:
    """The outcome of a pair; see `Entry`."""

    verdict: Decision
    probability: float
    predicted_rmse_px: float | None
    predicted_rmse_m: float | None
    misregistration_px: float
    files: tuple[FileMark, ...]
    headline: str
    measured: Offset | None = None


def do_pair(job: PairJob) -> PairDone:
    """Register one pair and save it, or only measure it; the cached reference is not decoded again.

    A reference too large for the cache is read from its file, only on the common ground.
    """
    moving, reference = locate(job.moving, "moving"), locate(job.reference, "reference")
    options = {**job.options, **told_modalities(moving, reference, job.options)}
    cfg = make_config(options)
    with limited(cfg.max_memory), open_image(reference, "reference", None, cfg, again=True) as opened:
        facts = opened.facts
        whole = float(np.prod(opened.grid.shape)) * facts.count * (facts.dtype.itemsize + 1)
        is_large = max(opened.grid.shape) > SCENE_PX or whole > _KEPT * allowed()
    before = named(_path(moving), "moving").file.stat()  # before reading, so that a later change is noticed
    image = job.reference if is_large else REFERENCES.get(reference, cfg)
    offset = None
    if job.folder is None:
        assessment = api.assess(job.moving, image, **options)
        result, offset = assessment.result, offset_of(assessment)
    else:
        saving: dict[str, Any] = {"force": job.force, "stac": job.stac, "reports": job.reports}
        result = api.register_into(job.moving, image, job.folder, overwrite=True, **saving, **options)
    verdict = result.verdict
    return PairDone(
        verdict=verdict.decision,
        probability=verdict.probability,
        headline=verdict.headline,
        predicted_rmse_px=_finite(verdict.predicted_rmse_px),
        predicted_rmse_m=_finite(verdict.predicted_rmse_m),
        misregistration_px=result.quality.shift_before_px,
        files=(
            FileMark(str(_file(moving)), before.st_size, before.st_mtime_ns, result.moving.sha256),
            *_others(job, reference, result),
        ),
        measured=offset,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _others(job: PairJob, reference: Located, result: Result) -> list[FileMark]:
    """Marks of all input files but the moving image."""
    settings = result.settings
    marks = [FileMark.of(_file(reference), result.reference.sha256)]
    masks = [str(settings[name]) for name in ("moving_mask", "reference_mask") if settings[name] is not None]
    items = {image.partition("#")[0] for image in (job.moving, job.reference, *masks) if ".json" in image.lower()}
    more = [*sorted(items), settings["tie_points"], *(file_behind(mask_file(path, "")) for path in masks)]
    used = str(settings.get("model_used"))
    if used.endswith(".safetensors"):  # the shipped weights are part of the installation, see `shipped_weights`
        more.append(used)
    return marks + [FileMark.of(path) for path in more if path is not None and Path(path).is_file()]


def shipped_weights() -> str | None:
    """Hash of the weights that "auto" uses in this installation, None without any."""
    path = embedded().get(DEFAULT_WEIGHTS)
    return None if path is None else read_card(path).sha256


def _path(image: Located) -> Path:
    return Path(str(file_of(image)))


def _file(image: Located) -> Path:
    """The file of an image."""
    return named(_path(image), "input").file


class ReferenceCache:
    """The most recently decoded references, by file, modification time and settings.

    The last one is always kept; older ones as long as all together fit into `most_bytes`.
    """

    def __init__(self, most_bytes: int = 512_000_000) -> None:
        self.most_bytes = most_bytes
        self.reads = 0
        self._kept: OrderedDict[tuple[Any, ...], Raster] = OrderedDict()

    def get(self, image: Located, cfg: RegisterConfig) -> Raster:
        """The reference in memory; its pixels are read-only because other pairs share them."""
        key = self._key(image, cfg)
        if key is not None and key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        raster = read_image(image, "reference", None, cfg)
        self.reads += 1
        raster.data.setflags(write=False)
        raster.mask.setflags(write=False)
        if key is not None:
            self._kept[key] = raster
            while len(self._kept) > 1 and sum(map(_bytes, self._kept.values())) > self.most_bytes:
                self._kept.popitem(last=False)
        return raster

    def clear(self) -> None:
        """Drop all references."""
        self._kept.clear()
        self.reads = 0

    @staticmethod
    def _key(image: Located, cfg: RegisterConfig) -> tuple[Any, ...] | None:
        try:
            stat = _file(image).stat()
        except (OSError, SomaregError):
            return None  # reading it will raise the right error
        modality = (repr(image), cfg.reference_modality) if isinstance(image, StacAsset) else ()
        settings = cfg.reference_nodata, cfg.reference_bands, cfg.max_pixels, cfg.gcp_method
        return str(_path(image)), stat.st_size, stat.st_mtime_ns, *settings, *modality


def _bytes(raster: Raster) -> int:
    return raster.data.nbytes + raster.mask.nbytes


REFERENCES = ReferenceCache()
"""The cache of this process."""
