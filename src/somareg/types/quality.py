"""The measured figures of an estimate, in pixels and on the ground."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from somareg.types.places import Cell


@dataclass(frozen=True, slots=True)
class Metres:
    """Lengths of `Quality` in metres on the ground, each named like its counterpart in pixels.

    Where the direction of a measured length is known, both sides of a pixel count. Where it is not, as for
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
    """Measured figures of an estimate, from which the verdict is made.

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
        shift_before_px: RMS of the estimated displacement, that is the misregistration before alignment, pixels.
        rotation_deg, scale, shear_deg, shift_px: parameters of the global affine about the reference centre.
        local_rms_px: RMS of the local displacement beyond the affine.
        predicted_rmse_px: calibrated expected error of the estimate; NaN when the verdict is no-go.
        predicted_ce90_px: radius that contains 90 % of the errors, in nine of ten pairs; NaN when the verdict is no-go.
        bias_px, sigma_px: (x, y) mean and standard deviation of the inliers' residuals to the final transform.
        unseen_share: share of the common ground whose error no nearby match tells, 0-1; NaN on no-go.
        worst_px: expected RMS error of the worst of `cells`; NaN on no-go.
        worst_place: a sentence that says where that is and how many cells have no known error; "" on no-go.
        cells: the error map as one value for each of at most 6 x 6 parts of the common ground; () on
            no-go.
        metres: the lengths among these on the ground; None without a CRS.
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
    cells: tuple[Cell, ...] = field(default=(), repr=False)
    metres: Metres | None = None

    def without_prediction(self) -> Quality:
        """Drop every expected error: a pair that is not aligned has none."""
        nan = math.nan
        ground = self.metres and replace(self.metres, predicted_rmse_m=nan, predicted_ce90_m=nan, worst_m=nan)
        without = replace(self, metres=ground, predicted_rmse_px=nan, predicted_ce90_px=nan)
        return replace(without, worst_px=nan, unseen_share=nan, worst_place="", cells=())

    @property
    def metres_per_pixel(self) -> float | None:
        """Ground size of a reference pixel, RMS over all directions; None without a CRS."""
        return None if self.metres is None else math.hypot(*self.metres.pixel_m) / math.sqrt(2.0)

    def as_dict(self) -> dict[str, Any]:
        """Every figure by its name, those in metres (None without) beside those in pixels; JSON-ready but for NaN."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("metres", "cells")}
        on_ground = {f.name: getattr(self.metres, f.name, None) for f in fields(Metres)}
        cells = [asdict(cell) for cell in self.cells]
        return {**own, "metres_per_pixel": self.metres_per_pixel, **on_ground, "cells": cells}
