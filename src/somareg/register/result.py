"""Build a `Result` from findings: maps in the users' pixels, displacement, tie points, figures, verdict, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from somareg.config import RegisterConfig
from somareg.geometry import AffineTransform, compose
from somareg.geometry.lattice import pixel_centres
from somareg.io.source import Block
from somareg.quality import Demands, Measured, judge, load_calibration, measure, worst_places
from somareg.register.dense import ErrorMap, displacement_of, error_map_of
from somareg.register.findings import Findings, View
from somareg.register.ground import footprint_area
from somareg.register.images import Images
from somareg.register.save import convert, save
from somareg.report.closeups import SIDE, Sight, make_closeups
from somareg.report.previews import make_previews
from somareg.report.show import show
from somareg.runtime.clock import Clock
from somareg.types import Closeup, Header, Later, Previews, Quality, Raster, Result, TiePoints, Transform

_KEPT_BYTES = 32_000_000  # most bytes of pixels that a result holds until its pictures are drawn
_APART = 0.75  # least distance of two close-ups, as a share of a picture's side


def build_result(
    images: Images,
    findings: Findings,
    cfg: RegisterConfig,
    settings: Mapping[str, Any],
    clock: Clock,
    folder: Path | None = None,
) -> Result:
    """Build the result of a pair, matched whole or in tiles.

    Args:
        images: both.
        findings: in pixels of the whole images.
        cfg: settings.
        settings: record of the run; the frame (x, y, width, height) of a common extent is added.
        clock: for the time of the judgement.
        folder: for the outputs, if known.
    """
    whole, calibration = images.reference.grid, load_calibration(findings.ran.engine)
    georef, frame, notes = images.georef, Block(0, 0, whole.width, whole.height), findings.notes
    if cfg.extent == "common":
        frame = _covered(findings, _transform(findings, georef))
        notes, settings = (*notes, _words(frame)), {**settings, "frame": list(frame)}
        corner = -float(frame.x), -float(frame.y)
        findings = findings.moved(corner, corner if images.is_placed else (0.0, 0.0))
        findings = replace(findings, reference=_from_corner(findings.reference, frame))
        if images.is_placed:
            georef = compose(georef, AffineTransform.from_parameters(shift=frame[:2]))
    grid = whole.part(*frame)
    correction, transform = _correction(findings), _transform(findings, georef)
    ties = _tie_points(findings, correction, georef)
    area = findings.reference.block
    covers = footprint_area(compose(georef, findings.expected), grid, images.moving.grid)
    smaller = min(float(whole.width * whole.height), covers)
    errors = error_map_of(findings, transform, calibration.local, grid)
    places = errors.places()
    measured = Measured(
        affine=findings.affine,
        field=findings.field,
        expected=findings.expected,
        tie_points=ties,
        support=findings.support,
        overlap=min(1.0, places.shown_share * area.width * area.height / smaller),
        area=(float(area.x), float(area.y), float(area.width), float(area.height)),
        reference=grid,
        places=places,
    )
    quality = measure(measured)
    verdict = judge(findings.support, quality, calibration, Demands.of(cfg))
    if verdict.decision == "no-go":  # a no-go claims no error, no certainty and no worst place
        quality, errors = quality.without_prediction(), errors.unknown()
    # Pictures are drawn on demand; large images are not kept until then, so theirs are drawn now.
    start = compose(georef, findings.expected)
    displacement = Later(partial(displacement_of, findings, correction, errors, grid))
    draw = partial(_pictures, findings, measured, quality, errors, (start, transform), cfg)
    previews = Later(partial(draw, has_closeups=verdict.decision != "no-go"))
    is_large = findings.reference.nbytes + findings.moving.nbytes > _KEPT_BYTES
    clock.lap("judge")
    return Result(
        transform=transform,
        correction=correction,
        affine=findings.affine,
        displacement=displacement.make() if is_large else displacement,
        tie_points=ties,
        quality=quality,
        verdict=verdict,
        moving=_seen_share(images.moving.facts, findings.moving),
        reference=_framed(_seen_share(images.reference.facts, findings.reference), frame),
        settings=settings,
        notes=notes,
        timings=clock.laps,
        previews=previews.make() if is_large else previews,
        tiles=findings.tiles,
        folder=folder,
        saver=save,
        converter=convert,
        shower=show,
    )


def _correction(findings: Findings) -> Transform:
    return compose(findings.affine, findings.field) if findings.field else findings.affine


def _transform(findings: Findings, georef: Transform) -> Transform:
    return compose(georef, _correction(findings))


def _pictures(
    findings: Findings,
    measured: Measured,
    quality: Quality,
    errors: ErrorMap,
    maps: tuple[Transform, Transform],
    cfg: RegisterConfig,
    *,
    has_closeups: bool,
) -> Previews:
    """Draw pictures of the common ground and close-ups of the places with the largest expected error.

    Args:
        findings, measured, quality, errors: of the pair.
        maps: reference pixels -> moving pixels without and with the estimate.
        cfg: modalities.
        has_closeups: whether to draw close-ups; a no-go has none.
    """
    here, there = findings.reference, findings.moving
    back = there.to_whole.inverse
    before, after = (compose(back, one, here.to_whole) for one in maps)
    place = (float(here.block.x), float(here.block.y)), float(here.factor)
    modalities = cfg.moving_modality, cfg.reference_modality
    previews = make_previews(here.raster, there.raster, before, after, modalities, place)
    if not has_closeups:
        return previews
    return replace(previews, closeups=_closeups(findings, measured, quality, errors, maps[1], cfg))


def _closeups(
    findings: Findings, measured: Measured, quality: Quality, errors: ErrorMap, after: Transform, cfg: RegisterConfig
) -> tuple[Closeup, ...]:
    """Draw close-ups of the places with the largest expected error."""
    here, there = findings.reference, findings.moving
    apart = _APART * SIDE * here.factor
    places = worst_places(quality.cells, measured.tie_points, errors.at, measured.area, measured.reference, apart)
    sight = Sight(
        reference=here.raster,
        moving=there.raster,
        to_moving=compose(there.to_whole.inverse, after, here.to_whole),
        to_reference=here.to_whole.inverse,
        modalities=(cfg.moving_modality, cfg.reference_modality),
    )
    return make_closeups(sight, places)


def _tie_points(findings: Findings, correction: Transform, georef: Transform) -> TiePoints:
    own = findings.matches
    residual = np.hypot(*(own.target - correction(own.points)).T)
    return TiePoints(
        reference_xy=own.points,
        moving_xy=georef(own.target),
        displacement=own.target - own.points,
        sigma_px=own.sigma_px,
        confidence=own.confidence,
        inlier=own.used & (residual <= own.near_px),
        residual_px=residual,
    )


def _covered(findings: Findings, transform: Transform) -> Block:
    """The part of the reference on which the aligned moving image has pixels."""
    block = findings.reference.block
    step = max(1, max(block.width, block.height) // 1024)
    columns, rows = (-(-side // step) for side in (block.width, block.height))
    points = pixel_centres(0, 0, columns, rows) * step + block[:2]
    frame = findings.moving.block
    away = transform(points) - frame[:2]
    inside = ((away > -0.5) & (away < np.array([frame.width, frame.height]) - 0.5)).all(axis=1)
    if not inside.any():
        return block
    x, y = (points[inside][:, axis].astype(int) for axis in (0, 1))
    right, bottom = min(x.max() + step, block.x + block.width), min(y.max() + step, block.y + block.height)
    return Block(int(x.min()), int(y.min()), int(right - x.min()), int(bottom - y.min()))


def _words(frame: Block) -> str:
    columns, rows = f"{frame.x} to {frame.x + frame.width - 1}", f"{frame.y} to {frame.y + frame.height - 1}"
    return f"outputs cover columns {columns} and rows {rows} of the reference; pixels are counted from there"


def _from_corner(view: View, frame: Block) -> View:
    """The part in pixels relative to the corner of a frame."""
    block = view.block
    return replace(view, block=block._replace(x=block.x - frame.x, y=block.y - frame.y))


def _seen_share(image: Raster | Header, view: View) -> Raster | Header:
    return replace(image, valid_share=view.valid_share) if isinstance(image, Header) else image


def _framed(image: Raster | Header, frame: Block) -> Raster | Header:
    """Cut the reference to the frame of the outputs."""
    grid = image.grid.part(*frame)
    if grid is image.grid:
        return image
    if isinstance(image, Raster):
        return _cut(image, frame)
    return replace(image, grid=grid, reader=partial(_read_cut, image.reader, frame))


def _read_cut(reader: Callable[[], Raster], frame: Block) -> Raster:
    return _cut(reader(), frame)


def _cut(whole: Raster, frame: Block) -> Raster:
    """Cut a part out of a raster, without its origin."""
    rows, columns = slice(frame.y, frame.y + frame.height), slice(frame.x, frame.x + frame.width)
    fields: dict[str, Any] = {"data": whole.data[:, rows, columns], "mask": whole.mask[rows, columns]}
    for name in ("band_masks", "alpha"):
        values = getattr(whole, name)
        fields[name] = None if values is None else values[:, rows, columns]
    return replace(whole, grid=whole.grid.part(*frame), origin=None, **fields)
