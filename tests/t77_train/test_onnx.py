"""ONNX graphs of the encoder: what ONNX Runtime gives is what PyTorch gives, on any size, mask and number of bands."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from somareg.cli.main import main
from somareg.config import to_mapping
from somareg.errors import ConfigError, OutputError, UnsupportedError
from somareg.features.orientation import OrientationCfg, gradients, orientation_channels
from somareg.lab.train import export_onnx as export_module
from somareg.lab.train.export_onnx import OnnxExport, export_onnx
from somareg.lab.train.onnx_graph import BRANCHES, LEVELS, VALID, Branch, encoder_graphs
from somareg.soma.encoder import Encoder, EncoderCfg
from somareg.soma.fge import FgeCfg
from somareg.soma.glam.coarse import CoarseCfg
from somareg.soma.glam.matcher import GlamCfg
from somareg.soma.network import NetworkCfg, Soma
from somareg.soma.pyramid import STRIDES, PyramidCfg
from somareg.soma.resnet import ResNetCfg
from somareg.soma.weights import load_network, resolve
from tests.small_network import save_network

# Every kind of part that the default has, as few of each as possible: the exporter takes its time.
COMPACT = PyramidCfg(4, (8, 8, 8, 8), (1, 0, 0, 0), (4, 4, 4, 8), OrientationCfg(2, ((0.8, 0.8),)))
TINY = NetworkCfg(
    EncoderCfg(compact=COMPACT, fge=FgeCfg(directions=2, sigmas=(0.8,)), detail=15), GlamCfg(coarse=CoarseCfg(8, 1, 1))
)
Sample = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return save_network(Soma(TINY), tmp_path_factory.mktemp("weights") / "meadow.safetensors")


@pytest.fixture(scope="module")
def encoder(weights: Path) -> Encoder:
    return load_network(weights).encoder


@pytest.fixture(scope="module")
def exported(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> OnnxExport:
    return export_onnx(weights, tmp_path_factory.mktemp("graphs") / "field.onnx")


@pytest.fixture
def at_once(exported: OnnxExport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the exporter: take the graphs made before. Everything around it is the real thing."""
    monkeypatch.setattr(
        export_module, "encoder_graphs", lambda _: {branch: onnx.load(path) for branch, path in exported.files.items()}
    )


def run_graph(path: Path, image: Tensor, mask: Tensor) -> list[Tensor]:
    runtime = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = runtime.run([*LEVELS, *VALID], {"image": image.numpy(), "mask": mask.numpy()})
    return [torch.from_numpy(values) for values in found]


@torch.no_grad()
def run_torch(encoder: Encoder, branch: Branch, image: Tensor, mask: Tensor) -> list[Tensor]:
    encoded = encoder(image, mask, branch)
    return [level[stride] for level in (encoded.pyramid, encoded.valid) for stride in STRIDES]


def noise(batch: int, bands: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, bands, height, width, generator=torch.Generator().manual_seed(height * width))


def whole(image: Tensor) -> Sample:
    return image, torch.ones_like(image[:, :1])


def with_holes(image: Tensor) -> Sample:
    """A black frame that turns, a lake and dead pixels; the first image of a batch stays whole."""
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in image.shape[-2:]), indexing="ij")
    mask = torch.ones_like(image[:, :1])
    mask[-1, 0][columns + 0.3 * rows < 17] = 0
    mask[-1, 0][(rows - 40) ** 2 + (columns - 50) ** 2 < 90] = 0
    mask[-1, 0][(rows * 7 + columns * 13) % 101 == 0] = 0
    return image * mask, mask


def nothing(image: Tensor) -> Sample:
    return torch.zeros_like(image), torch.zeros_like(image[:, :1])


# The long way that a graph takes


