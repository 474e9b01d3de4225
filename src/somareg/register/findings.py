"""The result of matching, whole or in tiles, in one form, from which one module makes a `Result`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from somareg.geometry import AffineTransform, FieldTransform
from somareg.geometry.field import LatticeValues
from somareg.io.source import Block
from somareg.quality import Support, load_calibration
from somareg.register.choose import Chosen
from somareg.types import BoolArray, FloatArray, Raster

Corner = tuple[float, float]


@dataclass(frozen=True, eq=False)
class View:
    """A part of an image, perhaps averaged, for pictures and for the validity of pixels.

    Attributes:
        raster: its pixels.
        block: the part, in pixels of the whole image.
        factor: pixels of the image per pixel of the raster.
        valid_share: valid share of the image's pixels that were read, 0-1.
    """

    raster: Raster
    block: Block
    factor: int
    valid_share: float

    @property
    def nbytes(self) -> int:
        """Bytes of its pixels and mask."""
        return self.raster.data.nbytes + self.raster.mask.nbytes

    @property
    def to_whole(self) -> AffineTransform:
        """Pixels of the raster -> pixels of the whole image."""
        return AffineTransform.from_parameters(shift=self.block[:2]).after(AffineTransform.reduction(self.factor))

    def seen(self, points: FloatArray) -> BoolArray:
        """Whether each point (N, 2) of the whole image falls on a valid pixel of the part."""
        block, mask = self.block, self.raster.mask
        x, y = np.rint(points.T) - np.reshape(block[:2], (2, 1))
        inside = np.asarray((x >= 0) & (x < block.width) & (y >= 0) & (y < block.height))  # false for NaN
        column, row = (v[inside].astype(np.intp) // self.factor for v in (x, y))
        seen = np.zeros(len(points), bool)
        # Averaging drops a rim narrower than a block; points there take the validity of the neighbouring pixel.
        seen[inside] = mask[np.minimum(row, mask.shape[0] - 1), np.minimum(column, mask.shape[1] - 1)]
        return seen


@dataclass(frozen=True, eq=False)
class Matches:
    """Matches of single windows, or given points.

    Attributes:
        points: (N, 2) reference pixels.
        target: (N, 2) position of each match, in the target coordinates of corrections (see `Findings`).
        sigma_px: (N,) standard error per axis, reference pixels.
        confidence: (N,) 0-1.
        used: (N,) bool, whether the fit used it.
        near_px: largest distance of an inlier from the estimate, pixels.
    """

    points: FloatArray
    target: FloatArray
    sigma_px: FloatArray
    confidence: FloatArray
    used: BoolArray
    near_px: float

    @classmethod
    def none(cls) -> Matches:
        nothing = np.zeros((0, 2))
        return cls(nothing, nothing, nothing[:, 0], nothing[:, 0], np.zeros(0, bool), 0.0)


@dataclass(frozen=True, eq=False)
class Findings:
    """The result of matching two images.

    Maps and corrections lead from reference pixels to reference pixels if the pair is georeferenced, else to moving
    pixels.

    Attributes:
        affine: of the estimate.
        expected: the prior map.
        field: displacement on the reference, applied before the affine; None for none.
        coverage: on the reference, 0-1: share of the uncertainty that matches nearby removed; None if
            unknown.
        spread: standard deviation per axis of the field, reference pixels; None if unknown.
        matches: of windows or points.
        support: by the images.
        reference, moving: views of the matched parts.
        ran: the engine that matched.
        step: reference pixels per node of the output displacement.
        working_px: reference pixels per matched (working) pixel, the unit in which errors were calibrated.
        notes: decisions taken.
        tiles: the result of each tile; () for a pair that was matched whole.
    """

    affine: AffineTransform
    expected: AffineTransform
    field: FieldTransform | None
    coverage: LatticeValues | None
    spread: LatticeValues | None
    matches: Matches
    support: Support
    reference: View
    moving: View
    ran: Chosen
    step: int = 1
    working_px: int = 1
    notes: tuple[str, ...] = ()
    tiles: tuple[Any, ...] = ()

    @property
    def is_sure(self) -> bool:
        """Whether the images support the estimate so well that no other ground needs to be tried."""
        return self.support.probability >= load_calibration(self.ran.engine).go

    def moved(self, here: Corner, there: Corner) -> Findings:
        """The same with `here` added to coordinates of reference pixels, and `there` to those that maps lead to."""
        if not any((*here, *there)):
            return self
        back = AffineTransform.from_parameters(shift=(-here[0], -here[1]))
        on = AffineTransform.from_parameters(shift=there)

        def on_reference(known: LatticeValues | None) -> LatticeValues | None:
            return known and replace(known, origin=_plus(known.origin, here))

        field = self.field
        return replace(
            self,
            affine=on.after(self.affine).after(back),
            expected=on.after(self.expected).after(back),
            field=field and replace(field, origin=_plus(field.origin, here)),
            coverage=on_reference(self.coverage),
            spread=on_reference(self.spread),
            matches=replace(
                self.matches, points=self.matches.points + here, target=self.matches.target + np.array(there)
            ),
        )


def _plus(first: Corner, second: Corner) -> Corner:
    return first[0] + second[0], first[1] + second[1]
