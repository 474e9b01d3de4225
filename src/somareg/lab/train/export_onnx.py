"""From a checkpoint or a file of weights to ONNX graphs of the encoder, compared with PyTorch before they are written.

somareg itself does not read them: its networks run with PyTorch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from somareg.errors import ConfigError, OutputError, UnsupportedError
from somareg.io.atomic import output_folder
from somareg.io.folders import check_folder_writable
from somareg.lab.train.export import export_checkpoint
from somareg.lab.train.onnx_graph import BRANCHES, LEVELS, VALID, Branch, encoder_graphs, require_onnx
from somareg.runtime.version import __version__
from somareg.soma.encoder import Encoder
from somareg.soma.pyramid import STRIDES
from somareg.soma.weights.card import ModelCard, read_card
from somareg.soma.weights.store import SUFFIX as WEIGHTS_SUFFIX
from somareg.soma.weights.store import embedded, load_network

if TYPE_CHECKING:
    import onnx

SUFFIX: Final = ".onnx"
TOLERANCE: Final = 1e-4  # rounding in single precision is about 1e-5

_IMAGES: dict[Branch, str] = {
    "sar": "logarithm of the intensity, clipped to its 1st and 99th percentile",
    "optical": "v = values clipped to their 1st and 99th percentile and brought to 0-1, then sqrt(v + 0.05)",
}
_USED_FOR: dict[Branch, str] = {"sar": "sar", "optical": "optical and any other modality"}


@dataclass(frozen=True)
class OnnxExport:
    """The written graphs.

    Attributes:
        files: branch -> graph.
        card: of the weights in them; its `sha256` is that of the `.safetensors` file.
        difference: largest difference between ONNX Runtime and PyTorch, in parts of each output's largest value where
            that is above 1.
    """

    files: dict[Branch, Path]
    card: ModelCard
    difference: float


def export_onnx(
    source: str | Path,
    out: str | Path,
    *,
    name: str | None = None,
    licence: str | None = None,
    raw: bool = False,
    overwrite: bool = False,
) -> OnnxExport:
    """Write the encoder of a network as ONNX graphs: `meadow.onnx` gives `meadow-sar.onnx` and `meadow-optical.onnx`.

    A checkpoint goes through `export_checkpoint` first, so that the graphs hold the same numbers, rounded to half
    precision, as the file of weights that it would write. They compute in single precision.

    Args:
        source: a checkpoint, a `.safetensors` file with its card, or the name of a model that ships with the package.
        out: ends in `.onnx`.
        name, licence, raw: as for `export_checkpoint`; for checkpoints only.
        overwrite: replace earlier graphs.

    Raises:
        UnsupportedError: the extra `onnx` is not installed, the encoder has no ONNX graph, or a graph does not give
            what PyTorch gives.
        ConfigError: an option that has no meaning for weights.
        OutputError: `out` is not named `.onnx`, the files exist, or the folder or the disk refuses.
        ReadError, WeightsError: the source, as `export_checkpoint` and `load_network`.
    """
    files = onnx_paths(Path(out))
    _check_targets(files, Path(out), overwrite)
    require_onnx()
    weights = embedded().get(str(source), Path(source))
    if weights.suffix == WEIGHTS_SUFFIX:
        if name is not None or licence is not None or raw:
            raise ConfigError(
                f"name, licence and raw belong to checkpoints, and {weights} has its card; leave them out"
            )
        card = read_card(weights)
        _check_encoder(card)
        encoder = load_network(weights).encoder
    else:
        with TemporaryDirectory() as folder:
            weights_file = Path(folder) / f"{Path(out).stem}{WEIGHTS_SUFFIX}"
            card = export_checkpoint(weights, weights_file, name=name, licence=licence, raw=raw)
            _check_encoder(card)
            encoder = load_network(weights_file).encoder
    graphs = encoder_graphs(encoder)
    for branch, graph in graphs.items():
        _describe(graph, card, branch)
    data = {branch: graph.SerializeToString(deterministic=True) for branch, graph in graphs.items()}
    difference = max(_compared(data[branch], encoder, branch) for branch in BRANCHES)
    with output_folder(Path(out).parent, overwrite=True) as folder_:
        for branch, path in files.items():
            (folder_ / path.name).write_bytes(data[branch])
    return OnnxExport(files, card, difference)


def onnx_paths(out: Path) -> dict[Branch, Path]:
    """`meadow.onnx` -> `meadow-sar.onnx`, `meadow-optical.onnx`, in the same folder."""
    return {branch: out.with_name(f"{out.stem}-{branch}{SUFFIX}") for branch in BRANCHES}


def _check_targets(files: Mapping[Branch, Path], out: Path, overwrite: bool) -> None:
    """Check before the long work that the outputs can be written."""
    if out.suffix != SUFFIX:
        raise OutputError(f"output {out} must end in {SUFFIX}; give such a name")
    for path in files.values():
        if path.is_dir():
            raise OutputError(f"output {path} is a folder; give another name")
        if path.exists() and not overwrite:
            raise OutputError(f"output {path} exists; give another name or allow replacing with --overwrite")
    check_folder_writable(out.parent)


def _check_encoder(card: ModelCard) -> None:
    """Refuse a network with DINOv2 before DINOv2 is looked for."""
    if card.dinov2_settings is not None:
        raise UnsupportedError(f"{card.name} has an encoder with DINOv2, and no ONNX graph; run it with PyTorch")


def _describe(graph: onnx.ModelProto, card: ModelCard, branch: Branch) -> None:
    """Write the source of the weights and the meaning of inputs and outputs into the graph."""
    from onnx import helper

    graph.producer_name, graph.producer_version = "somareg", __version__
    facts = {
        "name": card.name,
        "sha256": card.sha256,
        "licence": card.licence,
        "version": __version__,
        "modality": _USED_FOR[branch],
        "image": "(batch, bands, height, width) float32, both sides from 64 px on, any number and order of bands",
        "mask": "(batch, 1, height, width) float32, 1 valid, 0 not; the image must be finite there too",
        "normalisation": f"of each band {_IMAGES[branch]}; then mean 0, deviation 1 over valid pixels, 0 elsewhere",
        "outputs": "level_S: features at stride S; valid_S: 1 where most of a cell is imagery, else 0",
        "half_pixel": "an integer coordinate is a pixel's centre; cell i of stride S is centred on pixel S*i + (S-1)/2",
        "card": json.dumps(card.as_json(), allow_nan=False),
    }
    helper.set_model_props(graph, {f"somareg.{key}": text for key, text in facts.items()})


@torch.no_grad()
def _compared(data: bytes, encoder: Encoder, branch: Branch) -> float:
    """Largest difference between the graph and the encoder, for several sizes and masks.

    Raises:
        UnsupportedError: it is above `TOLERANCE`.
    """
    import onnxruntime

    runtime = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    worst = 0.0
    for image, mask in _samples():
        encoded = encoder(image, mask, branch)
        expected = [*(encoded.pyramid[s] for s in STRIDES), *(encoded.valid[s] for s in STRIDES)]
        outputs = runtime.run([*LEVELS, *VALID], {"image": image.numpy(), "mask": mask.numpy()})
        for reference, values in zip(expected, outputs, strict=True):
            worst = max(worst, _apart(reference, torch.from_numpy(values)))
    if worst > TOLERANCE:
        raise UnsupportedError(
            f"the ONNX graph of the {branch} encoder differs from PyTorch {torch.__version__} by {worst:.2g}, "
            f"more than {TOLERANCE:g}; use the versions in constraints.txt"
        )
    return worst


def _apart(expected: Tensor, actual: Tensor) -> float:
    """Largest difference, in parts of the largest value where that is above 1; infinite for other shapes and NaN."""
    if expected.shape != actual.shape or not bool(torch.isfinite(actual).all()):
        return math.inf
    return float((expected - actual).abs().max() / expected.abs().max().clamp_min(1.0))


def _samples() -> list[tuple[Tensor, Tensor]]:
    """Noise: one whole image, and two with holes whose sides are multiples of nothing."""
    generator = torch.Generator().manual_seed(0)
    whole, odd = (torch.randn(shape, generator=generator) for shape in ((1, 1, 64, 80), (2, 3, 101, 75)))
    holes = torch.ones_like(odd[:, :1])
    holes[0, :, 20:47, 31:] = 0.0
    holes[1] = (torch.rand(holes[1].shape, generator=generator) > 0.02).float()
    return [(whole, torch.ones_like(whole)), (odd * holes, holes)]
