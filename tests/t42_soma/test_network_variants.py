"""The whole network, untrained: its ablations, its size, its precision, its devices."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from somareg.features.orientation import OrientationCfg
from somareg.geometry import AffineTransform
from somareg.matching.describe import Describe, OrientationFeatures
from somareg.matching.matcher import Matcher
from somareg.matching.refine import refine_affine
from somareg.matching.steps import NEAR
from somareg.soma.align import coarse_affine
from somareg.soma.encoder import EncoderCfg
from somareg.soma.features import LearnedFeatures
from somareg.soma.fge import FgeCfg
from somareg.soma.glam.matcher import GlamCfg
from somareg.soma.network import NetworkCfg
from somareg.soma.pyramid import PyramidCfg
from tests.synthetic import make_pair
from tests.t40_matching.conftest import as_pair
from tests.t40_matching.textures import affine, off, reference_view, view
from tests.t42_soma.untrained import IDENTITY, SIZE, match, untrained

TRUTH = affine(SIZE, degrees=2.0, scale=1.02, shift=(3.0, -2.0))

ABLATIONS: dict[str, NetworkCfg] = {
    "FGE off": NetworkCfg(EncoderCfg(fge=None)),
    "filters only": NetworkCfg(EncoderCfg(fge=FgeCfg(attention=False))),
    "attention only": NetworkCfg(EncoderCfg(fge=FgeCfg(filters="off"))),
    "plain convolution": NetworkCfg(EncoderCfg(fge=FgeCfg(filters="conv"))),
    "learnable filters": NetworkCfg(EncoderCfg(fge=FgeCfg(filters="learnable"))),
    "affine only": NetworkCfg(glam=GlamCfg(local=None)),
    "flow only": NetworkCfg(glam=GlamCfg(affine=False)),
    "no coarse matcher": NetworkCfg(glam=GlamCfg(coarse=None)),
    "no coarse matcher, affine only": NetworkCfg(glam=GlamCfg(coarse=None, local=None)),
}


@pytest.mark.parametrize("cfg", ABLATIONS.values(), ids=ABLATIONS.keys())
def test_every_ablation_matches(cfg: NetworkCfg) -> None:
    size = (112, 112)
    truth = affine(size, shift=(1.5, -1.0))
    found = match(untrained(12.0, cfg=cfg), reference_view(size), view(truth, size))
    assert (found.flow is None) == (cfg.glam.local is None)
    fitted = found.stages[-1].affine
    assert off(fitted, truth, size) < 0.5
    if cfg.glam.affine:
        assert torch.equal(found.affine, fitted)
    else:
        assert torch.equal(found.affine, IDENTITY)
        assert found.flow is not None
        torch.testing.assert_close(found.flow.mean((-2, -1))[0], torch.tensor([1.5, -1.0]), atol=0.7, rtol=0)


def test_ablations_differ_in_what_they_switch_only() -> None:
    names = {name: set(untrained(cfg=cfg).state_dict()) for name, cfg in ABLATIONS.items()}
    whole = set(untrained().state_dict())
    assert all("enhancers" in key for key in whole - names["FGE off"])
    assert all(".attention." in key for key in whole - names["filters only"])
    assert all(".gradient." in key for key in whole - names["attention only"])
    assert all(key.startswith("glam.coarse.") for key in whole - names["no coarse matcher"])
    assert names["affine only"] == names["flow only"] == whole
    assert all(
        part - whole == set() or name in ("plain convolution", "learnable filters") for name, part in names.items()
    )


def test_the_default_network_is_small() -> None:
    network = untrained()
    buffer = io.BytesIO()
    torch.save({name: value.half() for name, value in network.state_dict().items()}, buffer)
    assert buffer.tell() < 16 * 2**20
    assert network.parameter_count == sum(p.numel() for p in network.parameters()) < 8_000_000


def test_half_precision_in_the_encoder_hardly_moves_the_result() -> None:
    truth = affine(SIZE, degrees=1.0, shift=(2.0, -3.0))
    network, reference, moving = untrained(12.0), reference_view(SIZE), view(truth, SIZE)
    whole = match(network, reference, moving)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = match(network, reference, moving)
    assert half.affine.dtype == torch.float64
    assert off(half.affine, whole.affine, SIZE) < 0.1


def test_temperatures_by_stride() -> None:
    network = untrained(9.0)
    assert network.temperature(4) == pytest.approx(9.0, rel=1e-5)
    with pytest.raises(KeyError):
        network.temperature(16)


def test_the_coarse_affine_of_a_pair() -> None:
    image = reference_view(SIZE)
    seen = torch.ones_like(image)
    for network, is_found in ((untrained(), True), (untrained(cfg=ABLATIONS["no coarse matcher"]), False)):
        with torch.no_grad():
            features = network.encode(image, seen, "optical")
            found = coarse_affine(network, features, features)
        assert (found is not None) == is_found
        if found is not None:
            assert off(torch.tensor(found.matrix)[None], IDENTITY, SIZE) < 0.05


@pytest.mark.parametrize("seed", [0, 1])
def test_with_its_shortcut_an_untrained_network_matches_as_the_weight_free_engine_does(seed: int) -> None:
    """SAR against optical: random features alone have nothing in common there."""
    made = make_pair(seed, 160, rotation_deg=2, scale=1.01, shift=(5.0, -4.0))
    images = replace(as_pair(made), modalities=("optical", "sar"))
    points = np.stack(np.meshgrid([10.0, 80.0, 150.0], [10.0, 80.0, 150.0]), axis=-1).reshape(-1, 2)
    networks = [
        untrained(cfg=NetworkCfg(EncoderCfg(compact=PyramidCfg(shortcut=shortcut)))) for shortcut in (True, False)
    ]
    describers: list[Describe] = [OrientationFeatures(OrientationCfg()), *map(LearnedFeatures, networks)]
    far = []
    for describe in describers:
        with torch.inference_mode():
            found = refine_affine(Matcher(images, describe), AffineTransform.identity(), NEAR).affine
        far.append(float(np.linalg.norm(found(points) - made.to_moving(points), axis=1).max()))
    free, short, plain = far
    assert free < 0.5
    assert short < free + 0.2
    assert plain > 1.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU at hand")
@pytest.mark.parametrize("rewarp", [False, True])
def test_a_gpu_gives_what_the_processor_gives(rewarp: bool) -> None:
    is_coarse_allowed, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        network, reference, moving = untrained(12.0), reference_view((131, 160)), view(TRUTH, (150, 144))
        here = match(network, reference, moving, None, rewarp=rewarp)
        there = match(network.cuda(), reference.cuda(), moving.cuda(), None, rewarp=rewarp)
    finally:
        torch.backends.cudnn.allow_tf32 = is_coarse_allowed
    for a, b in zip(here.stages, there.stages, strict=True):
        assert off(a.affine, b.affine.cpu(), (131, 160)) < 0.01
    assert here.flow is not None
    assert there.flow is not None
    torch.testing.assert_close(there.flow.cpu(), here.flow, atol=0.02, rtol=0)
