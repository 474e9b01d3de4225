"""`report.json`: inputs, settings, outputs and all figures in pixels and metres."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import AwareDatetime, Field, ValidationError
from pydantic_core import from_json

from somareg.errors import InputError, ReadError, UnsupportedError
from somareg.report.error_map import ErrorMapRecord, error_map_record
from somareg.report.inputs import InputRecord, input_record
from somareg.report.plain import Length, Number, Part, plain
from somareg.runtime.version import __version__
from somareg.types import Decision, Result, Verdict

SCHEMA_VERSION = "1.0"
MAX_REPORT_BYTES = 64 * 1024 * 1024


class AffineRecord(Part):
    """The global affine, reference pixel centres to moving pixel centres on the reference grid."""

    matrix: list[list[Number]] = Field(description="2 x 3, pixels")
    rotation_deg: Number = Field(description="clockwise on the screen")
    scale: Number
    shear_deg: Number
    shift_x: Length = Field(description="at the reference centre, to the right")
    shift_y: Length = Field(description="at the reference centre, down")


class PerAxis(Part):
    """One figure along each axis of the reference."""

    x: Length
    y: Length


class Figures(Part):
    """The most important lengths."""

    metres_per_pixel: Number = Field(description="of a reference pixel, RMS over all directions")
    pixel_m: tuple[float, float] | None = Field(default=None, description="its upper and left edge, metres")
    misregistration_before: Length = Field(description="RMS displacement found")
    predicted_rmse: Length = Field(description="calibrated expected error after alignment; null on no-go")
    predicted_ce90: Length = Field(description="calibrated radius that holds 90 % of the errors; null on no-go")
    local_rms: Length = Field(description="RMS of the displacement beyond the affine")
    residual_median: Length = Field(description="median distance of inliers to the transform")
    bias: PerAxis | None = Field(default=None, description="mean of the inliers' residuals to the transform")
    sigma: PerAxis | None = Field(default=None, description="standard deviation of the same residuals")
    forward_backward: Length
    split_half: Length

    @property
    def edges_m(self) -> tuple[float, float] | None:
        """Upper and left edge of a reference pixel, metres; earlier reports have one number for both."""
        scale = self.metres_per_pixel
        return self.pixel_m or (None if scale is None else (scale, scale))


class TiePointRecord(Part):
    """Numbers of tie points."""

    total: int
    inliers: int


class VerdictRecord(Part):
    """The decision and why."""

    decision: Decision
    probability: Number = Field(description="calibrated probability that the error is below 2 px")
    headline: str = Field(default="", description="decision, chance, expected error and worst place in one line")
    reasons: list[str]


class OutputRecord(Part):
    """A file written beside the report."""

    sha256: str
    bytes: int


class Report(Part):
    """The content of `report.json`."""

    schema_version: str = Field(default=SCHEMA_VERSION, pattern=r"^1\.\d+$")
    somareg_version: str
    created: AwareDatetime
    moving: InputRecord
    reference: InputRecord
    verdict: VerdictRecord
    figures: Figures
    affine: AffineRecord
    tie_points: TiePointRecord
    error_map: ErrorMapRecord | None = Field(default=None, description="null on no-go, and in earlier reports")
    quality: dict[str, Any]
    settings: dict[str, Any]
    notes: list[str]
    timings_s: dict[str, Number]
    outputs: dict[str, OutputRecord]

    @property
    def headline(self) -> str:
        """Headline of the verdict; reports of earlier versions have none."""
        verdict, error = self.verdict, self.figures.predicted_rmse
        chance, px, m = (math.nan if v is None else v for v in (verdict.probability, error.px, error.m))
        worst = self.error_map.worst_place if self.error_map else ""
        return verdict.headline or Verdict(verdict.decision, (), chance, px, m, worst).headline

    def to_json(self) -> str:
        """Indented JSON text ending with a newline; missing figures are null, never NaN."""
        return self.model_dump_json(indent=2) + "\n"


def build_record(
    result: Result, outputs: Mapping[str, Path], *, folder: Path | None = None, created: datetime | None = None
) -> Report:
    """Build the report of a result.

    Args:
        result: from `register`.
        outputs: file name in the result folder -> current path; each is hashed.
        folder: final folder of the report.
        created: time stamp with a time zone; None for now.

    Raises:
        ReadError: an output cannot be read.
    """
    record = Report(
        somareg_version=__version__,
        created=created or datetime.now(UTC).replace(microsecond=0),
        moving=input_record(result.moving, folder),
        reference=input_record(result.reference, folder),
        verdict=VerdictRecord(
            decision=result.verdict.decision,
            probability=result.verdict.probability,
            headline=plain(result.verdict.headline),
            reasons=plain(result.verdict.reasons),
        ),
        figures=_figures(result),
        affine=_affine_record(result),
        tie_points=TiePointRecord(
            total=len(result.tie_points), inliers=int(np.count_nonzero(result.tie_points.inlier))
        ),
        error_map=error_map_record(result),
        quality=plain({name: value for name, value in result.quality.as_dict().items() if name != "cells"}),
        settings=plain(result.settings),
        notes=plain(result.notes),
        timings_s=plain(result.timings),
        outputs={name: _output_record(path) for name, path in sorted(outputs.items())},
    )
    return _without_claims(record)


def load_report(path: str | Path) -> Report:
    """Read and check a `report.json`.

    Raises:
        ReadError: the file is missing, too large or not JSON.
        UnsupportedError: it has another schema version.
        InputError: it is not a somareg report, or a value is out of its range.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise ReadError(f"{path}: larger than any somareg report; give the report.json of a result folder.")
        content = from_json(path.read_bytes(), allow_inf_nan=False)
    except OSError as error:
        raise ReadError(f"cannot read report {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ReadError(f"{path} is not valid JSON ({error}); give the report.json of a result folder.") from error
    if not isinstance(content, dict) or "schema_version" not in content:
        raise InputError(f"{path} is not a somareg report: it has no schema_version.")
    version = content["schema_version"]
    if not isinstance(version, str) or version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise UnsupportedError(
            f"{path} has report schema {version!r}; somareg {__version__} reads {SCHEMA_VERSION}. "
            "Use the somareg version that wrote it, or register again."
        )
    try:
        return _without_claims(Report.model_validate(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path} is not a valid somareg report: {where}: {first['msg']}.") from error


def _without_claims(report: Report) -> Report:
    """Remove expected errors of a no-go, which reports of earlier versions contain."""
    if report.verdict.decision != "no-go":
        return report
    unknown = Length(px=None, m=None)
    figures = report.figures.model_copy(update={"predicted_rmse": unknown, "predicted_ce90": unknown})
    claims = ("predicted_", "worst_", "unseen_")
    quality = {name: None if name.startswith(claims) else value for name, value in report.quality.items()}
    return report.model_copy(update={"figures": figures, "error_map": None, "quality": quality})


def residual_vectors(result: Result) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(N, 2) reference pixels: measured displacement of each tie point minus that of the final transform."""
    points = result.tie_points
    if not len(points):
        return np.zeros((0, 2))
    fitted = result.correction(points.reference_xy) - points.reference_xy
    return np.asarray(points.displacement - fitted, dtype=np.float64)


def _figures(result: Result) -> Figures:
    quality, ground = result.quality, result.quality.metres

    def both(name: str) -> Length:
        return Length(px=getattr(quality, f"{name}_px"), m=getattr(ground, f"{name}_m", None))

    def per_axis(name: str) -> PerAxis:
        px, m = getattr(quality, f"{name}_px"), getattr(ground, f"{name}_m", (None, None))
        return PerAxis(x=Length(px=px[0], m=m[0]), y=Length(px=px[1], m=m[1]))

    return Figures(
        metres_per_pixel=quality.metres_per_pixel,
        pixel_m=ground.pixel_m if ground else None,
        misregistration_before=both("shift_before"),
        predicted_rmse=both("predicted_rmse"),
        predicted_ce90=both("predicted_ce90"),
        local_rms=both("local_rms"),
        residual_median=both("residual_median"),
        bias=per_axis("bias"),
        sigma=per_axis("sigma"),
        forward_backward=both("forward_backward"),
        split_half=both("split_half"),
    )


def _affine_record(result: Result) -> AffineRecord:
    quality = result.quality
    shift_m = quality.metres.shift_m if quality.metres else (None, None)
    return AffineRecord(
        matrix=plain(np.asarray(getattr(result.affine, "matrix", np.full((2, 3), np.nan)))),
        rotation_deg=quality.rotation_deg,
        scale=quality.scale,
        shear_deg=quality.shear_deg,
        shift_x=Length(px=quality.shift_px[0], m=shift_m[0]),
        shift_y=Length(px=quality.shift_px[1], m=shift_m[1]),
    )


def _output_record(path: Path) -> OutputRecord:
    from somareg.io.raster import file_sha256  # imports GDAL, which reading a report does not need

    try:
        return OutputRecord(sha256=file_sha256(path), bytes=path.stat().st_size)
    except OSError as error:
        raise ReadError(f"cannot read output {path} to hash it: {error.strerror or error}") from error
