"""`model=` from the name to the result: a saved network is what registers, and what cannot work says so in one line.

The network has random weights, see `tests/small_network.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import somareg
from somareg.cli.main import main
from somareg.errors import ConfigError, WeightsError
from somareg.lab.evaluate.peers import make_method
from somareg.register import api
from somareg.register.choose import Chosen, choose_device
from somareg.soma.encoder import MIN_SIDE
from somareg.soma.network import Soma
from somareg.types import Grid, Result
from tests.small_network import SMALL, Shape, save_network, small_network, two_looks
from tests.synthetic import Scene, SyntheticPair, affine_map, make_pair, pixel_points, speckled
from tests.t65_register.conftest import REFERENCE, UTM, Files, moving_grid, write

SIDE = 160


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(small_network(), tmp_path_factory.mktemp("model") / "meadow.safetensors")


@pytest.fixture(scope="module")
def same_sensor() -> SyntheticPair:
    shape = (SIDE, SIDE)
    return two_looks(*affine_map(shape, rotation_deg=3, scale=1.02, shift=(6.4, -4.2)), shape)


@pytest.fixture(scope="module")
def learned(model: Path, same_sensor: SyntheticPair) -> Result:
    return somareg.register(same_sensor.moving, same_sensor.reference, moving_modality="optical", model=str(model))


# --- which model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "near"), [("orientaton", "orientation"), ("aut", "auto")])
@pytest.mark.parametrize("call", ["load_model", "register", "plan"])
def test_an_unknown_name_suggests_the_nearest(call: str, name: str, near: str, files: Files) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "load_model": lambda: somareg.load_model(name),
        "register": lambda: somareg.register(files.moving, files.reference, model=name),
        "plan": lambda: api.plan(files.moving, files.reference, model=name),
    }
    with pytest.raises(ConfigError, match=rf"unknown model '{name}'\. Did you mean '{near}'\?"):
        calls[call]()


def test_the_weight_free_engine_is_no_network() -> None:
    assert somareg.load_model("orientation") is None


def test_a_file_is_built_once_for_the_python_call_and_for_registration(model: Path) -> None:
    network = somareg.load_model(str(model))
    assert isinstance(network, Soma)
    assert network.cfg == SMALL
    assert not network.training
    assert network is somareg.load_model(str(model), device="cpu")


def test_the_saved_network_is_what_registers(model: Path, same_sensor: SyntheticPair) -> None:
    network = somareg.load_model(str(model), device="cpu")
    assert network is not None
    seen: list[str] = []
    handle = network.encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[2]))
    try:
        options: dict[str, Any] = {"moving_modality": "optical", "device": "cpu", "local": False}
        moving, reference = same_sensor.moving[:, :96, :96], same_sensor.reference[:, :96, :96]
        somareg.register(moving, reference, model="orientation", **options)
        assert not seen
        somareg.register(moving, reference, model=str(model), reference_modality="other", **options)
    finally:
        handle.remove()
    assert set(seen) == {"optical", "other"}  # each image goes to the branch of its own modality
    assert len(seen) > 4  # coarse matches and refinement both


def test_settings_and_report_say_which_model(learned: Result, model: Path, tmp_path: Path) -> None:
    assert learned.settings["model_used"] == learned.settings["model"] == str(model)
    folder = learned.save(tmp_path / "out")
    record = json.loads((folder / "report.json").read_text())
    assert record["settings"]["model_used"] == str(model)
    assert record["settings"]["model_version"] == "meadow"
    assert record["settings"]["model_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert record["settings"]["device_used"] == learned.settings["device_used"]


# --- how well ---------------------------------------------------------------------------------------------------------


def test_random_features_register_two_looks_of_one_sensor(learned: Result, same_sensor: SyntheticPair) -> None:
    assert same_sensor.rmse(learned.displacement.array) < 0.5
    assert learned.verdict.decision == "go"


def test_two_sar_images(model: Path) -> None:
    shape, scene, rng = (SIDE, SIDE), Scene(4), np.random.default_rng(4)
    there, back = affine_map(shape, rotation_deg=-2, shift=(-5.3, 3.6))
    looks = [
        speckled(scene.backscatter(points, shape), 20.0, rng)[None].astype(np.float32)
        for points in (pixel_points(shape), back(pixel_points(shape)))
    ]
    pair = SyntheticPair(looks[1], looks[0], there)
    result = somareg.register(pair.moving, pair.reference, reference_modality="sar", model=str(model))
    assert pair.rmse(result.displacement.array) < 0.7
    assert sum("power" in note for note in result.notes) == 2  # both went through the logarithm


def test_images_of_different_size(model: Path) -> None:
    shape, away = (120, 150), (190, 170)
    there, back = affine_map(shape, rotation_deg=2, shift=(14.0, 30.0))
    pair = two_looks(there, back, shape, away)
    result = somareg.register(pair.moving, pair.reference, moving_modality="optical", model=str(model))
    assert result.displacement.array.shape == (2, *shape)
    assert pair.rmse(result.displacement.array) < 1.0  # untrained features feel the reference's border


def test_a_georeferenced_pair_of_other_pixel_size(model: Path, tmp_path: Path) -> None:
    """The moving image has pixels of 7 m and reaches beyond the reference, which has pixels of 10 m."""
    grid, scene, shift = moving_grid(UTM, 7.0), Scene(1), (6.3, -4.2)
    files = Files(tmp_path / "moving.tif", tmp_path / "reference.tif", shift, REFERENCE, grid)

    def look(points: NDArray[Any], shape: Shape) -> NDArray[Any]:
        return np.rint(255 * np.clip(scene.optical(points, shape) / 0.8, 0, 1)).astype(np.uint8)

    write(files.reference, look(pixel_points(REFERENCE.shape), REFERENCE.shape), REFERENCE)
    write(files.moving, look(files.claimed(pixel_points(grid.shape)) - shift, grid.shape), grid)
    assert grid.shape != REFERENCE.shape
    result = somareg.register(files.moving, files.reference, moving_modality="optical", model=str(model))
    assert files.rmse(result) < 0.5
    assert result.settings["model_used"] == str(model)


# --- what a network cannot take ---------------------------------------------------------------------------------------


def damaged(path: Path, kind: str) -> Path:
    """A model spoilt in one way, beside an intact card."""
    content = path.read_bytes()
    spoilt = {"truncated": content[: len(content) // 2], "flipped": content[:-1] + bytes([content[-1] ^ 1])}
    target = path.with_name(f"{kind}.safetensors")
    target.with_suffix(".json").write_bytes(path.with_suffix(".json").read_bytes())
    if kind in spoilt:
        target.write_bytes(spoilt[kind])
    return target


@pytest.mark.parametrize("kind", ["truncated", "flipped", "missing"])
def test_a_damaged_file_is_refused_before_an_image_is_read(model: Path, kind: str, tmp_path: Path) -> None:
    path = damaged(model, kind)
    with pytest.raises(WeightsError) as caught:
        somareg.register(tmp_path / "no.tif", tmp_path / "none.tif", model=str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pair_too_narrow_for_a_network_names_the_way_out(model: Path, same_sensor: SyntheticPair) -> None:
    strip = np.tile(same_sensor.reference[:, :72], (1, 1, 15))  # 2400 x 72 px: matched at half of that
    with pytest.raises(ConfigError, match=r"64 px a side.*1200 x 36.*use model='orientation'") as caught:
        somareg.register(strip, strip, moving_modality="optical", model=str(model))
    assert "\n" not in str(caught.value)
    free = somareg.register(strip, strip, moving_modality="optical", model="orientation", local=False)
    assert np.abs(free.displacement.array).max() < 1.0


def test_a_long_and_narrow_pair_is_matched(model: Path) -> None:
    """Averaged as far as its length asks, its short side would be too small; the network is shown it finer."""
    shape = (100, 700)
    there, back = affine_map(shape, rotation_deg=1, shift=(8.3, -5.1))
    pair = two_looks(there, back, shape)
    result = somareg.register(pair.moving, pair.reference, moving_modality="optical", model=str(model), local=False)
    assert pair.rmse(result.displacement.array) < 1.5  # random features, whose first stage has cells of 8 px


@pytest.mark.parametrize("shape", [(63, 300), (300, 63)])
def test_the_smaller_image_and_the_shorter_side_count(shape: Shape) -> None:
    large, least = (300, 300), (MIN_SIDE, MIN_SIDE)
    asked = Chosen("meadow", small_network(), by_name=True)
    for sides in ((large, shape), (shape, large)):
        with pytest.raises(ConfigError, match=f"{shape[1]} x {shape[0]}"):
            asked.on(*sides)
        assert Chosen("meadow", asked.network).on(*sides).network is None
    assert asked.on(least, least) is asked
    free = Chosen(by_name=True)
    assert free.on(shape, shape) is free


# --- where it runs ----------------------------------------------------------------------------------------------------


def test_the_device_is_told_and_obeyed(model: Path, same_sensor: SyntheticPair) -> None:
    moving, reference = same_sensor.moving[:, :96, :96], same_sensor.reference[:, :96, :96]
    options: dict[str, Any] = {"moving_modality": "optical", "model": str(model), "local": False}
    first = somareg.register(moving, reference, device="cpu", **options)
    again = somareg.register(moving, reference, device="cpu", **options)
    assert first.settings["device_used"] == "cpu"
    np.testing.assert_array_equal(first.displacement.array, again.displacement.array)
    network = somareg.load_model(str(model), device="cpu")
    assert network is not None
    assert {p.device.type for p in network.parameters()} == {"cpu"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_what_the_cpu_finds(model: Path, same_sensor: SyntheticPair) -> None:
    options: dict[str, Any] = {"moving_modality": "optical", "model": str(model)}
    found = [
        somareg.register(same_sensor.moving, same_sensor.reference, device=device, **options)
        for device in ("cpu", "cuda")
    ]
    assert found[1].settings["device_used"].startswith("cuda")
    np.testing.assert_allclose(found[1].displacement.array, found[0].displacement.array, atol=0.05)


@pytest.mark.parametrize("device", ["meta", "cuda:99", "tpu9", ""])
def test_absent_devices(device: str, model: Path) -> None:
    with pytest.raises(ConfigError, match="is not available"):
        choose_device(device)
    with pytest.raises(ConfigError, match="is not available"):
        somareg.load_model(str(model), device=device)


# --- from the shell and in the benchmark ------------------------------------------------------------------------------


def shell(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, out, err


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_the_command_takes_a_file(
    model: Path, same_sensor: SyntheticPair, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    moving, reference = (tmp_path / f"{name}.tif" for name in ("moving", "reference"))
    grid = Grid(SIDE, SIDE)
    write(moving, same_sensor.moving, grid)
    write(reference, same_sensor.reference, grid)
    options = ("--moving-modality", "optical", "--no-local", "--model")
    code, out, _ = shell(capfd, "register", moving, reference, "-o", tmp_path / "out", "--json", *options, model)
    record = json.loads(out)
    assert (code, record["verdict"]["decision"]) == (0, "go")
    assert record["settings"]["model_used"] == str(model)
    found = somareg.register(moving, reference, moving_modality="optical", local=False, model=str(model))
    assert same_sensor.rmse(found.displacement.array) < 0.5
    code, out, _ = shell(capfd, "register", moving, reference, "--dry-run", "--json", *options, model)
    assert (code, json.loads(out)["model"]) == (0, str(model))
    for wrong, expected, says in (
        ("meadwo", 2, "unknown model 'meadwo'"),
        (damaged(model, "truncated"), 1, "truncated.safetensors"),
    ):
        code, _, err = shell(capfd, "register", moving, reference, "-o", tmp_path / "no", *options, wrong)
        assert (code, err.count("\n")) == (expected, 1)
        assert says in err
        assert not os.path.lexists(tmp_path / "no")


def test_a_file_is_a_method_of_the_benchmark(model: Path, same_sensor: SyntheticPair) -> None:
    method = make_method(str(model))
    network = somareg.load_model(str(model))
    assert network is not None
    assert method.name == "meadow"
    assert getattr(method, "parameters") == sum(p.numel() for p in network.parameters()) > 1000  # noqa: B009
    assert getattr(make_method("orientation"), "parameters") == 0  # noqa: B009
    sar = make_pair(0, 96)
    prediction = method(np.clip(sar.moving[0] * 800, 0, 255).astype(np.uint8), sar.reference, level="m", seed=0)
    assert prediction.decision in {"go", "review", "no-go"}
    assert prediction.confidence is not None
    assert 0 <= prediction.confidence <= 1
