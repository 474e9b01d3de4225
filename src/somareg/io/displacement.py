"""`displacement.tif`: the estimate as a raster that any GIS reads and somareg can apply."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.errors import EstimationError, InputError, ReadError, UnsupportedError, guarded
from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.io.ground_control import read_control
from somareg.io.reading import READING_TAG, reading_of_tags, reading_tags
from somareg.io.source import Block, RasterSource, open_source
from somareg.io.text import parse_json
from somareg.io.verdicts import VERDICT_TAG, verdict_of_tags, verdict_tags
from somareg.io.writer import write_geotiff
from somareg.types import IDENTITY, Displacement, Estimate, Grid, Transform, Verdict

FORMAT = 1
"""Version of the file's tags; a reader refuses newer ones."""

FILE_NAME = "displacement.tif"

STEP_TAG = "SOMAREG_STEP"
"""Reference pixels per pixel of the file, 1 without the tag."""

BANDS = ("dx", "dy", "certainty", "sigma")
"""Bands of `displacement.tif`; files of earlier versions have no sigma."""

_UNITS = ("px", "px", "1", "px")
_MAX_NODES = 16_000_000
_ROUNDING_PX = 1e-4  # a residual below this is the rounding of float32, not a local displacement


def write_displacement(
    path: str | Path,
    displacement: Displacement,
    estimate: Estimate,
    affine_matrix: NDArray[np.float64] | None = None,
    tags: Mapping[str, str] | None = None,
    *,
    step: int = 1,
    overwrite: bool = False,
) -> Path:
    """Write a float32 COG (dx, dy, certainty, sigma) with all that is needed to apply it again.

    Args:
        path: output file.
        displacement: on the reference grid, pixels; or with `step` on `coarser_grid` of it, still reference pixels.
        estimate: its grids, how the moving image was read, and the verdict go into the tags.
        affine_matrix: (2, 3) the global affine of the correction, which continues it outside the grid.
        tags: more dataset-level metadata.
        step: reference pixels per pixel of the file.
        overwrite: replace an existing file.

    Raises:
        OutputError: as `write_geotiff`.
    """
    own = estimate_tags(estimate, affine_matrix, step)
    expectations = displacement.certainty[None], displacement.sigma[None]
    bands = np.concatenate([displacement.array, *expectations]).astype(np.float32, copy=False)
    return write_geotiff(
        path,
        bands,
        displacement.grid,
        nodata=math.nan,  # nodata marks unknown sigma, so that overviews average known values only
        descriptions=BANDS,
        units=_UNITS,
        tags={**(tags or {}), **own},
        band_tags=[{"units": unit} for unit in _UNITS],
        averaged_overviews=True,
        overwrite=overwrite,
    )


def estimate_tags(
    estimate: Estimate, affine_matrix: NDArray[np.float64] | None = None, step: int = 1
) -> dict[str, str]:
    """Tags from which `read_estimate` restores an estimate; see `write_displacement`."""
    tags = {
        "SOMAREG_FORMAT": str(FORMAT),
        "SOMAREG_CONVENTION": "moving_xy = reference_xy + (dx, dy); pixels; x right, y down; integer = pixel centre",
        "SOMAREG_REFERENCE_GRID": json.dumps(asdict(estimate.reference)),
        "SOMAREG_MOVING_GRID": json.dumps(asdict(estimate.moving)),
    }
    tags |= reading_tags(estimate) | verdict_tags(estimate.verdict)
    if affine_matrix is not None:
        tags["SOMAREG_AFFINE"] = json.dumps(np.asarray(affine_matrix, float).tolist())
    if step > 1:
        tags[STEP_TAG] = str(step)
    return tags


