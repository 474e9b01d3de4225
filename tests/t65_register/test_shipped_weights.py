"""The weights that really ship, on the real pair inside the package: small, quick, offline, and worth their verdict."""

from __future__ import annotations

import socket
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import somareg
from somareg.cli.sample import sample_pair
from somareg.geometry import AffineTransform
from somareg.geometry.lattice import pixel_centres
from somareg.io import read_raster
from somareg.lab.evaluate.warp import SmoothWarp
from somareg.quality import load_calibration
from somareg.soma.weights import DEFAULT_WEIGHTS, embedded, load_network, read_card, store
from somareg.types import Result

SHIPPED = embedded().get(DEFAULT_WEIGHTS)
pytestmark = pytest.mark.skipif(SHIPPED is None, reason="no weights ship yet")
PRESETS = ("fast", "base", "precise")
SIDE = 320

Array = NDArray[Any]


@pytest.fixture(scope="module")
def pair() -> tuple[Array, Array]:
    """A corner of the demo pair, SAR and optical, as arrays: nothing is known but the pixels."""
    moving, reference = (read_raster(path, role=path.stem).data for path in sample_pair())
    return moving[:, 100 : 100 + SIDE, 150 : 150 + SIDE], reference[:, 100 : 100 + SIDE, 150 : 150 + SIDE]


@pytest.fixture(scope="module")
def results(pair: tuple[Array, Array]) -> dict[str, Result]:
    return {preset: somareg.register(*pair, preset=preset, device="cpu") for preset in PRESETS}


def test_the_card_says_what_a_user_must_know() -> None:
    assert SHIPPED is not None
    card = read_card(SHIPPED)
    assert card.parameters <= 8_000_000
    assert SHIPPED.stat().st_size <= 16 * 2**20
    assert card.licence not in ("", "not stated")
    assert card.data
    assert card.scores
    assert load_network(SHIPPED).parameter_count <= card.parameters


def test_weights_are_read_once_in_a_process() -> None:
    assert SHIPPED is not None
    store._network.cache_clear()
    assert load_network(SHIPPED) is load_network(SHIPPED)
    assert (store._network.cache_info().misses, store._network.cache_info().hits) == (1, 1)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_uses_them_and_gets_go(preset: str, results: dict[str, Result]) -> None:
    result = results[preset]
    assert SHIPPED is not None
    assert result.settings["model_used"] == DEFAULT_WEIGHTS
    assert result.settings["model_sha256"] == read_card(SHIPPED).sha256
    assert result.verdict.decision == "go"


def test_they_agree_with_the_weight_free_engine_where_that_is_sure(
    pair: tuple[Array, Array], results: dict[str, Result]
) -> None:
    free = somareg.register(*pair, model="orientation")
    assert free.verdict.decision == "go"
    for result in results.values():
        distance = np.hypot(*(result.displacement.array - free.displacement.array))
        assert float(np.sqrt(np.square(distance).mean())) < 1.5


def test_presets_differ(results: dict[str, Result]) -> None:
    fast, base = (results[preset].displacement.array for preset in ("fast", "base"))
    assert (fast != base).any()


def test_nothing_is_fetched(pair: tuple[Array, Array], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    store._network.cache_clear()
    assert somareg.register(*pair, preset="fast").settings["model_used"] == DEFAULT_WEIGHTS


@pytest.mark.parametrize("offset", [(400, 350), (20, 380)])
def test_another_place_never_gets_go(offset: tuple[int, int], pair: tuple[Array, Array]) -> None:
    _, path = sample_pair()
    row, column = offset
    elsewhere = read_raster(path, role="reference").data[:, row : row + SIDE, column : column + SIDE]
    assert somareg.register(pair[0], elsewhere).verdict.decision != "go"


def test_the_verdict_is_calibrated_for_them(results: dict[str, Result]) -> None:
    assert SHIPPED is not None
    assert load_calibration("learned").weights == read_card(SHIPPED).sha256
    assert not any("calibrated for other weights" in note for note in results["base"].notes)


def test_a_smooth_warp_of_a_small_crop_is_followed(pair: tuple[Array, Array]) -> None:
    """160 px hold few windows; in three of four crops at least a third of a warp of 2.5 px must be found."""
    moving, reference = pair
    aligned = somareg.register(moving, reference, device="cpu").affine
    assert isinstance(aligned, AffineTransform)
    side, corner = 160, np.array([60, 60])
    pixels = pixel_centres(0, 0, side, side)
    crop = reference[:, 60 : 60 + side, 60 : 60 + side]
    followed = []
    for seed in (2, 5, 6, 7):
        warp = SmoothWarp(2.5, 60.0, seed, side)
        places = aligned(warp.inverse(pixels) + corner).astype(np.float32).reshape(side, side, 2)
        warped = cv2.remap(moving[0].astype(np.float32), places, None, cv2.INTER_CUBIC)
        result = somareg.register(warped, crop, moving_modality="sar", reference_modality="optical", device="cpu")
        assert isinstance(result.affine, AffineTransform)
        left = [
            np.sqrt(((each(pixels) - pixels - warp(pixels)) ** 2).sum(1).mean())
            for each in (result.affine, result.transform)
        ]
        followed.append(left[1] < left[0] * 2 / 3)
    assert sum(followed) >= 3