@pytest.mark.parametrize("masked", [whole, with_holes])
def test_the_way_of_a_graph_gives_what_the_short_way_gives(
    masked: Callable[[Tensor], Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, mask = masked(3.0 + noise(2, 3, 70, 90))
    if masked is with_holes:
        assert 0.05 < 1 - float(mask[-1].mean()) < 0.5
    expected = [*gradients(image, mask, 1.6), *orientation_channels(image, mask, OrientationCfg())]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = [*gradients(image, mask, 1.6), *orientation_channels(image, mask, OrientationCfg())]
    for wanted, values in zip(expected, found, strict=True):
        assert float(wanted.abs().max()) > 0.1
        torch.testing.assert_close(values, wanted, rtol=0, atol=3e-6)


def test_a_graph_is_right_for_masks_that_it_was_not_followed_with() -> None:
    """Followed with a whole image, used with holes: a choice by values would be frozen, or refused."""

    class Channels(torch.nn.Module):
        def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            return orientation_channels(image, mask, OrientationCfg(2, ((0.8, 0.8),)))

    image = noise(2, 2, 64, 80)
    program = torch.export.export(Channels(), whole(image), strict=False).module()
    given = with_holes(image)
    for wanted, values in zip(Channels()(*given), program(*given), strict=True):
        torch.testing.assert_close(values, wanted, rtol=0, atol=3e-6)


# Parity


def test_the_weights_that_ship_have_graphs() -> None:
    encoder = load_network(resolve("compact")).encoder
    for branch, graph in encoder_graphs(encoder).items():
        runtime = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        for side in (64, 97):
            image, mask = with_holes(noise(1, 3 if branch == "optical" else 1, side, side + 11))
            found = runtime.run([*LEVELS, *VALID], {"image": image.numpy(), "mask": mask.numpy()})
            for values, wanted in zip(found, run_torch(encoder, branch, image, mask), strict=True):
                torch.testing.assert_close(torch.from_numpy(values), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize(
    ("shape", "masked"),
    [
        ((1, 1, 64, 64), whole),
        ((1, 3, 128, 96), whole),
        ((2, 3, 77, 130), whole),
        ((2, 1, 80, 96), with_holes),
        ((3, 4, 101, 75), with_holes),
        ((1, 2, 95, 64), with_holes),
        ((1, 3, 66, 70), nothing),
    ],
)
def test_graphs_give_what_pytorch_gives(
    exported: OnnxExport,
    encoder: Encoder,
    branch: Branch,
    shape: tuple[int, int, int, int],
    masked: Callable[[Tensor], Sample],
) -> None:
    image, mask = masked(noise(*shape))
    found = run_graph(exported.files[branch], image, mask)
    expected = run_torch(encoder, branch, image, mask)
    for stride, values, wanted in zip(2 * STRIDES, found, expected, strict=True):
        assert values.shape[-2:] == (shape[2] // stride, shape[3] // stride)
        torch.testing.assert_close(values, wanted, rtol=0, atol=1e-4)
    if masked is not nothing:  # the tolerance means something only where features are of order 1
        assert all(0.1 < float(level.std()) < 5 for level in expected[:4])


def test_each_graph_holds_its_own_branch(exported: OnnxExport) -> None:
    given = whole(noise(1, 1, 64, 64))
    sar, optical = (run_graph(exported.files[branch], *given) for branch in BRANCHES)
    for a, b in zip(sar[:4], optical[:4], strict=True):
        assert float((a - b).abs().max()) > 0.1


def test_what_lies_behind_the_mask_and_the_order_of_bands_do_not_matter(exported: OnnxExport) -> None:
    image, mask = with_holes(noise(1, 3, 72, 90))
    first = run_graph(exported.files["optical"], image, mask)
    second = run_graph(exported.files["optical"], image.flip(1) + 50 * (1 - mask), mask)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


# What is written


def test_files_and_what_they_say_of_themselves(exported: OnnxExport, weights: Path) -> None:
    folder = exported.files["sar"].parent
    assert sorted(path.name for path in folder.iterdir()) == ["field-optical.onnx", "field-sar.onnx"]
    assert 0 < exported.difference < 1e-4
    for branch, path in exported.files.items():
        runtime = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        shapes = {value.name: value.shape for value in (*runtime.get_inputs(), *runtime.get_outputs())}
        assert shapes["image"] == ["batch", "bands", "height", "width"]
        assert shapes["mask"] == ["batch", 1, "height", "width"]
        assert [shapes[f"level_{s}"][1] for s in STRIDES] == [4, 4, 4, 8]
        facts = runtime.get_modelmeta().custom_metadata_map
        assert facts["somareg.name"] == "meadow"
        assert facts["somareg.sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
        assert facts["somareg.modality"].startswith(branch)
        assert json.loads(facts["somareg.card"]) == json.loads(weights.with_suffix(".json").read_text())
        assert ("logarithm" in facts["somareg.normalisation"]) is (branch == "sar")
        assert "S*i + (S-1)/2" in facts["somareg.half_pixel"]


def test_a_graph_says_nothing_about_the_machine_that_made_it(exported: OnnxExport) -> None:
    for path in exported.files.values():
        data = path.read_bytes()
        assert b"stack_trace" not in data
        assert str(Path(export_module.__file__).parents[3]).encode() not in data
        assert str(Path(torch.__file__).parent).encode() not in data


@pytest.mark.usefixtures("at_once")
def test_a_checkpoint_gives_the_graphs_of_its_weights(weights: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Soma(TINY)
    record = {"minutes": 1.0, "steps": 3, "device": "cpu", "seed": 7, "scores": {}, "data": []}
    content = {
        "state_dict": {f"network.{key}": tensor for key, tensor in network.state_dict().items()},
        "somareg": record | {"config": {"network": to_mapping(network.cfg)}},
    }
    torch.save(content, tmp_path / "last.ckpt")
    done = export_onnx(tmp_path / "last.ckpt", tmp_path / "new.onnx", licence="CC0-1.0")
    assert (done.card.name, done.card.licence) == ("new", "CC0-1.0")
    assert done.card.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "new-optical.onnx", "new-sar.onnx"]


@pytest.mark.usefixtures("at_once")
def test_the_command(weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["export", *(str(argument) for argument in arguments)])
        assert isinstance(end.value.code, int)
        return end.value.code, *capfd.readouterr()

    out = tmp_path / "field.onnx"
    code, text, errors = run(weights, "-o", out)
    assert (code, errors) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert rows["model"] == "meadow"
    assert rows["sar"].startswith(str(tmp_path / "field-sar.onnx"))
    assert rows["difference"].startswith("at most ")
    code, text, errors = run(weights, "-o", out)
    assert (code, text) == (1, "")
    assert "field-sar.onnx exists" in errors
    code, text, _ = run(weights, "-o", out, "--overwrite", "--json")
    document = json.loads(text)
    assert code == 0
    assert document["onnx"]["optical"]["file"] == str(tmp_path / "field-optical.onnx")
    assert document["model"]["name"] == "meadow"


# What goes wrong


def swapped(files: dict[Branch, Path]) -> dict[str, onnx.ModelProto]:
    """The optical graph in place of the SAR graph: right shapes, wrong numbers."""
    return {"sar": onnx.load(files["optical"]), "optical": onnx.load(files["optical"])}


def test_graphs_that_differ_from_pytorch_are_not_written(
    exported: OnnxExport, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "encoder_graphs", lambda _: swapped(exported.files))
    with pytest.raises(UnsupportedError, match="of the sar encoder differs from PyTorch"):
        export_onnx(weights, tmp_path / "field.onnx")
    assert list(tmp_path.iterdir()) == []


def test_not_a_number_is_a_difference() -> None:
    values = torch.ones(1, 4, 2, 2)
    assert export_module._apart(values, values) == 0
    assert export_module._apart(values, values * float("nan")) == float("inf")
    assert export_module._apart(values, values[:, :1]) == float("inf")
    assert export_module._apart(4 * values, 5 * values) == 0.25


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_the_extra_is_named_where_it_is_missing(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnsupportedError, match=rf"need {package}, .*pip install 'somareg\[onnx\]'"):
        export_onnx(weights, tmp_path / "field.onnx")
    assert list(tmp_path.iterdir()) == []


def test_other_encoders_have_no_graph() -> None:
    resnet = Encoder(EncoderCfg(backbone="resnet", resnet=ResNetCfg(18, (8, 8, 8, 8), 8), fge=None))
    with pytest.raises(UnsupportedError, match="backbone 'resnet' and coarse 'pyramid' has no ONNX graph"):
        encoder_graphs(resnet)


@pytest.mark.parametrize(
    ("out", "options", "error", "says"),
    [
        ("field.ONNX", {}, OutputError, r"must end in \.onnx"),
        ("field.onnx", {"raw": True}, ConfigError, "belong to checkpoints"),
        ("field.onnx", {"name": "other"}, ConfigError, "belong to checkpoints"),
        ("taken.onnx", {}, OutputError, "taken-optical.onnx is a folder"),
    ],
)
def test_wrong_usage_is_told_before_the_work(
    weights: Path, tmp_path: Path, out: str, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    (tmp_path / "taken-optical.onnx").mkdir()
    with pytest.raises(error, match=says):
        export_onnx(weights, tmp_path / out, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["taken-optical.onnx"]