def coarser_grid(grid: Grid, step: int) -> Grid:
    """A grid whose pixels are `step` x `step` pixels of another; the last may reach beyond its right and lower edge."""
    if step == 1:
        return grid
    a, b, c, d, e, f = grid.transform
    transform = grid.transform if grid.transform == IDENTITY else (a * step, b * step, c, d * step, e * step, f)
    control = grid.control.scaled((1 / step, 1 / step)) if grid.control else None
    width, height = (-(-side // step) for side in (grid.width, grid.height))
    return replace(grid, width=width, height=height, transform=transform, control=control)


@guarded
def read_estimate(path: str | Path) -> Estimate:
    """Read an estimate back.

    Inside the reference grid the correction is the field of the file. Outside it is the affine of the file plus the
    local displacement of the nearest edge. Fields of more than 16 million nodes are thinned evenly (the affine part
    stays exact), so memory is bounded.

    Args:
        path: a `displacement.tif`, or the output folder or `report.json` beside it; or a shift raster that somareg
            exported (another program's: `somareg.io.shifts.read_shifts`).

    Raises:
        ReadError: missing or damaged.
        InputError: not a displacement file of somareg, or its tags or values are malformed.
        UnsupportedError: written by a newer format.
    """
    file = find_displacement(path)
    with open_source(file, role="displacement", tell=False) as source:
        tags = source.tags
        check_format(source, file)
        reference = _grid(tags, "SOMAREG_REFERENCE_GRID", file)
        moving = _grid(tags, "SOMAREG_MOVING_GRID", file)
        step = node_step(tags, file)
        if coarser_grid(reference, step).shape != source.grid.shape:
            raise InputError(f"{file} is {source.grid.width} x {source.grid.height} px but its tags say another size")
        affine = _affine(tags, file)
        correction = read_correction(source, affine, step)
        try:
            reading, sha256 = reading_of_tags(tags)
        except ValueError as error:
            raise InputError(
                f"{file} has a malformed tag {READING_TAG}; write it anew with somareg register"
            ) from error
        verdict = _verdict(tags, file)
    return Estimate(correction, reference, moving, reading, sha256, verdict)


@guarded
def read_verdict(path: str | Path) -> Verdict | None:
    """Read the verdict on an estimate without its displacements; None when it was not judged.

    Args:
        path: as for `read_estimate`.

    Raises:
        ReadError, InputError, UnsupportedError: as `read_estimate`.
    """
    file = find_displacement(path)
    with open_source(file, role="displacement", tell=False) as source:
        check_format(source, file)
        return _verdict(source.tags, file)


def _verdict(tags: Mapping[str, str], file: Path) -> Verdict | None:
    try:
        return verdict_of_tags(tags)
    except ValueError as error:
        raise InputError(
            f"{file} has a malformed tag {VERDICT_TAG} or figures that belong to none; write it anew with somareg "
            "register"
        ) from error


def node_step(tags: Mapping[str, str], file: Path) -> int:
    """Reference pixels per pixel of a displacement file: 1, or more for a large scene.

    Raises:
        InputError: malformed.
    """
    text = tags.get(STEP_TAG, "1")
    if not text.isdigit() or not 1 <= int(text) <= 4096:
        raise InputError(f"{file} has a malformed tag {STEP_TAG}; write it anew with somareg register")
    return int(text)


def read_correction(source: RasterSource, affine: AffineTransform, step: int = 1) -> Transform:
    """Read the correction from the first two bands; `affine` continues it outside the grid.

    Args:
        source: open file.
        affine: of the correction.
        step: reference pixels per pixel of the file; displacements are those at the pixels' centres.

    Raises:
        InputError: a displacement is not finite.
    """
    values, thinned = _read_nodes(source)
    if not np.isfinite(values).all():
        raise InputError(f"{source.name} holds displacements that are not finite; write it anew")
    return _correction(values, thinned * step, (step - 1) / 2, affine)


def find_displacement(path: str | Path) -> Path:
    """Find the displacement file for the path of a file, folder or `report.json`.

    Raises:
        ReadError: there is none.
    """
    file = path = Path(path)
    if path.is_dir():
        file = path / FILE_NAME
    elif path.suffix.lower() == ".json":
        file = path.with_name(FILE_NAME)
    if not file.is_file():
        missing = "" if file == path else f" (there is no {FILE_NAME})"
        raise ReadError(
            f"no estimate at {path}{missing}; give a displacement.tif, or the folder that somareg register wrote"
        )
    return file


def check_format(source: RasterSource, file: Path) -> None:
    """Check that an open file is one of somareg's: dx, dy, certainty and sigma; one of an earlier version has
    no sigma, a shift raster neither certainty nor sigma.

    Raises:
        InputError: it is not.
        UnsupportedError: written by a newer format.
    """
    version = source.tags.get("SOMAREG_FORMAT")
    if version is None or source.count not in (2, 3, 4) or source.dtype != np.float32:
        raise InputError(f"{file} is not a displacement file of somareg; give the displacement.tif of an output folder")
    if not version.isdigit() or int(version) > FORMAT:
        raise UnsupportedError(f"{file} has format {version}, this somareg reads up to {FORMAT}; update somareg")


def _grid(tags: Mapping[str, str], key: str, file: Path) -> Grid:
    try:
        values: dict[str, Any] = parse_json(tags[key])
        a, b, c, d, e, f = (float(v) for v in values["transform"])
        crs = None if values["crs"] is None else str(values["crs"])
        control = read_control(values.get("control"))
        flags = {name: bool(values.get(name, False)) for name in ("unnamed_crs", "rpcs")}
        grid = Grid(int(values["width"]), int(values["height"]), (a, b, c, d, e, f), crs, control, **flags)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{file} has a malformed tag {key}; write it anew with somareg register") from error
    if min(grid.shape) < 1 or not np.isfinite(grid.transform).all():
        raise InputError(f"{file} has a malformed tag {key} (an impossible grid); write it anew with somareg register")
    return grid


def _affine(tags: Mapping[str, str], file: Path) -> AffineTransform:
    if "SOMAREG_AFFINE" not in tags:
        return AffineTransform.identity()
    try:
        return AffineTransform(np.asarray(parse_json(tags["SOMAREG_AFFINE"]), np.float64))
    except (TypeError, ValueError, OverflowError, EstimationError) as error:
        raise InputError(f"{file} has a malformed tag SOMAREG_AFFINE; write it anew with somareg register") from error


def _read_nodes(source: RasterSource) -> tuple[NDArray[np.float32], int]:
    """(2, h, w) displacements at every `step`-th pixel."""
    width, height = source.grid.width, source.grid.height
    step = 1
    while (width // step + 1) * (height // step + 1) > _MAX_NODES:
        step += 1
    if step == 1:
        data, valid = source.read()
        return np.where(valid, data, np.nan)[:2], 1
    strips = []
    rows = max(1, 512 // step) * step
    for top in range(0, height, rows):
        data, valid = source.read(Block(0, top, width, min(rows, height - top)))
        strips.append(np.where(valid, data, np.nan)[:2, ::step, ::step])
    return np.concatenate(strips, axis=1), step


def _correction(values: NDArray[np.float32], step: int, origin: float, affine: AffineTransform) -> Transform:
    """`A @ D` with D(x) = A^-1(x + displacement(x)): beyond the edge A continues and D stays constant."""
    back = affine.inverse
    residual = np.empty(values.shape, np.float32)
    columns = origin + np.arange(values.shape[2]) * float(step)
    for row in range(values.shape[1]):
        points = np.stack([columns, np.full(columns.size, origin + row * float(step))], axis=-1)
        residual[:, row] = (back(points + values[:, row].T) - points).T
    if float(np.abs(residual).max()) < _ROUNDING_PX:
        return affine
    nodes: NDArray[Any] = residual  # float32 as in the file: half the memory of float64
    return compose(affine, FieldTransform(nodes, (origin, origin), (step, step)))
