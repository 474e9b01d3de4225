"""An estimate from tie points alone: exact, robust, local where the points ask for it, refused where they cannot be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import somareg
from somareg.errors import InputError
from somareg.io.georef import georeference
from somareg.types import TiePoints
from tests.synthetic import pixel_points, smooth_warp
from tests.t65_register.conftest import REFERENCE, UTM, Files, moving_grid, register, write_pair

SHIFT = 6.3, -4.2


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_pair(tmp_path_factory.mktemp("pair"), moving_grid(UTM, 10.0), shift=SHIFT)


def exact_points(field: bool, noise: float = 0.0) -> tuple[TiePoints, NDArray[np.float64]]:
    """Points on a grid that tell a shift or a smooth warp, some wrong; and the displacement in every pixel."""
    step = np.arange(6.0, 190.0, 12.0)
    here = np.stack([a.ravel() for a in np.meshgrid(step, step)], axis=-1)
    bend = smooth_warp(192, 1.5)[0] if field else lambda p: p
    target = bend(here) + SHIFT + np.random.default_rng(0).normal(0, noise, here.shape)
    target[::17] += (25.0, -31.0)
    away = georeference(REFERENCE, moving_grid(UTM, 10.0), ("a", "b"))(target)
    nothing = np.full(len(here), np.nan)
    ties = TiePoints(here, away, target - here, nothing, nothing, np.ones(len(here), bool), nothing)
    every = pixel_points(REFERENCE.shape)
    return ties, (bend(every) + SHIFT - every).T.reshape(2, *REFERENCE.shape)


@pytest.mark.parametrize("field", [False, True])
@pytest.mark.parametrize("suffix", [".csv", ".gpkg", ".points"])
def test_tie_points_are_an_estimate(files: Files, tmp_path: Path, suffix: str, field: bool) -> None:
    ties, due = exact_points(field)
    file = somareg.write_tie_points(tmp_path / f"ties{suffix}", ties, reference=files.reference, moving=files.moving)
    estimate = somareg.estimate_from_points(file, reference=files.reference, moving=files.moving)
    points = pixel_points(REFERENCE.shape)
    found = (estimate.correction(points) - points).T.reshape(2, *REFERENCE.shape)
    inner = (slice(None), slice(8, -8), slice(8, -8))
    error = np.sqrt(((found - due)[inner] ** 2).sum(0).mean())
    assert error < (0.1 if field else 0.01)
    assert estimate.correction.is_affine != field


def test_noise_alone_makes_no_local_displacement() -> None:
    ties, _ = exact_points(field=False, noise=0.5)
    assert somareg.estimate_from_points(ties, reference=REFERENCE, moving=moving_grid(UTM, 10.0)).correction.is_affine
    bent, _ = exact_points(field=True)
    estimate = somareg.estimate_from_points(bent, reference=REFERENCE, moving=moving_grid(UTM, 10.0), local=False)
    assert estimate.correction.is_affine


def test_points_of_a_registration_lead_back_to_it(files: Files, tmp_path: Path) -> None:
    out = register(files.moving, files.reference).save(tmp_path / "out")
    again = somareg.estimate_from_points(
        out / "tie_points.geojson", reference=files.reference, moving=files.moving
    ).correction
    points = pixel_points(REFERENCE.shape)
    assert np.sqrt(((again(points) - points - SHIFT) ** 2).sum(1).mean()) < 1.0


def test_points_of_other_images_are_refused() -> None:
    ties, _ = exact_points(field=False)
    side = max(REFERENCE.shape)
    far = dataclasses.replace(ties, reference_xy=ties.reference_xy + np.array([3.0 * side, 0.0]))
    with pytest.raises(InputError, match=r"the points lie \d+ px from where the georeferences put them"):
        somareg.estimate_from_points(far, reference=REFERENCE, moving=moving_grid(UTM, 10.0))


def test_too_few_points_are_refused() -> None:
    ties, _ = exact_points(field=False)
    few = TiePoints(*(getattr(ties, name)[:2] for name in TiePoints.__dataclass_fields__))
    with pytest.raises(InputError, match="tie points in memory: 2 tie points determine no affine"):
        somareg.estimate_from_points(few, reference=REFERENCE, moving=REFERENCE)
