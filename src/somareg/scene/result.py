"""From the model of a scene to what users see: transforms, tie points, figures, verdict, pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.geometry.lattice import pixel_centres
from somareg.io import metres_per_pixel
from somareg.io.displacement import coarser_grid
from somareg.quality.calibration import Calibration
from somareg.report.previews import make_previews
from somareg.scene.inputs import ScenePair
from somareg.scene.judge import count_votes, judge_scene, measure_scene
from somareg.scene.model import SceneModel, Ties, field_on_nodes
from somareg.scene.overview import GlobalMatch, Overview
from somareg.scene.tile import TileResult
from somareg.types import (
    BoolArray,
    Displacement,
    Estimate,
    FloatArray,
    Grid,
    Modality,
    Quality,
    Result,
    TiePoints,
    Transform,
    Verdict,
)

INLIER_PX = 4.0
FLOOR_PX2 = 0.1  # variance that no window is free of


@dataclass(frozen=True, eq=False)
class SceneResult:
    """What `register_scene` returns; the files are written already.

    Attributes:
        folder: of the outputs.
        transform, correction, affine: as in `Result`.
        displacement: at nodes, see docs/scenes.md; its grid is `coarser_grid` of the reference's.
        tie_points: of all tiles.
        quality, verdict: from the evidence of the tiles.
        tiles: what each tile said.
        reference, moving: grids.
        settings, notes, timings: as in `Result`.
    """

    folder: Path
    transform: Transform
    correction: Transform
    affine: Transform
    displacement: Displacement
    tie_points: TiePoints
    quality: Quality
    verdict: Verdict
    tiles: tuple[TileResult, ...]
    reference: Grid
    moving: Grid
    settings: Mapping[str, Any]
    notes: tuple[str, ...]
    timings: Mapping[str, float]

    @property
    def estimate(self) -> Estimate:
        """The part that `warp` applies."""
        return Estimate(self.correction, self.reference, self.moving)

    @property
    def predicted_rmse_px(self) -> float:
        """Expected error of the alignment, reference pixels: measured on tiles that the model had not seen."""
        return self.quality.predicted_rmse_px


@dataclass(frozen=True, eq=False)
class Found:
    """Everything that was measured about a scene.

    Attributes:
        pair: the images.
        overviews: of reference and moving.
        start: the global affine.
        tiles, ties: of all tiles.
        model: None when there is none, and then why.
        failure: "" with a model.
    """

    pair: ScenePair
    overviews: tuple[Overview, Overview]
    start: GlobalMatch
    tiles: Sequence[TileResult]
    ties: Ties
    model: SceneModel | None
    failure: str = ""


def assemble_scene(
    found: Found,
    step: int,
    calibration: Calibration,
    modalities: tuple[Modality, Modality],
    told: tuple[Mapping[str, Any], tuple[str, ...]],
) -> Result:
    """The result of a scene, its displacement at nodes.

    Args:
        found: what was measured.
        step: reference pixels per node.
        calibration: of the engine.
        modalities: of moving and reference.
        told: settings and notes.
    """
    pair, model = found.pair, found.model
    grid, shape = pair.reference.header.grid, pair.reference.header.grid.shape
    affine, correction, field, certainty = _maps(found, step)
    transform = compose(pair.georef, correction)
    before = compose(pair.georef, found.start.expected)
    views = tuple(view.raster for view in found.overviews)
    there, back = found.overviews[0].to_full, found.overviews[1].to_full.inverse
    previews, covered = make_previews(
        views[0], views[1], compose(back, before, there), compose(back, transform, there), modalities
    )
    previews = dataclasses.replace(previews, step=previews.step * float(there.matrix[0, 0]))
    ties = _tie_points(found, correction, pair.georef)
    votes = count_votes(found.tiles, model, calibration)
    maps = affine, field, found.start.expected
    scene = shape, float(covered.mean()), metres_per_pixel(grid)
    quality = measure_scene(found.tiles, votes, model, ties, maps, scene, calibration)
    return Result(
        transform=transform,
        correction=correction,
        affine=affine,
        displacement=_displacement(found, correction, transform, field, certainty, step),
        tie_points=ties,
        quality=quality,
        verdict=judge_scene(votes, quality, calibration, found.failure),
        moving=pair.moving.header,
        reference=pair.reference.header,
        settings=told[0],
        notes=told[1],
        timings={},
        previews=previews,
    )


def _maps(found: Found, step: int) -> tuple[AffineTransform, Transform, FieldTransform, NDArray[np.float64]]:
    """Affine, correction, field at nodes, certainty there; the global affine alone where there is no model."""
    shape = found.pair.reference.header.grid.shape
    if found.model is None:
        rows, columns = (-(-n // step) for n in shape)
        origin = (step - 1) / 2
        nothing = FieldTransform(np.zeros((2, rows, columns)), (origin, origin), (float(step), float(step)))
        return found.start.affine, found.start.affine, nothing, np.zeros((rows, columns))
    affine = found.start.affine.after(found.model.residual)
    field, certainty = field_on_nodes(found.model, shape, step)
    return affine, compose(affine, field) if field.array.any() else affine, field, certainty


def _tie_points(found: Found, correction: Transform, georef: Transform) -> TiePoints:
    """Each window's own match, in the users' pixels."""
    ties = found.ties
    target = found.start.affine(ties.points + ties.beyond)
    residual = np.hypot(*(target - correction(ties.points)).T)
    sure = np.where(ties.precision > 0, ties.weight / np.maximum(ties.precision, 1e-12), 0.0)
    return TiePoints(
        reference_xy=ties.points,
        moving_xy=georef(target),
        displacement=target - ties.points,
        sigma_px=np.sqrt(1.0 / np.maximum(ties.precision, 1e-3) + FLOOR_PX2),
        confidence=np.clip(sure * (0.5 + 0.5 * ties.hit), 0.0, 1.0),
        inlier=(residual <= INLIER_PX) & (ties.weight > 0),
        residual_px=residual,
    )


def _displacement(
    found: Found,
    correction: Transform,
    transform: Transform,
    field: FieldTransform,
    certainty: NDArray[np.float64],
    step: int,
) -> Displacement:
    """`correction(x) - x` at the nodes; certainty is 0 where an image has no pixels."""
    _, rows, columns = field.array.shape
    nodes = pixel_centres(0, 0, columns, rows) * step + field.origin
    array = (correction(nodes) - nodes).T.reshape(2, rows, columns).astype(np.float32)
    seen = np.ones(len(nodes), bool)
    for overview, points in zip(found.overviews, (nodes, transform(nodes)), strict=True):
        seen &= _seen(overview.to_full.inverse(points), overview.raster.mask)
    known = np.where(seen.reshape(rows, columns), certainty, 0.0).astype(np.float32)
    return Displacement(array, known, coarser_grid(found.pair.reference.header.grid, step))


def _seen(points: FloatArray, mask: BoolArray) -> BoolArray:
    """Whether each point (N, 2) falls on a valid pixel; the rim beyond the last whole pixel counts as that pixel."""
    height, width = mask.shape
    near = np.isfinite(points).all(1)
    near &= (points > -1.5).all(1) & (points[:, 0] < width + 0.5) & (points[:, 1] < height + 0.5)
    seen = np.zeros(len(points), bool)
    column, row = np.rint(points[near]).astype(np.int64).T
    seen[near] = mask[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    return seen
