"""The result of an audit and its files, which do not depend on when or in how many runs they were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from somareg.batches.audit.findings import (
    DifferenceRecord,
    Finding,
    Mode,
    SceneRecord,
    SeriesRecord,
    StepRecord,
    Unit,
)
from somareg.batches.audit.steps import FALSE_ALARM
from somareg.io.lock import FolderLock
from somareg.report.plain import plain
from somareg.runtime.version import __version__
from somareg.types.brief import brief, count

SCHEMA_VERSION = "1.0"
CSV_NAME, JSON_NAME, PAGE_NAME = "audit.csv", "audit.json", "audit.html"
OWNED = (CSV_NAME, JSON_NAME, PAGE_NAME)
COLUMNS = (
    "name",
    "date",
    "platform",
    "orbit",
    "baseline",
    "series",
    "finding",
    "is_outlier",
    "z",
    "verdict",
    "probability",
    "dx_px",
    "dy_px",
    "sigma_px",
    "rms_px",
    "local_rms_px",
    "dx_m",
    "dy_m",
    "sigma_m",
    "rms_m",
    "rotation_deg",
    "scale",
    "moving",
    "reference",
    "error",
)
_ORDER: tuple[Finding, ...] = ("failed", "pending", "off", "suspect", "unmeasured", "unsure", "fine")


@dataclass(frozen=True)
class AuditResult:
    """What `audit` returns.

    Attributes:
        folder: of the outputs.
        mode: "reference", "consecutive" or "pairs".
        unit: of levels, steps and differences: "m" when every measured scene has metres, else "px".
        tolerance_px: RMS displacement up to which a scene is fine.
        scenes: one record per scene, in the order of time; pairs in the order of their list.
        series: level and scatter of all scenes, and of each series if there are several.
        steps: over all scenes, and in each series if there are several.
        differences: between platforms, orbits and baselines.
        notes: decisions and omissions.
        redone: names of the scenes measured in this run; the others come from earlier runs.
    """

    folder: Path
    mode: Mode
    unit: Unit
    tolerance_px: float
    scenes: tuple[SceneRecord, ...]
    series: tuple[SeriesRecord, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    differences: tuple[DifferenceRecord, ...] = ()
    notes: tuple[str, ...] = ()
    redone: tuple[str, ...] = ()
    saver: Callable[..., Path] | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        findings = ", ".join(f"{number} {name}" for name, number in self.counts.items())
        thing = "pair" if self.mode == "pairs" else "scene"
        more = count(len(self.steps), "step") if self.steps else "", count(len(self.outliers), "outlier")
        return brief(f"AuditResult {count(len(self.scenes), thing)}:", findings, *more)

    @property
    def counts(self) -> dict[str, int]:
        """Number of scenes by finding, the worst first, without zeros."""
        findings = Counter[str](scene.finding for scene in self.scenes)
        return {name: findings[name] for name in _ORDER if findings[name]}

    @property
    def outliers(self) -> tuple[str, ...]:
        """Names of the scenes that are outliers of their series."""
        return tuple(scene.name for scene in self.scenes if scene.is_outlier)

    def rows(self) -> list[dict[str, Any]]:
        """One mapping of `COLUMNS` per scene, JSON-ready; None for missing values."""
        return [{column: plain(_value(scene, column)) for column in COLUMNS} for scene in self.scenes]

    def document(self) -> Mapping[str, Any]:
        """The content of `audit.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "somareg_version": __version__,
            "mode": self.mode,
            "unit": self.unit,
            "tolerance_px": self.tolerance_px,
            "false_alarm": FALSE_ALARM,
            "counts": self.counts,
            "outliers": self.outliers,
            "series": [vars(series) for series in self.series],
            "steps": [_step(record) for record in self.steps],
            "differences": [vars(difference) for difference in self.differences],
            "scenes": self.rows(),
            "notes": self.notes,
        }

    def save(self, folder: str | Path | None = None, *, lock: FolderLock | None = None) -> Path:
        """Write `audit.csv`, `audit.json` and `audit.html`, all or none; earlier ones are replaced.

        Args:
            folder: another one than that of the audit.
            lock: of a caller that holds the folder.

        Returns:
            The folder.

        Raises:
            OutputError: it cannot be written.
        """
        if self.saver is None:
            raise RuntimeError("this AuditResult was built without a saver; use somareg.audit")
        return self.saver(self, self.folder if folder is None else Path(folder), lock=lock)


def _value(scene: SceneRecord, column: str) -> Any:
    if column == "date":
        return scene.facts.date.isoformat().replace("+00:00", "Z") if scene.facts.date else None
    for owner in (scene, scene.facts, scene.offset):
        if hasattr(owner, column):
            return getattr(owner, column)
    return None


def _step(record: StepRecord) -> dict[str, Any]:
    step = record.step
    return {
        "series": record.series,
        "last": record.last,
        "first": record.first,
        "jump": step.jump,
        "size": step.size,
        "sigma": step.sigma,
        "chance": step.chance,
        "before": step.before,
        "after": step.after,
        "changes": record.changes,
    }
