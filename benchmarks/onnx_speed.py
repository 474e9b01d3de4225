"""Would ONNX Runtime run the default encoder faster than PyTorch on a CPU?

    pip install onnx onnxruntime      # both come with the extra `onnx`
    python benchmarks/onnx_speed.py [--model FILE] [--sizes 256 512] [--threads 1 2] [--repeats 15]

`Soma.encode` in eval mode is exported once (any height and width, whole images without no-data) and run on one band by
both. Runs alternate and the least of `--repeats` counts, in CPU time and in wall-clock time, so that what else the
machine does matters little; with one thread read the CPU time. With `--model` the demo pair is registered too, to see
which share of the CPU time the encoder takes. `docs/onnx.md` holds what was measured.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

import somareg
from somareg.cli.sample import sample_pair
from somareg.io import read_raster
from somareg.soma.network import Soma

STRIDES = (2, 4, 8, 16)


class SarLevels(nn.Module):
    """The four maps of the SAR branch, as tensors that a graph can return."""

    def __init__(self, network: Soma) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        pyramid = self.network.encode(image, mask, "sar").pyramid
        return tuple(pyramid[stride] for stride in STRIDES)


def inputs(side: int) -> tuple[Tensor, Tensor]:
    """One band of noise and a mask without holes."""
    image = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(side))
    return image, torch.ones_like(image)


def exported(levels: SarLevels) -> bytes:
    """The ONNX graph. Tracing keeps the branch for images without no-data only."""
    names = ["image", "mask"]
    free = {name: {2: "height", 3: "width"} for name in names}
    with warnings.catch_warnings(), torch.no_grad(), TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        file = Path(folder) / "encoder.onnx"
        torch.onnx.export(
            levels, inputs(256), file, dynamo=False, opset_version=18, input_names=names, dynamic_axes=free
        )
        return file.read_bytes()


def session(graph: bytes, threads: int) -> Callable[[Tensor, Tensor], list[np.ndarray]]:
    """The graph in ONNX Runtime, all of its optimisations on."""
    import onnxruntime  # type: ignore[import-not-found,unused-ignore]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    made = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda image, mask: made.run(None, {"image": image.numpy(), "mask": mask.numpy()})


def least(calls: Sequence[Callable[[], object]], repeats: int) -> list[tuple[float, float]]:
    """Least CPU and wall-clock milliseconds of each call, taken in turns."""
    best = [(float("inf"), float("inf"))] * len(calls)
    for turn in range(repeats + 2):
        for i, call in enumerate(calls):
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            took = 1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall)
            if turn >= 2:  # the first calls plan and allocate
                best[i] = min(best[i][0], took[0]), min(best[i][1], took[1])
    return best


@torch.inference_mode()
def compare(levels: SarLevels, graph: bytes, side: int, threads: int, repeats: int) -> str:
    """One row of the table."""
    torch.set_num_threads(threads)
    runtime, given = session(graph, threads), inputs(side)
    apart = max(float(np.abs(a - b.numpy()).max()) for a, b in zip(runtime(*given), levels(*given), strict=True))
    (eager_cpu, eager_wall), (onnx_cpu, onnx_wall) = least((lambda: levels(*given), lambda: runtime(*given)), repeats)
    figures = f"{eager_cpu:.0f} / {eager_wall:.0f} | {onnx_cpu:.0f} / {onnx_wall:.0f}"
    saved = f"{1 - onnx_cpu / eager_cpu:.0%} / {1 - onnx_wall / eager_wall:.0%}"
    return f"| {side} | {threads} | {figures} | {saved} | {apart:.0e} |"


def share(model: str, side: int, repeats: int) -> str:
    """CPU time of a registration and the encoder's share, on a crop of the demo pair."""
    moving, reference = (
        read_raster(path, role=role).data[:, :side, :side]
        for path, role in zip(sample_pair(), ("moving", "reference"), strict=True)
    )
    encode, spent, calls = Soma.encode, 0.0, 0

    def timed(*arguments: object) -> object:
        nonlocal spent, calls
        begin = time.process_time()
        found = encode(*arguments)  # type: ignore[arg-type]
        spent, calls = spent + time.process_time() - begin, calls + 1
        return found

    runs = []
    with mock.patch.object(Soma, "encode", timed):
        for _ in range(1 + repeats):
            spent, calls, begin = 0.0, 0, time.process_time()
            somareg.register(moving, reference, model=model, device="cpu")
            runs.append((time.process_time() - begin, spent, calls))
    whole, inside, count = min(runs[1:])
    return f"| {side} | {1e3 * whole:.0f} | {1e3 * inside:.0f} ({count} calls) | {inside / whole:.0%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="exported weights; without them the weights are random, which takes as long")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.manual_seed(0)
    network = somareg.load_model(args.model, device="cpu") if args.model else None
    levels = SarLevels(network or Soma()).eval()
    graph = exported(levels)
    print("| side px | threads | PyTorch, CPU / wall ms | ONNX Runtime, CPU / wall ms | saved | largest difference |")
    print("|---:|---:|---:|---:|---:|---:|")
    for threads in args.threads:
        for side in args.sizes:
            print(compare(levels, graph, side, threads, args.repeats), flush=True)
    if args.model:
        torch.set_num_threads(1)
        print("\n| side px | registration, CPU ms | in the encoder | share |\n|---:|---:|---:|---:|")
        for side in args.sizes:
            print(share(args.model, side, 3), flush=True)


if __name__ == "__main__":
    main()
