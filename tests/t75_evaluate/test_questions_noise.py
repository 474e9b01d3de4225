"""The script on speckle and derivatives, with signals and noise whose gains are known."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from somareg.errors import ConfigError
from somareg.features.orientation import smooth
from somareg.soma.fge import FeatureGradientEnhancer, FgeCfg
from somareg.soma.network import NetworkCfg, Soma
from tests.programs import program

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return program("benchmarks/questions/noise.py")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def natural(count: int, side: int) -> Tensor:
    """Random images with a 1/f amplitude spectrum, (1, count, side, side)."""
    frequency = torch.fft.fftfreq(side)
    radius = (frequency[:, None].square() + frequency.square()).sqrt()
    radius[0, 0] = math.inf
    return torch.fft.ifft2(torch.fft.fft2(noise(1, count, side, side)) / radius).real


def test_gains_are_those_of_theory_on_white_noise_and_natural_images(script: ModuleType) -> None:
    clean = natural(24, 128)
    found = script.gains(clean, clean + noise(1, 24, 128, 128, seed=1), 6)
    for sigma in script.SIGMAS:
        figures = found[f"{sigma:g}"]
        assert figures["noise"] == pytest.approx(figures["white"], rel=0.04)
        assert figures["signal"] == pytest.approx(figures["1/f"], rel=0.15)
        # Continuous theory: a derivative of a Gaussian passes 1 / (8 pi sigma^4) of white noise.
        assert figures["white"] == pytest.approx(1 / (8 * math.pi * sigma**4), rel=0.06)


def test_noise_that_is_smooth_passes_more(script: ModuleType) -> None:
    """So the measured gain is no copy of the theory."""
    clean, change = natural(8, 96), smooth(noise(1, 8, 96, 96), 1.0)
    figures = script.gains(clean, clean + change, 6)["1"]
    assert figures["noise"] > 1.5 * figures["white"]


def test_snr_and_likeness_of_known_noise(script: ModuleType) -> None:
    clean = noise(4, 3, 64, 64) * torch.tensor([1.0, 2.0, 4.0])[:, None, None]
    noisy = clean + 0.5 * noise(4, 3, 64, 64, seed=1)
    assert script.snr_db(clean, noisy) == pytest.approx(10 * math.log10(4 / 0.25), abs=0.1)  # the channel in the middle
    assert script.likeness(clean, 3 * noisy) == pytest.approx((7 / (7 + 0.25)) ** 0.5, abs=0.002)
    dead = torch.cat([clean[:, :1], clean[:, :1] * 0], dim=1)
    assert script.snr_db(dead, dead + 0.5 * noise(4, 2, 64, 64, seed=1)) == pytest.approx(6.02, abs=0.1)


def test_what_all_scenes_share_is_no_signal(script: ModuleType) -> None:
    """A fixed pattern, such as that of padding, must not make noise look like signal."""
    pattern, ground = 10 * noise(1, 1, 32, 32), noise(8, 1, 32, 32, seed=1)
    clean, noisy = (script.own_part(pattern + part) for part in (ground, noise(8, 1, 32, 32, seed=2)))
    assert script.snr_db(clean, noisy) == pytest.approx(-3.0, abs=0.4)
    assert abs(script.likeness(clean, noisy)) < 0.05


@pytest.mark.parametrize("looks", [1, 4, 64])
def test_speckle_has_the_strength_of_its_looks(script: ModuleType, looks: int) -> None:
    """The deviation of gamma speckle in dB is 4.34 times the root of trigamma(looks)."""
    scenes = natural(4, 160).transpose(0, 1)
    draw = torch.Generator().manual_seed(0)
    clean, noisy = (script.radar_image(scenes, each, 3.0, draw) for each in (None, looks))
    assert float(noisy.std()) == pytest.approx(1.0, abs=0.01)
    trigamma = float(torch.polygamma(1, torch.tensor(float(looks))))
    expected = 3.0 / (9.0 + (10 / math.log(10)) ** 2 * trigamma) ** 0.5
    assert script.likeness(clean, noisy) == pytest.approx(expected, abs=0.03)


def test_the_parts_of_an_fge_are_its_own(script: ModuleType) -> None:
    torch.manual_seed(0)
    fge = FeatureGradientEnhancer(8, FgeCfg()).eval()
    with torch.no_grad():
        for weights in fge.parameters():
            weights.add_(0.3 * torch.randn_like(weights))
        x = noise(2, 8, 24, 24)
        rows, gate = script.fge_maps(fge, x, "")
        torch.testing.assert_close(rows["FGE"], fge.enhance(x))
        ungated = FeatureGradientEnhancer(8, replace(fge.cfg, attention=False)).eval()
        ungated.load_state_dict(fge.state_dict(), strict=False)
        torch.testing.assert_close(rows["FGE, ungated"], ungated.enhance(x))
    assert float(gate.std()) > 0.01
    assert set(rows) <= set(script.ROWS)


def test_weights_without_fge_are_refused(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = NetworkCfg().encoder
    bare = Soma(NetworkCfg(encoder=replace(encoder, fge=None)))
    monkeypatch.setattr(script, "load_network", lambda path: bare)
    assert script.main(["--model", "compact"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: compact: these weights hold no FGE") and told.count("\n") == 1
    for part in ({"filters": "off"}, {"attention": False}):
        half = Soma(NetworkCfg(encoder=replace(encoder, fge=replace(FgeCfg(), **part))))
        with pytest.raises(ConfigError, match="lacks filters or attention"):
            script.enhancer_of(half, 2, "half")


def test_command_writes_every_row(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Soma(NetworkCfg()).eval()  # the weights that ship may hold no FGE
    monkeypatch.setattr(script, "load_network", lambda path: network)
    target = tmp_path / "figures.json"
    assert script.main(["--count", "2", "--json", str(target)]) == 0
    levels = json.loads(target.read_text())["sets"]["synthetic"]
    assert list(levels) == ["1/2", "1/4", "1/8"]
    for level in levels.values():
        assert tuple(level["rows"]) == script.ROWS
        for cells in level["rows"].values():
            assert cells["1"]["r"] < cells["4"]["r"] < cells["64"]["r"]
            assert cells["1"]["snr_db"] < cells["64"]["snr_db"]
    script.draw({"synthetic": levels}, tmp_path / "picture.png")
    assert 1000 < (tmp_path / "picture.png").stat().st_size < 60_000
