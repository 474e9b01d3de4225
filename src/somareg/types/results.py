"""What users get: figures, verdict, pictures, and all of it together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from somareg.types.estimates import Displacement, Estimate, Reading, TiePoints, Transform
from somareg.types.images import Header, Raster
from somareg.types.kinds import Progress
from somareg.types.places import Cell, Closeup
from somareg.types.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Metres:
    """Lengths of `Quality` on the ground, each by the name of its fellow in pixels.

    Where the direction of what is measured is known, the length counts both sizes of a pixel. Where it is not, as of
    predicted errors and disagreements, it is the RMS over all directions, and `predicted_ce90_m` is the radius of the
    circle that holds 90 % of the errors on the ground.

    Attributes:
        pixel_m: (x, y) edges of a reference pixel.
        shift_m, bias_m, sigma_m: (x, y) parts, along the edges of a pixel.
        shift_before_m, residual_median_m, forward_backward_m, split_half_m, local_rms_m, predicted_rmse_m,
            predicted_ce90_m, worst_m: see `Quality`.
    """

    pixel_m: tuple[float, float]
    shift_before_m: float
    shift_m: tuple[float, float]
    local_rms_m: float
    residual_median_m: float
    forward_backward_m: float
    split_half_m: float
    predicted_rmse_m: float
    predicted_ce90_m: float
    bias_m: tuple[float, float] = (math.nan, math.nan)
    sigma_m: tuple[float, float] = (math.nan, math.nan)
    worst_m: float = math.nan


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured about an estimate; every number that the verdict looks at.

    Attributes:
        n_points: windows that could be matched.
        inlier_ratio: share (by weight) of the points that the final transform explains, 0-1.
        coverage: share of the overlap's cells that hold an inlier, 0-1.
        residual_median_px: median distance of inliers to the final transform.
        peak_zscore: mean height of the windows' correlation at the estimate above its background, in background
            deviations; about 0 where the images do not correspond.
        peak_sharpness: mean correlation at the estimate against its best value elsewhere (1 unique, <= 0 no peak).
        hit_ratio: share of windows whose own best match, read without any prior, agrees with the estimate, 0-1 (chance
            about 0.1).
        forward_backward_px: disagreement of moving->reference with reference->moving, RMS pixels.
        split_half_px: disagreement of the fits to two halves of the points, RMS pixels.
        similarity_before, similarity_after: structural similarity (mean orientation correlation) under the
            georeference alone and under the estimate, -1 to 1.
        overlap: share of the smaller image's frame that shows valid pixels of both, 0-1.
        folding: share of pixels where the map folds over (Jacobian <= 0), 0-1.
        shift_before_px: RMS displacement found, that is the misregistration before alignment, pixels.
        rotation_deg, scale, shear_deg, shift_px: parameters of the global affine about the reference centre.
        local_rms_px: RMS of the local displacement beyond the affine.
        predicted_rmse_px: calibrated expected error of the estimate; NaN when the verdict is no-go.
        predicted_ce90_px: radius that 90 % of the errors keep, in nine of ten pairs; NaN when the verdict is no-go.
        bias_px, sigma_px: (x, y) mean and standard deviation of the inliers' residuals to the final transform.
        unseen_share: share of what both images show where no match nearby tells anything, 0-1; NaN on no-go.
        worst_px: expected RMS error of the worst of `cells`; NaN on no-go.
        worst_place: where that is, and how many cells were not seen, as a sentence; "" on no-go.
        cells: the error map, summed up in the parts of the common ground that both images show, 6 x 6 at most; () on
            no-go.
        metres: the lengths among these on the ground; None where no CRS tells.
    """

    n_points: int
    inlier_ratio: float
    coverage: float
    residual_median_px: float
    peak_zscore: float
    peak_sharpness: float
    hit_ratio: float
    forward_backward_px: float
    split_half_px: float
    similarity_before: float
    similarity_after: float
    overlap: float
    folding: float
    shift_before_px: float
    rotation_deg: float
    scale: float
    shear_deg: float
    shift_px: tuple[float, float]
    local_rms_px: float
    predicted_rmse_px: float
    predicted_ce90_px: float
    bias_px: tuple[float, float] = (math.nan, math.nan)
    sigma_px: tuple[float, float] = (math.nan, math.nan)
    unseen_share: float = math.nan
    worst_px: float = math.nan
    worst_place: str = ""
    cells: tuple[Cell, ...] = ()
    metres: Metres | None = None

    def without_prediction(self) -> Quality:
        """The same without an expected error, of the whole or of a place: no alignment has none that could be told."""
        nan = math.nan
        ground = self.metres and replace(self.metres, predicted_rmse_m=nan, predicted_ce90_m=nan, worst_m=nan)
        without = replace(self, metres=ground, predicted_rmse_px=nan, predicted_ce90_px=nan)
        return replace(without, worst_px=nan, unseen_share=nan, worst_place="", cells=())

    @property
    def metres_per_pixel(self) -> float | None:
        """Ground size of a reference pixel, RMS over all directions; None where no CRS tells."""
        return None if self.metres is None else math.hypot(*self.metres.pixel_m) / math.sqrt(2.0)

    def as_dict(self) -> dict[str, Any]:
        """Every figure by its name, those in metres (None without) beside those in pixels; JSON-ready but for NaN."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("metres", "cells")}
        on_ground = {f.name: getattr(self.metres, f.name, None) for f in fields(Metres)}
        cells = [asdict(cell) for cell in self.cells]
        return {**own, "metres_per_pixel": self.metres_per_pixel, **on_ground, "cells": cells}


@dataclass(frozen=True, slots=True, eq=False)
class Previews:
    """Pictures of a pair on the reference grid for reports: (h, w) or (h, w, 3) uint8, decimated by `step`.

    Attributes:
        reference, before, after: the reference, the moving image as its georeference places it, and aligned.
        step: reference pixels per preview pixel (float, >= 1).
        corner: (x, y) reference pixel where the pictures begin; they show what both images can show.
        closeups: of the places that are expected to be off most, worst first.
    """

    reference: NDArray[np.uint8]
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    step: float
    corner: tuple[float, float] = (0.0, 0.0)
    closeups: tuple[Closeup, ...] = ()

    @property
    def area(self) -> tuple[float, float, float, float]:
        """(left, top, width, height) of the reference that the pictures show, pixels."""
        rows, columns = self.reference.shape[:2]
        return (*self.corner, columns * self.step, rows * self.step)


@dataclass(frozen=True, eq=False)
class Result:
    """What `register` returns.

    Attributes:
        transform: reference pixels -> pixels of the moving image as given (through both georeferences).
        correction: reference pixels -> pixels on the reference grid where the georeference shows the same ground;
            equals `transform` without a georeference. `displacement.array` samples `correction(xy) - xy`.
        affine: the global affine part of `correction` (a Transform with `.matrix`).
        displacement, tie_points, quality, verdict: see their classes. Of a reference above 4096 px, or of one that was
            matched in tiles, the displacement has a node for 16 x 16 pixels.
        moving, reference: the images; a `Raster` of what was in memory, a `Header` of files.
        settings: every option that shaped the result, JSON-ready.
        notes: decisions taken for the user ("SAR scale: dB, because …"), in order.
        timings: seconds per stage.
        previews: pictures for the report.
        tiles: what each tile said; () for a pair that was matched whole.
        folder: where `register_scene` writes the outputs; None otherwise.
    """

    transform: Transform
    correction: Transform
    affine: Transform
    displacement: Displacement
    tie_points: TiePoints
    quality: Quality
    verdict: Verdict
    moving: Raster | Header
    reference: Raster | Header
    settings: Mapping[str, Any]
    notes: tuple[str, ...]
    timings: Mapping[str, float]
    previews: Previews
    tiles: tuple[Any, ...] = field(default=(), repr=False)
    folder: Path | None = None
    saver: Callable[..., Path] | None = field(default=None, repr=False)
    converter: Callable[..., Any] | None = field(default=None, repr=False)

    @property
    def estimate(self) -> Estimate:
        """The part that `warp` applies."""
        moving = self.moving
        reading = Reading.of_moving(self.settings)
        return Estimate(self.correction, self.reference.grid, moving.grid, reading, moving.sha256, self.verdict)

    @property
    def predicted_rmse_px(self) -> float:
        """Expected error of the alignment, reference pixels (calibrated, see benchmarks/calibration); NaN on no-go."""
        return self.quality.predicted_rmse_px

    def save(
        self,
        folder: str | Path,
        *,
        overwrite: bool = False,
        force: bool = False,
        stac: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Write all outputs into `folder`, whole or not at all.

        Args:
            folder: created if missing; must be empty unless `overwrite`.
            overwrite: replace somareg's own outputs in an existing folder (other files are left alone).
            force: write `aligned.tif` even when the verdict is no-go.
            stac: describe the outputs in a STAC Item, `item.json` (extra `stac`).
            progress: called with a stage's name and the share of work done.

        Returns:
            The folder.

        Raises:
            OutputError: the folder exists and is not empty, is read-only, or the disk is full.
            UnsupportedError: `stac` and pystac is not installed; nothing is written.
        """
        if self.saver is None:
            raise RuntimeError("this Result was built without a saver; use somareg.register")
        told = {} if progress is None else {"progress": progress}
        return self.saver(self, Path(folder), overwrite=overwrite, force=force, stac=stac, **told)

    def to_xarray(self, what: Literal["aligned", "displacement"] = "aligned", *, force: bool = False) -> Any:
        """An output as `xarray.DataArray` on the reference grid, with CRS and nodata value for rioxarray.

        Args:
            what: "aligned", the moving image sampled once through the transform, (band, y, x) in its own dtype; or
                "displacement", float32 bands dx, dy (pixels), certainty and sigma (pixels, NaN where nothing was seen).
            force: give the aligned image even when the verdict is no-go.

        Raises:
            UnsupportedError: xarray or rioxarray is not installed (extra `xarray`).
            EstimationError: the verdict is no-go, and not `force`.
        """
        if self.converter is None:
            raise RuntimeError("this Result was built without a converter; use somareg.register")
        return self.converter(self, what, force=force)


@dataclass(frozen=True, eq=False)
class Assessment:
    """What `assess` returns: how well a pair is aligned as it stands.

    Attributes:
        verdict: "go" aligned and measurable, "review" measurable but off or hard to measure, "no-go" not aligned or
            no sign of common ground.
        misalignment_rmse_px, misalignment_rmse_m: RMS of the measured displacement (metres None where no CRS tells).
        offset_px: mean (dx, dy) measured.
        result: the estimate behind it (its transform was not applied to anything).
    """

    verdict: Verdict
    misalignment_rmse_px: float
    misalignment_rmse_m: float | None
    offset_px: tuple[float, float]
    result: Result
