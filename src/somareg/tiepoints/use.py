"""The user's tie points: one more start of the search, or the whole estimate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from somareg.config import RegisterConfig
from somareg.errors import ConfigError, EstimationError, InputError
from somareg.geometry import AffineTransform
from somareg.preprocess.prepare import Prepared
from somareg.tiepoints.fit import GivenFit, GivenPoints, fit_given
from somareg.tiepoints.formats import read_tie_points
from somareg.types import BoolArray, Grid, TiePoints, Transform

IN_MEMORY = "tie points in memory"


@dataclass(frozen=True, eq=False)
class Given:
    """Usable tie points and their affine.

    Attributes:
        points: in reference pixels; their targets are the moving points on the reference grid by the
            georeferences, as for `Result.correction`.
        fit: robust affine of these, reference pixels -> reference grid.
        note: a phrase on the number of points used and left out.
    """

    points: GivenPoints
    fit: GivenFit
    note: str

    @property
    def affine(self) -> AffineTransform:
        """The affine of the fit."""
        return self.fit.affine

    def moved(self, here: tuple[float, float], there: tuple[float, float]) -> Given:
        """Add `here` to all reference pixels and `there` to all targets."""
        back = AffineTransform.from_parameters(shift=(-here[0], -here[1]))
        affine = AffineTransform.from_parameters(shift=there).after(self.affine).after(back)
        points = replace(self.points, xy=self.points.xy + here, target=self.points.target + np.array(there))
        return replace(self, points=points, fit=replace(self.fit, affine=affine))

    def start(self, prepared: Prepared) -> AffineTransform:
        """The affine between the working pixels of the pair: one more start of the search."""
        return prepared.moving_pixels.inverse.after(self.affine).after(prepared.reference_pixels)

    def told(self, cfg: RegisterConfig, *, local: bool = False) -> tuple[str, ...]:
        """Notes for the result on how the points were used."""
        if cfg.tie_points_use == "seed":
            return (f"{self.note}; their affine was one of the starts",)
        beyond = "with the smooth displacement that they carry beyond it" if local else "without local displacement"
        return (f"{self.note}; it is the estimate, {beyond}; the images were not matched, only compared",)

    def at_work(self, prepared: Prepared) -> GivenPoints:
        """The points in the working pixels of the pair."""
        here, there = prepared.reference_pixels.inverse, prepared.moving_pixels.inverse
        points = self.points
        return replace(
            points, xy=here(points.xy), target=there(points.target), sigma_px=points.sigma_px / prepared.factor
        )


def name_of(source: str | Path | TiePoints | None) -> str | None:
    """Name of the points in settings and messages.

    Raises:
        InputError: neither a path nor `TiePoints`.
    """
    if not isinstance(source, str | Path | TiePoints | None):
        raise InputError(
            f"tie_points is a {type(source).__name__}; give the path of a file, such as a CSV with the columns "
            "ref_x, ref_y, mov_x, mov_y, or the tie_points of a result"
        )
    return source if source is None else IN_MEMORY if isinstance(source, TiePoints) else str(source)


def check_use(cfg: RegisterConfig) -> None:
    """Check that there are points when the estimate is to be made from them alone.

    Raises:
        ConfigError: `tie_points_use="replace"` without `tie_points`.
    """
    if cfg.tie_points_use == "replace" and cfg.tie_points is None:
        raise ConfigError("tie_points_use='replace' needs tie_points; give a file of them")


def take_points(source: str | Path | TiePoints, reference: Grid, moving: Grid, georef: Transform) -> Given:
    """Read tie points and fit their affine.

    Args:
        source: a file that `read_tie_points` knows, or points in pixels of both images.
        reference, moving: grids of the images.
        georef: reference pixels -> moving pixels by the georeferences.

    Raises:
        ReadError, ConfigError, GeoreferenceError: see `read_tie_points`.
        InputError: a bad row; fewer than three usable points, points on a line, or points that contradict the
            georeferences by more than the size of the image.
    """
    name = str(name_of(source))
    ties = source if isinstance(source, TiePoints) else read_tie_points(source, reference=reference, moving=moving)
    target = georef.inverse(ties.moving_xy)
    usable = ties.inlier & np.isfinite(ties.reference_xy).all(1) & np.isfinite(target).all(1)
    arguments = ties.reference_xy[usable], target[usable], ties.sigma_px[usable], ties.confidence[usable]
    points = GivenPoints(*arguments)
    fit = _checked_fit(points, reference, name)
    return Given(points, fit, _words(name, ties, usable, fit))


def _checked_fit(points: GivenPoints, reference: Grid, name: str) -> GivenFit:
    """The robust affine of the points; `InputError`: see `take_points`."""
    try:
        fit = fit_given(points)
    except EstimationError as error:
        raise InputError(f"{name}: {error}") from error
    reach, side = reach_px(fit.affine, reference.shape), max(reference.shape)
    if reference.is_georeferenced and reach > side:
        raise InputError(
            f"{name}: the points lie {reach:.0f} px from where the georeferences put them, more than the image's side "
            f"({side} px); check that they belong to these two images"
        )
    return fit


def reach_px(affine: AffineTransform, shape: tuple[int, int]) -> float:
    """Largest displacement of an image's corners by an affine; the image has (height, width)."""
    height, width = shape
    corners = np.array([[0.0, 0.0], [width - 1.0, 0.0], [0.0, height - 1.0], [width - 1.0, height - 1.0]])
    return float(np.hypot(*(affine(corners) - corners).T).max())


def _words(name: str, points: TiePoints, usable: BoolArray, fit: GivenFit) -> str:
    text = f"{int(usable.sum())} of {len(points)} tie points taken from {name}"
    switched_off = int((~points.inlier).sum())
    if switched_off:
        text += f" ({switched_off} are switched off)"
    agreeing = int((fit.factor > 0.25).sum())
    return f"{text}; {agreeing} of them agree on an affine"
