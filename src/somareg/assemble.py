"""The engine's findings in the users' pixels: transform, dense field, tie points, figures, verdict, pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from somareg.config import RegisterConfig
from somareg.geometry import FieldTransform, compose
from somareg.geometry.lattice import on_lattice, pixel_centres
from somareg.io import metres_per_pixel
from somareg.matching.engine import Alignment
from somareg.outputs import convert, save
from somareg.preprocess.prepare import Prepared
from somareg.quality import Engine, Measured, judge, load_calibration, measure
from somareg.report.previews import make_previews
from somareg.types import Displacement, FloatArray, Raster, Result, TiePoints, Transform


def build_result(
    cfg: RegisterConfig,
    reference: Raster,
    moving: Raster,
    georef: Transform,
    prepared: Prepared,
    alignment: Alignment,
    engine: Engine,
) -> Result:
    """The engine's findings in the users' pixels, with figures, verdict (calibrated for the engine) and pictures."""
    affine = prepared.affine_of(alignment.affine)
    expected = prepared.affine_of(prepared.starts[0])
    field = None
    if alignment.flow is not None and alignment.flow.field.array.any():
        field = prepared.field_of(alignment.flow.field)
    correction: Transform = compose(affine, field) if field else affine
    transform = compose(georef, correction)
    ties = _tie_points(alignment, prepared, correction, georef)
    modalities = cfg.moving_modality, cfg.reference_modality
    previews, covered = make_previews(reference, moving, compose(georef, expected), transform, modalities)
    measured = Measured(
        alignment=alignment,
        factor=prepared.factor,
        affine=affine,
        field=field,
        expected=expected,
        tie_points=ties,
        covered=covered,
        metres_per_pixel=metres_per_pixel(reference.grid),
        shape=reference.grid.shape,
    )
    calibration = load_calibration(engine)
    quality = measure(measured, calibration)
    return Result(
        transform=transform,
        correction=correction,
        affine=affine,
        displacement=_dense(correction, alignment, prepared, transform, reference, moving),
        tie_points=ties,
        quality=quality,
        verdict=judge(alignment, quality, calibration),
        moving=moving,
        reference=reference,
        settings=cfg.model_dump(mode="json"),
        notes=(*moving.notes, *reference.notes, *prepared.notes),
        timings={},
        previews=previews,
        saver=save,
        converter=convert,
    )


def _tie_points(alignment: Alignment, prepared: Prepared, correction: Transform, georef: Transform) -> TiePoints:
    """Each window's own match, in the users' pixels; inliers lie within 2 feature cells of the estimate."""
    own = alignment.ties
    if own is None:
        none = np.zeros((0, 2))
        return TiePoints(none, none, none, none[:, 0], none[:, 0], np.zeros(0, bool), none[:, 0])
    here = prepared.reference_pixels(own.points.double().numpy())
    away = prepared.factor * own.displacement.double().numpy()
    target = correction(here + away)
    residual = np.hypot(*(target - correction(here)).T)
    return TiePoints(
        reference_xy=here,
        moving_xy=georef(target),
        displacement=target - here,
        sigma_px=prepared.factor * np.sqrt(own.variance.double().numpy() + 0.1),
        confidence=np.asarray(1.0 - np.exp(-0.5 * np.square(own.evidence.double().numpy() / 2.0))),
        inlier=residual <= 4.0 * prepared.factor,
        residual_px=residual,
    )


def _dense(
    correction: Transform,
    alignment: Alignment,
    prepared: Prepared,
    transform: Transform,
    reference: Raster,
    moving: Raster,
) -> Displacement:
    """Displacement and certainty at every reference pixel, in strips."""
    height, width = reference.grid.shape
    array = np.empty((2, height, width), np.float32)
    certainty = np.zeros((height, width), np.float32)
    where_known = _certainty_field(alignment, prepared)
    to_moving = on_lattice(transform, (0.0, 0.0, width - 1.0, height - 1.0))
    rows = max(1, 2_000_000 // width)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        points = pixel_centres(0, top, width, count)
        array[:, top : top + count] = (correction(points) - points).T.reshape(2, count, width)
        if where_known is not None:
            known = where_known.displacement(points)[:, 0] * _seen(to_moving(points), moving)
            certainty[top : top + count] = known.reshape(count, width)
    certainty *= reference.mask
    return Displacement(array, np.clip(certainty, 0.0, 1.0), reference.grid)


def _certainty_field(alignment: Alignment, prepared: Prepared) -> FieldTransform | None:
    """Certainty as the x component of a field on reference pixels; it shares the field's bilinear lattice."""
    flow = alignment.flow
    if flow is None:
        return None
    both = np.stack([flow.certainty, flow.certainty]) / prepared.factor
    return prepared.field_of(FieldTransform(both, flow.field.origin, flow.field.step))


def _seen(points: FloatArray, moving: Raster) -> NDArray[np.bool_]:
    """Whether each point (N, 2) falls on a valid pixel of the moving image."""
    height, width = moving.grid.shape
    x, y = np.rint(points.T)
    inside = np.asarray((x >= 0) & (x < width) & (y >= 0) & (y < height))  # never true of NaN
    seen = np.zeros(len(points), bool)
    seen[inside] = moving.mask[y[inside].astype(np.intp), x[inside].astype(np.intp)]
    return seen
