"""From findings to what users get: maps in their pixels, displacement, tie points, figures, verdict, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from somareg.config import SCENE_PX, RegisterConfig
from somareg.geometry import AffineTransform, compose
from somareg.geometry.lattice import on_lattice, pixel_centres
from somareg.io.displacement import coarser_grid
from somareg.io.source import Block
from somareg.quality import Demands, Measured, judge, load_calibration, measure
from somareg.register.findings import Findings, View
from somareg.register.ground import footprint_area
from somareg.register.images import Images
from somareg.register.save import convert, save
from somareg.report.previews import make_previews
from somareg.runtime.clock import Clock
from somareg.types import Displacement, Grid, Header, Previews, Raster, Result, TiePoints, Transform

NODE_PX = 16  # reference pixels between nodes of a displacement that would be too large with a value for each pixel
_POINTS = 2_000_000  # worked on together


def build_result(
    images: Images,
    findings: Findings,
    cfg: RegisterConfig,
    settings: Mapping[str, Any],
    clock: Clock,
    folder: Path | None = None,
) -> Result:
    """The result of a pair, however it was matched.

    Args:
        images: both.
        findings: in pixels of the whole images.
        cfg: settings.
        settings: what is recorded of the run; the frame (x, y, width, height) of a common extent joins it.
        clock: told when all is judged.
        folder: that the outputs will be written to, where it is known.
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
    previews, covered = _pictures(findings, compose(georef, findings.expected), transform, cfg)
    ties = _tie_points(findings, correction, georef)
    area = findings.reference.block
    covers = footprint_area(compose(georef, findings.expected), grid, images.moving.grid)
    smaller = min(float(whole.width * whole.height), covers)
    measured = Measured(
        affine=findings.affine,
        field=findings.field,
        expected=findings.expected,
        tie_points=ties,
        support=findings.support,
        overlap=min(1.0, covered * area.width * area.height / smaller),
        area=(float(area.x), float(area.y), float(area.width), float(area.height)),
        reference=grid,
    )
    quality = measure(measured, calibration)
    verdict = judge(findings.support, quality, calibration, Demands.of(cfg))
    if verdict.decision == "no-go":  # nothing is said of how good it is: neither an error nor a certainty
        quality, findings = quality.without_prediction(), replace(findings, certainty=None)
    displacement = _displacement(findings, correction, transform, grid)
    clock.lap("judge")
    return Result(
        transform=transform,
        correction=correction,
        affine=findings.affine,
        displacement=displacement,
        tie_points=ties,
        quality=quality,
        verdict=verdict,
        moving=_seen_share(images.moving.facts, findings.moving),
        reference=_framed(_seen_share(images.reference.facts, findings.reference), frame),
        settings=settings,
        notes=notes,
        timings=clock.laps,
        previews=previews,
        tiles=findings.tiles,
        folder=folder,
        saver=save,
        converter=convert,
    )


def _correction(findings: Findings) -> Transform:
    return compose(findings.affine, findings.field) if findings.field else findings.affine


def _transform(findings: Findings, georef: Transform) -> Transform:
    return compose(georef, _correction(findings))


def _pictures(findings: Findings, before: Transform, after: Transform, cfg: RegisterConfig) -> tuple[Previews, float]:
    """Pictures of what was looked at, and the share of it that both images show."""
    here, there = findings.reference, findings.moving
    back = there.to_whole.inverse
    before, after = (compose(back, one, here.to_whole) for one in (before, after))
    place = (float(here.block.x), float(here.block.y)), float(here.factor)
    modalities = cfg.moving_modality, cfg.reference_modality
    previews, covered = make_previews(here.raster, there.raster, before, after, modalities, place)
    return previews, float(covered.mean())


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


def _displacement(findings: Findings, correction: Transform, transform: Transform, grid: Grid) -> Displacement:
    """Displacement and certainty of every pixel or node; certainty is 0 where an image has no pixels."""
    step = max(findings.step, NODE_PX if max(grid.shape) > SCENE_PX else 1)
    nodes = coarser_grid(grid, step)
    height, width = nodes.shape
    array, certainty = np.empty((2, height, width), np.float32), np.zeros((height, width), np.float32)
    # A lattice pays where there are many more pixels than its nodes.
    to_moving = (
        transform if step >= NODE_PX else on_lattice(transform, (0.0, 0.0, float(grid.width), float(grid.height)))
    )
    here, there, known = findings.reference, findings.moving, findings.certainty
    rows = max(1, _POINTS // width)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        points = pixel_centres(0, top, width, count) * step + (step - 1) / 2
        array[:, top : top + count] = (correction(points) - points).T.reshape(2, count, width)
        if known is not None:
            seen = here.seen(points)
            seen[seen] = there.seen(to_moving(points[seen]))
            values = np.zeros(len(points))
            values[seen] = known(points[seen])
            certainty[top : top + count] = values.reshape(count, width)
    return Displacement(array, np.clip(certainty, 0.0, 1.0), nodes)


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
    """The same part in pixels that are counted from the corner of a frame."""
    block = view.block
    return replace(view, block=block._replace(x=block.x - frame.x, y=block.y - frame.y))


def _seen_share(image: Raster | Header, view: View) -> Raster | Header:
    return replace(image, valid_share=view.valid_share) if isinstance(image, Header) else image


def _framed(image: Raster | Header, frame: Block) -> Raster | Header:
    """The reference on the frame of the outputs."""
    grid = image.grid.part(*frame)
    if grid is image.grid:
        return image
    if isinstance(image, Raster):
        return _cut(image, frame)
    return replace(image, grid=grid, reader=partial(_read_cut, image.reader, frame))


def _read_cut(reader: Callable[[], Raster], frame: Block) -> Raster:
    return _cut(reader(), frame)


def _cut(whole: Raster, frame: Block) -> Raster:
    """A part of an image; it is no longer what it was made from."""
    rows, columns = slice(frame.y, frame.y + frame.height), slice(frame.x, frame.x + frame.width)
    cut: dict[str, Any] = {"data": whole.data[:, rows, columns], "mask": whole.mask[rows, columns]}
    for name in ("band_masks", "alpha"):
        values = getattr(whole, name)
        cut[name] = None if values is None else values[:, rows, columns]
    return replace(whole, grid=whole.grid.part(*frame), origin=None, **cut)
