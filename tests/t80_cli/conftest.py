"""A terminal in a box: the real command line over a Python API that answers at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from somareg.cli.main import main
from somareg.geometry.affine import AffineTransform
from somareg.io.writer import check_writable
from somareg.report.record import build_record
from somareg.report.stac import need_pystac
from somareg.types import (
    Assessment,
    Displacement,
    Grid,
    Previews,
    Quality,
    Raster,
    Result,
    TiePoints,
    Verdict,
)
from tests.figures import on_squares


@dataclass
class Answer:
    code: int
    out: str
    err: str


@dataclass
class FakeApi:
    """What the fake API answers and what it was asked."""

    decision: str = "go"
    error: BaseException | None = None
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


Cli = Callable[..., Answer]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run the command line in this process; returns its exit code and both streams, C-level output included."""

    def run(*arguments: object) -> Answer:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert isinstance(end.value.code, int)
        return Answer(end.value.code, out, err)

    return run


@pytest.fixture
def fake_api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """Replace `somareg.register.api`, so that these tests are about the command line alone."""
    state = FakeApi()

    def answer(name: str, make: Callable[..., Any]) -> Callable[..., Any]:
        def call(*positional: Any, **options: Any) -> Any:
            progress = options.pop("progress", None)
            state.calls.append((name, {"args": positional, **options}))
            if progress is not None:
                progress("matching", 0.5)
            if state.error is not None:
                raise state.error
            return make(*positional, **options)

        return call

    def warp(raster: Any, estimate: Any, out: Path, **_: Any) -> Path:
        out.write_bytes(b"pixels")
        return out

    def register_into(moving: Any, reference: Any, out: Path, **said: Any) -> Result:
        result = make_result(state.decision)
        if said.get("stac"):
            need_pystac()
        check_writable(out, overwrite=said.get("overwrite", False))
        result.save(out, **{name: said.get(name, False) for name in ("overwrite", "force", "stac")})
        return result

    api = ModuleType("somareg.register.api")
    for name, make in {
        "register": lambda *_, **__: make_result(state.decision),
        "register_into": register_into,
        "assess": lambda *_, **__: make_assessment(state.decision),
        "plan": lambda *_, **__: {"working_scale": 0.5, "reference": {"width": 100, "height": 90}, "memory_mb": 12.0},
        "warp": warp,
    }.items():
        setattr(api, name, answer(name, make))
    monkeypatch.setitem(sys.modules, "somareg.register.api", api)
    monkeypatch.setattr(import_module("somareg.register"), "api", api, raising=False)
    return state


def make_result(decision: str) -> Result:
    """A small result as `register` returns it, with a saver that writes the report only."""
    grid = Grid(64, 48, (10.0, 0.0, 500000.0, 0.0, -10.0, 4000000.0), "EPSG:32633")
    affine = AffineTransform.from_parameters(shift=(-5.6, -1.1))
    points = np.array([[10.0, 10.0], [40.0, 20.0], [30.0, 40.0]])
    ties = TiePoints(
        points,
        affine(points),
        affine(points) - points,
        np.full(3, 0.3),
        np.ones(3),
        np.array([True, True, False]),
        np.zeros(3),
    )
    reasons = ("37 of 40 windows agree",) if decision == "go" else ("too little texture \x1b[31m in the sea",)
    picture = np.zeros((48, 64), np.uint8)
    field_px = np.zeros((2, 48, 64), np.float32)
    raster = Raster(np.zeros((1, 48, 64), np.uint8), np.ones((48, 64), bool), grid, name="a.tif")
    result = Result(
        transform=affine,
        correction=affine,
        affine=affine,
        displacement=Displacement(field_px, field_px[0], field_px[0], grid),
        tie_points=ties,
        quality=make_quality() if decision != "no-go" else make_quality().without_prediction(),
        verdict=make_verdict(decision, reasons),
        moving=raster,
        reference=replace(raster, name="b.tif"),
        settings={"preset": "base", "model_used": "compact"},
        notes=("SAR scale: dB, because values lie in -40 to 10",),
        timings={"matching": 0.4},
        previews=Previews(picture, picture, picture, 1.0),
    )
    return replace(result, saver=_save)


def make_verdict(decision: str, reasons: tuple[str, ...]) -> Verdict:
    """As `judge` makes it of `make_quality`."""
    error = (0.61, 6.1, make_quality().worst_place) if decision != "no-go" else ()
    return Verdict(decision, reasons, 0.97, *error)  # type: ignore[arg-type]


def make_quality() -> Quality:
    """Measured figures with one that could not be measured."""
    numbers = dict.fromkeys(Quality.__dataclass_fields__, 0.5)
    quality = Quality(
        **numbers
        | {
            "n_points": 3,
            "shift_px": (-5.6, -1.1),
            "bias_px": (0.02, -0.01),
            "sigma_px": (0.4, 0.5),
            "worst_place": "At worst, the south side is off by about 0.9 px (9.0 m); all 36 cells were seen.",
            "cells": (),
            "shift_before_px": 5.71,
            "predicted_rmse_px": 0.61,
            "predicted_ce90_px": float("nan"),
            "rotation_deg": 0.031,
            "metres": None,
        }
    )
    return on_squares(quality, 10.0)


def make_assessment(decision: str) -> Assessment:
    result = make_result(decision)
    return Assessment(result.verdict, 5.71, 57.1, (-5.6, -1.1), result)


def _save(result: Result, folder: Path, *, overwrite: bool, force: bool, stac: bool, reports: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    outputs = {}
    if result.verdict.decision != "no-go" or force:
        (folder / "aligned.tif").write_bytes(b"II*")
        outputs["aligned.tif"] = folder / "aligned.tif"
    if stac:
        (folder / "item.json").write_text("{}")
    if reports == "all":
        (folder / "report.html").write_text("<p>report</p>")
    (folder / "report.json").write_text(build_record(result, outputs).to_json())
    return folder
