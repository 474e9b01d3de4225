"""Options, plans, progress: what is asked is what is done, and a typo gets a suggestion."""

from __future__ import annotations

import subprocess
import sys

import pytest

from somareg.config import RegisterConfig, make_config
from somareg.errors import ConfigError, InternalError
from somareg.io.source import RasterSource
from somareg.register import api, choose
from somareg.types import Grid, Result
from tests.synthetic import SyntheticPair
from tests.t65_register.conftest import REFERENCE, Files, register


@pytest.mark.parametrize(
    ("options", "mentions"),
    [
        ({"serach": "full"}, ("serach", "'search'")),
        ({"preset": "fst"}, ("fst", "'fast'")),
        ({"search": "ful"}, ("ful", "'full'")),
        ({"model": "orientaton"}, ("orientaton", "'orientation'")),
        ({"moving_modality": "radar"}, ("radar", "sar")),
        ({"moving_scale": "decibel"}, ("decibel", "dB")),
        ({"resampling": "bicubic"}, ("bicubic", "'cubic'")),
        ({"search_radius_px": -3}, ("search_radius_px", "-3")),
        ({"seed": "many"}, ("seed", "many")),
        ({"device": "tpu9"}, ("tpu9",)),
        ({"search_radius_m": 100.0}, ("search_radius_m", "georeferenced")),
    ],
)
def test_a_bad_option_is_one_clear_line(
    options: dict[str, object], mentions: tuple[str, ...], pair: SyntheticPair
) -> None:
    with pytest.raises(ConfigError) as caught:
        api.register(pair.moving, pair.reference, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    for text in mentions:
        assert text in message


def test_a_mask_does_not_go_with_a_file(files: Files) -> None:
    with pytest.raises(ConfigError, match="moving_mask"):
        register(files.moving, files.reference, moving_mask=REFERENCE)  # type: ignore[arg-type]


def test_settings_tell_every_option(result: Result) -> None:
    assert set(RegisterConfig.model_fields) <= set(result.settings)
    assert result.settings["model_used"] == result.settings["model"] == "orientation"
    assert result.settings["model_version"] is result.settings["model_sha256"] is None
    assert result.settings["device_used"] == "cpu" or result.settings["device_used"].startswith("cuda")
    given = {key: result.settings[key] for key in RegisterConfig.model_fields}
    assert make_config(given) == make_config({"model": "orientation"})


def test_search_radius() -> None:
    plain = Grid(1000, 400)
    placed = Grid(1000, 400, REFERENCE.transform, REFERENCE.crs)
    assert choose.search_radius(make_config({}), plain) == pytest.approx(140)
    assert choose.search_radius(make_config({}), placed) == pytest.approx(50)
    assert choose.search_radius(make_config({}), REFERENCE) == 32
    assert choose.search_radius(make_config({}), Grid(20000, 400, REFERENCE.transform, REFERENCE.crs)) == 200
    assert choose.search_radius(make_config({"search_radius_px": 7}), placed) == 7
    assert choose.search_radius(make_config({"search_radius_m": 700}), placed) == pytest.approx(70, rel=0.01)


def test_presets_and_search_shape_the_engine() -> None:
    plain = Grid(500, 500)
    base = choose.engine_settings(make_config({}), plain, 70.0)
    assert base.search.radius == pytest.approx(0.14)
    assert base.search.rotation_deg >= 20
    full = choose.engine_settings(make_config({"search": "full"}), plain, 70.0)
    assert full.search.rotation_deg == 180
    assert full.search.scale[0] <= 0.7 < 1.4 <= full.search.scale[1]
    near = choose.engine_settings(make_config({"search": "local"}), plain, 70.0)
    placed = choose.engine_settings(make_config({}), REFERENCE, 32.0)
    assert near.search.rotation_deg == placed.search.rotation_deg < 6
    assert not (near.search.is_wide or placed.search.is_wide)
    # Only who knows nothing and asks for nothing special has the search widen by itself.
    assert [one.search.widens for one in (base, full, near, placed)] == [True, False, False, False]
    assert len(base.search.turns()) + len(base.search.turns_beyond()) == len(full.search.turns())
    fast, precise = (choose.engine_settings(make_config({"preset": p}), plain, 70.0) for p in ("fast", "precise"))
    assert fast.windows < base.windows
    assert fast.features == base.features == precise.features  # what the verdict was fitted on
    assert fast.search.keep < base.search.keep
    assert fast.is_hasty and not base.is_hasty
    assert len(fast.near) < len(base.near)
    assert precise == base  # it keeps the resolution of larger images, and that is all


def test_presets_decide_which_resolution_is_matched() -> None:
    small, common, large = (300, 399), (512, 512), (3000, 2500)
    assert [choose.longest_of("fast", shape) for shape in (small, common, large)] == [399, 256, 1024]
    assert [choose.longest_of("base", shape) for shape in (small, common, large)] == [399, 512, 2048]
    assert [choose.longest_of("precise", shape) for shape in (small, common, large)] == [399, 512, 3000]


@pytest.mark.parametrize(
    ("moving", "reference", "first"),
    [
        ("sar", "optical", False),
        ("optical", "sar", False),
        ("other", "sar", False),
        ("sar", "sar", True),
        ("optical", "optical", True),
        ("other", "optical", True),
    ],
)
def test_keypoints_come_first_where_they_may_find_something(moving: str, reference: str, first: bool) -> None:
    cfg = make_config({"moving_modality": moving, "reference_modality": reference})
    assert choose.engine_settings(cfg, Grid(500, 500), 70.0).search.hints_first == first


@pytest.mark.parametrize("preset", ["fast", "precise"])
def test_every_preset_recovers_the_truth(preset: str, pair: SyntheticPair) -> None:
    result = register(pair.moving, pair.reference, preset=preset)
    assert pair.rmse(result.displacement.array) < 0.5
    assert result.verdict.decision == "go"


def test_progress_runs_from_0_to_1(pair: SyntheticPair) -> None:
    told: list[tuple[str, float]] = []
    register(pair.moving, pair.reference, preset="fast", progress=lambda stage, share: told.append((stage, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert len({stage for stage, _ in told}) >= 5


def test_plan_reads_headers_only(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("pixels were read")

    monkeypatch.setattr(RasterSource, "read", refuse)
    plan = api.plan(files.moving, files.reference)
    assert plan["moving"]["bands"] == 2
    assert plan["moving"]["dtype"] == "uint16"
    assert plan["reference"]["size"] == "192 x 192 px"
    assert plan["reference"]["georeferenced"] is True
    assert plan["search_radius_px"] == 32
    assert plan["working_size"].startswith("192 x 192")
    assert set(plan["outputs"]) >= {"aligned.tif", "report.html"}
    with pytest.raises(InternalError):
        register(files.moving, files.reference)


def test_plan_refuses_what_register_refuses(files: Files) -> None:
    with pytest.raises(ConfigError, match="'preset'"):
        api.plan(files.moving, files.reference, prest="fast")


@pytest.mark.parametrize("first", ["import somareg.warp.engine, somareg.register.whole", "import somareg"])
def test_public_names_are_callable_whatever_was_imported_before(first: str) -> None:
    """There is a room `somareg.warp` and a function of that name; users get the function."""
    code = (
        f"{first}\nimport sys, somareg\nfrom somareg import warp\n"
        "assert all(callable(getattr(somareg, n)) for n in ('register', 'assess', 'warp'))\n"
        "assert warp is somareg.warp is sys.modules['somareg.register.api'].warp"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
