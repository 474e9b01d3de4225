"""A realistic fake `Result`: blocky fields with roads, a speckled SAR view of them, a smooth known displacement."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from somareg.geometry import AffineTransform, FieldTransform
from somareg.report import build_record, render_report
from somareg.types import (
    Cell,
    Closeup,
    Decision,
    Displacement,
    Grid,
    Place,
    Previews,
    Quality,
    Raster,
    Result,
    TiePoints,
    Verdict,
)
from tests.figures import on_squares

SIZE = (220, 300)
UTM33 = (
    'PROJCS["WGS 84 / UTM zone 33N",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563,'
    'AUTHORITY["EPSG","7030"]],AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433],'
    'AUTHORITY["EPSG","4326"]],PROJECTION["Transverse_Mercator"],UNIT["metre",1],AUTHORITY["EPSG","32633"]]'
)
REASONS: dict[Decision, tuple[str, ...]] = {
    "go": ("87 of 104 tie points agree within 0.62 px", "both directions agree within 0.31 px"),
    "review": ("only 34 % of the overlap holds an agreeing point",),
    "no-go": ("no common structure found: the correlation peak is no higher than its background",),
}
PREDICTED: dict[Decision, float] = {"go": 0.4567, "review": 1.789, "no-go": 9.87}
PROBABILITY: dict[Decision, float] = {"go": 0.978, "review": 0.712, "no-go": 0.031}


def make_ground(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8: fields of different colours, two roads, a lake."""
    h, w = shape
    rows, columns = np.mgrid[:h, :w]
    field = (rows // 37 * 7 + (columns + rows // 3) // 45 * 3) % 11
    colours = rng.integers(60, 190, (11, 3))
    image = colours[field].astype(float)
    image[np.abs(rows - 0.6 * columns - 20) < 2] = 215
    image[np.abs(columns - 0.7 * w) < 2] = 205
    image[np.hypot(rows - 0.7 * h, columns - 0.25 * w) < 0.14 * h] = (28, 48, 70)
    return np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


def make_cells(predicted: float) -> tuple[Cell, ...]:
    """6 x 6 cells over the picture, worse to the lower right; the last four were not seen."""
    h, w = SIZE
    cells = []
    for number in range(36):
        row, column = divmod(number, 6)
        error = float("nan") if number > 31 else predicted * (0.8 + 0.05 * (row + column))
        x, y = (column + 0.5) * w / 6, (row + 0.5) * h / 6
        cells.append(Cell(column, row, x, y, 1.0 - (number > 31), error, 10 * error))
    return tuple(cells)


def make_closeups(predicted: float, optical: np.ndarray) -> tuple[Closeup, ...]:
    """Two cells, and a tie point where nothing is known."""
    picture = optical[:96, :96].copy()
    picture[40:44] = (255, 61, 139)
    places = (
        Place(250.0, 190.0, "the south-east corner", 1.3 * predicted),
        Place(150.0, 30.0, "the north side", float("nan"), 1.92),
        Place(20.0, 110.0, "the west side", predicted, 1.41),
    )
    return tuple(Closeup(place, picture, 1.0) for place in places)


def make_result(decision: Decision = "go", *, georeferenced: bool = True, points: int = 104, **changes: Any) -> Result:
    """A result with every part filled; `changes` replace fields of `Result`."""
    rng = np.random.default_rng(7)
    h, w = SIZE
    grid = Grid(w, h, (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0), UTM33) if georeferenced else Grid(w, h)
    optical = make_ground(SIZE, rng)
    affine = AffineTransform.from_parameters(
        rotation_deg=0.4, scale=1.004, shift=(4.2, -2.1), centre=((w - 1) / 2, (h - 1) / 2)
    )
    rows, columns = np.mgrid[:h, :w]
    local = np.stack([1.3 * np.sin(rows / 41), 0.9 * np.cos(columns / 53)])
    correction = affine @ FieldTransform(local)
    xy = np.column_stack([columns.ravel(), rows.ravel()]).astype(float)
    array = (correction(xy) - xy).T.reshape(2, h, w).astype(np.float32)
    certainty = np.clip(1.1 - np.hypot(rows / h - 0.4, columns / w - 0.4), 0, 1).astype(np.float32)
    sigma = np.where(certainty > 0.3, PREDICTED[decision] * (1.6 - certainty), np.nan).astype(np.float32)
    certainty = np.where(np.isfinite(sigma), certainty, 0).astype(np.float32)
    tie = make_points(correction, points, rng)
    residual = tie.residual_px[tie.inlier]
    sar = np.clip(optical[..., 1] * rng.gamma(4, 0.25, SIZE), 0, 255).astype(np.uint8)
    before = np.roll(sar, (-2, 4), (0, 1))
    quality = Quality(
        n_points=points,
        inlier_ratio=0.837,
        coverage=0.713,
        residual_median_px=float(np.median(residual)) if len(residual) else float("nan"),
        peak_zscore=17.31,
        peak_sharpness=0.842,
        hit_ratio=0.87,
        forward_backward_px=0.313,
        split_half_px=0.276,
        similarity_before=0.1412,
        similarity_after=0.2291,
        overlap=0.953,
        folding=0.0,
        shift_before_px=4.831,
        rotation_deg=0.4,
        scale=1.004,
        shear_deg=0.0,
        shift_px=(4.2, -2.1),
        local_rms_px=1.118,
        predicted_rmse_px=PREDICTED[decision],
        predicted_ce90_px=1.52 * PREDICTED[decision],
        bias_px=(0.03, -0.08),
        sigma_px=(0.41, 0.37),
        unseen_share=0.214,
        worst_px=1.3 * PREDICTED[decision],
        worst_place="At worst, the south-east corner is off by about 3 px (30 m); 4 of 36 cells were not seen.",
        cells=make_cells(PREDICTED[decision]),
    )
    if georeferenced:
        quality = on_squares(quality, 10.0)
    if decision == "no-go":
        quality, certainty, sigma = quality.without_prediction(), certainty * 0, sigma * np.nan
    parts: dict[str, Any] = {
        "transform": correction,
        "correction": correction,
        "affine": affine,
        "displacement": Displacement(array, certainty, sigma, grid),
        "tie_points": tie,
        "quality": quality,
        "verdict": Verdict(
            decision,
            REASONS[decision],
            PROBABILITY[decision],
            quality.predicted_rmse_px,
            quality.metres.predicted_rmse_m if quality.metres else math.nan,
            quality.worst_place,
        ),
        "moving": Raster(
            sar[None], np.ones(SIZE, bool), grid, "s1_vh.tif", Path("pairs/s1_vh.tif"), 0.0, ("VH",), sha256="ab" * 32
        ),
        "reference": Raster(
            np.moveaxis(optical, 2, 0),
            rows < 200,
            grid,
            "s2_rgb.tif",
            Path("pairs/s2_rgb.tif"),
            None,
            ("B4", "B3", "B2"),
            sha256="cd" * 32,
        ),
        "settings": {"model": "orientation", "preset": "base", "search_radius_px": None, "seed": 0, "local": True},
        "notes": ("SAR scale: dB, because values are negative", "matched on band 1 (VH) and bands 1-3"),
        "timings": {"read": 0.12, "match": 0.81, "warp": 0.07},
        "previews": Previews(
            optical,
            before,
            sar,
            1.0,
            closeups=make_closeups(PREDICTED[decision], optical) if decision != "no-go" else (),
        ),
    }
    return Result(**(parts | changes))


def make_points(correction: Any, count: int, rng: np.random.Generator) -> TiePoints:
    """Points on a jittered lattice; every seventh is a gross error."""
    h, w = SIZE
    reference = rng.uniform((6, 6), (w - 6, h - 6), (count, 2))
    inlier = np.arange(count) % 7 != 3
    noise = rng.normal(0, 0.45, (count, 2)) + np.where(inlier, 0, 1)[:, None] * rng.normal(0, 4, (count, 2))
    moving = correction(reference) + noise
    return TiePoints(
        reference_xy=reference,
        moving_xy=moving,
        displacement=moving - reference,
        sigma_px=rng.uniform(0.3, 0.7, count),
        confidence=rng.uniform(0.2, 1, count),
        inlier=inlier,
        residual_px=np.hypot(*noise.T),
    )


@pytest.fixture
def result() -> Result:
    return make_result()


@pytest.fixture
def build() -> Callable[..., Result]:
    return make_result


@pytest.fixture(scope="session")
def rendered() -> Callable[..., tuple[Result, str]]:
    """(decision, georeferenced) -> result and page, each rendered once: figures take a second."""

    @cache
    def render(decision: Decision = "go", georeferenced: bool = True) -> tuple[Result, str]:
        result = make_result(decision, georeferenced=georeferenced)
        return result, render_report(result, build_record(result, {}))

    return render


@pytest.fixture
def outputs(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "outputs"
    folder.mkdir()
    for name in ("aligned.tif", "displacement.tif", "tie_points.geojson"):
        (folder / name).write_bytes(name.encode() * 100)
    return {path.name: path for path in folder.iterdir()}
