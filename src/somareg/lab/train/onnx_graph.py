"""The encoder as ONNX graphs, one per modality, for images of any size and any number of bands.

PyTorch's exporter traces sizes as formulas, which the paddings and crops of a pyramid make long. So the encoder is
traced for sides that are multiples of 16, and ONNX nodes before it and behind each map do the rest: they repeat the
last row and column, cut the maps, and subtract the mean around from the cells that are left (`encoder.detail`). The
branches of the two modalities differ in their weights alone: one is traced, and the other uses the same graph.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import Tensor, nn

from somareg.errors import UnsupportedError
from somareg.soma.encoder import LEAST_SEEN, MIN_SIDE, Encoder, EncoderCfg
from somareg.soma.pyramid import STRIDES

if TYPE_CHECKING:
    import onnx

Branch = Literal["sar", "optical"]
BRANCHES: Final[tuple[Branch, ...]] = ("sar", "optical")
LEVELS: Final = tuple(f"level_{stride}" for stride in STRIDES)
VALID: Final = tuple(f"valid_{stride}" for stride in STRIDES)
INSTALL: Final = "pip install 'somareg[onnx]'"

_OPSET = 18
_MULTIPLE = STRIDES[-1]
_MOST = 2**20  # name of a symbolic size for the exporter; it does not appear in a graph
_WHOLE = "whole_"  # inputs and outputs of the encoder itself, inside padding and crop
_FOLLOWED: Branch = "sar"


def encoder_graphs(encoder: Encoder) -> dict[Branch, onnx.ModelProto]:
    """One graph per branch of an encoder, checked by ONNX's own rules.

    Inputs: `image` (B, C, H, W) and `mask` (B, 1, H, W) as for `Encoder.forward`, float32; H and W from 64 on. Outputs:
    `level_2`, `level_4`, `level_8`, `level_16`, (B, C_s, H // s, W // s), and `valid_2` ... `valid_16`,
    (B, 1, H // s, W // s). Sides below 64, which the encoder refuses, are not refused by a graph.

    Args:
        encoder: with the compact backbone and without DINOv2; it is not changed.

    Raises:
        UnsupportedError: another encoder, the extra `onnx` is not installed, or this PyTorch cannot export it.
    """
    cfg = encoder.cfg
    if cfg.backbone != "compact" or cfg.coarse != "pyramid":
        raise UnsupportedError(
            f"an encoder with backbone '{cfg.backbone}' and coarse '{cfg.coarse}' has no ONNX graph; "
            "export one with 'compact' and 'pyramid', or run it with PyTorch"
        )
    require_onnx()
    followed = _follow(encoder)
    return {name: _finished(followed, _weights(encoder, name), cfg) for name in BRANCHES}


def require_onnx() -> None:
    """Check before work starts that the extra is installed.

    Raises:
        UnsupportedError: it is not; the message names it.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UnsupportedError(f"ONNX graphs need {error.name}, which is not installed; {INSTALL}") from error


class _Maps(nn.Module):
    """One branch of the encoder that returns its maps and their validity."""

    def __init__(self, encoder: Encoder, name: Branch) -> None:
        super().__init__()
        self.name = name
        self.encoder = copy.deepcopy(encoder).cpu().float().requires_grad_(False)
        self.encoder.cfg = replace(encoder.cfg, detail=None)  # of the cut maps, see `_without_mean`
        for other in BRANCHES:
            if other != name:
                del self.encoder.branches[other]

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        encoded = self.encoder(image, mask, self.name)
        return (*(encoded.pyramid[s] for s in STRIDES), *(encoded.valid[s] for s in STRIDES))


def _prefix(name: Branch) -> str:
    return f"encoder.branches.{name}."


def _weights(encoder: Encoder, name: Branch) -> dict[str, Tensor]:
    """The weights of a branch under their names in the graph of the traced branch."""
    branch = encoder.branches[name]
    return {_prefix(_FOLLOWED) + key: tensor for key, tensor in branch.state_dict().items()}


def _follow(encoder: Encoder) -> onnx.ModelProto:
    """Trace one branch for sides that are multiples of 16."""
    dim = torch.export.Dim
    # Sizes of 0 and 1 would be taken for constants: 2 images, 3 bands.
    example = torch.zeros(2, 3, 5 * _MULTIPLE, 6 * _MULTIPLE), torch.ones(2, 1, 5 * _MULTIPLE, 6 * _MULTIPLE)
    least = MIN_SIDE // _MULTIPLE
    sides = {2: _MULTIPLE * dim("rows", min=least, max=_MOST), 3: _MULTIPLE * dim("columns", min=least, max=_MOST)}
    shared = {0: dim("batch", min=1, max=_MOST)} | sides
    maps = _Maps(encoder, _FOLLOWED).eval()
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(
                maps, example, dynamic_shapes=(shared | {1: dim("bands", min=1, max=_MOST)}, shared), strict=False
            )
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                optimize=False,  # otherwise it would fold this branch's weights into the graph
                external_data=False,
                verbose=False,
                opset_version=_OPSET,
                input_names=[_WHOLE + "image", _WHOLE + "mask"],
                output_names=[_WHOLE + output for output in LEVELS + VALID],
            )
    except Exception as error:  # the exporter can raise any exception of its parts
        first = str(error).strip().partition("\n")[0]
        raise UnsupportedError(
            f"PyTorch {torch.__version__} cannot export the encoder to ONNX ({first:.160}); "
            "use PyTorch 2.8 or later, best the versions in constraints.txt"
        ) from error
    assert exported is not None
    graph: onnx.ModelProto = exported.model_proto
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's messages about itself and about optional packages."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _finished(followed: onnx.ModelProto, weights: Mapping[str, Tensor], cfg: EncoderCfg) -> onnx.ModelProto:
    """The graph with the weights of a branch, for any size, simplified and checked."""
    import onnx
    import onnx_ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass
    from onnxscript.optimizer import fold_constants

    model = onnx.ModelProto()
    model.CopyFrom(followed)
    for tensor in model.graph.initializer:
        if tensor.name.startswith(_prefix(_FOLLOWED)) and tensor.name in weights:
            values = weights[tensor.name].detach().cpu().float().numpy()
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    _any_size(model.graph, cfg)
    intermediate = onnx_ir.from_proto(model)
    fold_constants(intermediate)
    RemoveUnusedNodesPass()(intermediate)
    finished = onnx_ir.to_proto(intermediate)
    _forget_origin(finished)
    onnx.checker.check_model(finished)
    return finished


def _any_size(graph: onnx.GraphProto, cfg: EncoderCfg) -> None:
    """Repeat the last row and column up to multiples of 16 before the encoder, and cut its maps behind it, in place."""
    from onnx import TensorProto, helper

    channels = cfg.outputs

    def constant(name: str, *values: int) -> str:
        graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    before = [
        helper.make_node("Shape", ["image"], ["size"], start=2, end=4),
        helper.make_node("Neg", ["size"], ["minus_size"]),
        helper.make_node("Mod", ["minus_size", constant("multiple", _MULTIPLE)], ["missing"]),  # as Python's -size % 16
        helper.make_node("Concat", [constant("no_padding", *[0] * 6), "missing"], ["padding"], axis=0),
    ]
    before += [helper.make_node("Pad", [name, "padding"], [_WHOLE + name], mode="edge") for name in ("image", "mask")]
    after = []
    origin, sides = constant("origin", 0, 0), constant("sides", 2, 3)
    for stride, level, valid in zip(STRIDES, LEVELS, VALID, strict=True):
        cells = f"cells_{stride}"
        after.append(helper.make_node("Div", ["size", constant(f"stride_{stride}", stride)], [cells]))
        side = None if stride == STRIDES[-1] else cfg.detail
        cut = level if side is None else f"cut_{stride}"
        slices = ((level, cut), (valid, valid))
        after += [helper.make_node("Slice", [_WHOLE + whole, origin, cells, sides], [part]) for whole, part in slices]
        if side is not None:
            after += _without_mean(graph, cut, valid, level, side)

    def value(name: str, bands: int | str, rows: str, columns: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", bands, rows, columns])

    nodes = [*before, *graph.node, *after]
    inputs = [value("image", "bands", "height", "width"), value("mask", 1, "height", "width")]
    outputs = [value(f"level_{s}", channels[s], f"height // {s}", f"width // {s}") for s in STRIDES]
    outputs += [value(f"valid_{s}", 1, f"height // {s}", f"width // {s}") for s in STRIDES]
    for field, items in (("node", nodes), ("input", inputs), ("output", outputs), ("value_info", [])):
        graph.ClearField(field)
        getattr(graph, field).extend(items)


def _without_mean(graph: onnx.GraphProto, cut: str, valid: str, level: str, side: int) -> list[onnx.NodeProto]:
    """The nodes of `encoder.detail`: from `cut` the mean over the `valid` cells of a box around, 0 where not valid."""
    from onnx import TensorProto, helper

    least = f"{level}_least"
    graph.initializer.append(helper.make_tensor(least, TensorProto.FLOAT, [], [LEAST_SEEN]))
    box: dict[str, Any] = {"kernel_shape": [side, side], "pads": [side // 2] * 4, "count_include_pad": 1}
    seen, mean, share, some, around, apart = (
        f"{level}_{word}" for word in ("seen", "mean", "share", "some", "around", "apart")
    )
    return [
        helper.make_node("Mul", [cut, valid], [seen]),
        helper.make_node("AveragePool", [seen], [mean], **box),
        helper.make_node("AveragePool", [valid], [share], **box),
        helper.make_node("Max", [share, least], [some]),
        helper.make_node("Div", [mean, some], [around]),
        helper.make_node("Sub", [cut, around], [apart]),
        helper.make_node("Mul", [apart, valid], [level]),
    ]


def _forget_origin(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes about this machine's source files, and sizes that are no longer true."""
    model.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    for item in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
