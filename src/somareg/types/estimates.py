"""Maps between two images, the points that join them, and what `warp` applies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from somareg.types.brief import brief, count, crs_name, size_of
from somareg.types.images import Grid
from somareg.types.kinds import (
    BoolArray,
    FloatArray,
)
from somareg.types.verdicts import Verdict


@runtime_checkable
class Transform(Protocol):
    """A map of the plane, called on (N, 2) pixel-centre points (x, y)."""

    def __call__(self, xy: FloatArray) -> FloatArray:
        """Map points (N, 2) to points (N, 2)."""
        ...

    @property
    def inverse(self) -> Transform:
        """The map back; `t.inverse(t(xy))` is xy to numerical accuracy."""
        ...

    @property
    def is_affine(self) -> bool:
        """True when the map is exactly affine (it then has a `.matrix`)."""
        ...

    def __matmul__(self, first: Transform) -> Transform:
        """`(a @ b)(xy) == a(b(xy))`: the right one is applied first."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Displacement:
    """A dense backward map on the reference grid.

    Attributes:
        array: (2, H, W) float32 pixels, (dx, dy): `moving_xy = reference_xy + (dx, dy)`, where moving is the moving
            image brought to the reference grid by its georeference (or as it is, without one). NaN nowhere.
        certainty: (H, W) float32 in 0-1: calibrated probability that the error there is below 1 px; 0 where no match
            tells (an image has no pixels there, or all matches are too far away), and everywhere on no-go.
        sigma: (H, W) float32: expected RMS error (length) there, reference pixels; NaN where no match tells, and
            everywhere on no-go.
        grid: the reference grid, or one whose pixels are 16 x 16 of it: values hold in the middles of its pixels.
    """

    array: NDArray[np.float32]
    certainty: NDArray[np.float32]
    sigma: NDArray[np.float32]
    grid: Grid

    def __repr__(self) -> str:
        return brief("Displacement", "dx, dy, certainty and sigma", f"{self.grid.width} x {self.grid.height} values")


@dataclass(frozen=True, slots=True)
class Reading:
    """How the user asked an image to be read; a field is None where the user left it to the file.

    Attributes:
        nodata: value that means no data.
        scale: of SAR values.
        bands: 1-based bands of the file; one that the file flags as alpha is then imagery, too.
        mask: file of a mask; "none" removes a mask that was given before.
        mask_values: classes of that file that are invalid, as `Classes.parse` reads them.
        gcp_method: the curve through ground control points.
        assume_crs: CRS of an image that declares none.
        part: page or variable of a file of several images.
    """

    nodata: float | None = None
    scale: str | None = None
    bands: tuple[int, ...] | None = None
    mask: str | None = None
    mask_values: str | None = None
    gcp_method: str | None = None
    assume_crs: str | None = None
    part: str | None = None

    @classmethod
    def of_moving(cls, settings: Mapping[str, Any]) -> Reading:
        """Take the reading of the moving image from the settings of a run or a report."""
        bands = settings.get("moving_bands")
        scale, method = settings.get("moving_scale"), settings.get("gcp_method")
        mask = settings.get("moving_mask")
        is_file = mask is not None and mask != IN_MEMORY
        return cls(
            nodata=settings.get("moving_nodata"),
            scale=None if scale == "auto" else scale,
            bands=None if bands is None else tuple(bands),
            mask=mask if is_file else None,
            mask_values=settings.get("moving_mask_values") if is_file else None,
            gcp_method=None if method == "auto" else method,
            assume_crs=settings.get("assume_crs"),
            part=settings.get(MOVING_PART),
        )

    def said(self) -> dict[str, Any]:
        """Return the fields that are set, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def over(self, other: Reading) -> Reading:
        """Complete this reading by another one; a mask and its classes are taken together."""
        theirs = other.said()
        if self.mask is not None:
            theirs.pop("mask_values", None)
        return Reading(**{**theirs, **self.said()})


MOVING_PART = "moving_part"
"""Key of the page or variable of the moving image's file in the settings."""

IN_MEMORY = "mask in memory"
"""Value of a mask option in the settings when the mask is an array."""


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """A registration without its pixels, which `warp` applies to any raster of the moving image's ground.

    Attributes:
        correction: reference pixels -> pixels on the reference grid where the georeference shows the same ground.
        reference: grid of the reference, on which `correction` lives.
        moving: grid of the moving image the estimate was made with (its size matters when nothing is georeferenced).
        reading: how the user asked the moving image to be read; `warp` reads it the same way.
        moving_sha256: checksum of the moving image's file, by which `warp` recognises it; "" for an image in memory.
        verdict: on the estimate; None when it was not judged, as an estimate from tie points alone.
    """

    correction: Transform
    reference: Grid
    moving: Grid
    reading: Reading = field(default_factory=Reading)
    moving_sha256: str = ""
    verdict: Verdict | None = None

    def __repr__(self) -> str:
        onto = f"{size_of(self.moving)} onto {size_of(self.reference)}"
        shape = "affine" if self.correction.is_affine else "affine and local"
        judged = "not judged" if self.verdict is None else self.verdict.decision
        return brief("Estimate", onto, crs_name(self.reference.crs) or "not georeferenced", shape, judged)


@dataclass(frozen=True, slots=True, eq=False)
class TiePoints:
    """Point pairs that join the two images, one per window that was matched.

    Attributes:
        reference_xy: (N, 2) pixels of the reference.
        moving_xy: (N, 2) pixels of the moving image as given (its own grid).
        displacement: (N, 2) measured (dx, dy) in reference pixels (see `Displacement`).
        sigma_px: (N,) predicted standard error per axis, pixels.
        confidence: (N,) 0-1.
        inlier: (N,) bool, kept by the robust fit.
        residual_px: (N,) distance between the measured point and the final transform.

    Points read from a file hold NaN where the file has no value.
    """

    reference_xy: FloatArray
    moving_xy: FloatArray
    displacement: FloatArray
    sigma_px: FloatArray
    confidence: FloatArray
    inlier: BoolArray
    residual_px: FloatArray

    def __repr__(self) -> str:
        inliers = self.inlier & np.isfinite(self.residual_px)
        median = f"median residual {np.median(self.residual_px[inliers]):.2f} px" if inliers.any() else ""
        return brief("TiePoints", count(len(self), "point"), count(int(self.inlier.sum()), "inlier"), median)

    def __len__(self) -> int:
        return len(self.reference_xy)
