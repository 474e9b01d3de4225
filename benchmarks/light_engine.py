"""What would an engine of ONNX Runtime, NumPy and OpenCV, without PyTorch, give and take? A prototype of one step.

    python benchmarks/light_engine.py make --out FOLDER [--model compact] [--sizes 160 256 512]
    LIGHT/bin/python benchmarks/light_engine.py run --from FOLDER [--repeats 9]
    python benchmarks/light_engine.py lines

`make` needs somareg with the extra `onnx`: it writes the encoder's graphs, crops of the demo pair normalised as the
engine takes them, and what PyTorch makes of them in one refinement step (features of both images at stride 2, all
windows of GLAM's first stage correlated, each window's peak between cells), with its CPU time. Graphs
that FOLDER holds are taken as they are; sides are multiples of 16. `run` needs NumPy and ONNX Runtime alone and imports
nothing of somareg: an environment LIGHT of `pip install numpy onnxruntime opencv-python-headless rasterio` tells what
it would be like. It does the same step and prints differences and CPU times, one thread each. `lines` counts what names
PyTorch, by room: what a second engine would have to write again.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
ROOT = Path(__file__).resolve().parents[1]
STRIDE, SIDE, MARGIN, STEP = 2, 28, 5, 8  # of GLAM's first stage in the weights that ship
BLOCK = 16  # of matching.bands
ROLES = {"moving": "sar", "reference": "optical"}


def least(work: Callable[[], Any], repeats: int) -> float:
    """Least CPU milliseconds."""
    best = float("inf")
    for _ in range(repeats + 1):
        begin = time.process_time()
        work()
        best = min(best, 1e3 * (time.process_time() - begin))
    return best


def peaks(surfaces: Array) -> Array:
    """(N, n, n) -> (N, 2) displacement (dx, dy) of the highest value in cells, by parabolas through its neighbours."""
    n = surfaces.shape[-1]
    inner = surfaces[:, 1:-1, 1:-1].reshape(len(surfaces), -1).argmax(1)
    j, i = inner // (n - 2) + 1, inner % (n - 2) + 1
    at = np.arange(len(surfaces))
    found = []
    for before, after in (
        (surfaces[at, j, i - 1], surfaces[at, j, i + 1]),
        (surfaces[at, j - 1, i], surfaces[at, j + 1, i]),
    ):
        bend = before - 2 * surfaces[at, j, i] + after
        found.append(np.where(bend < 0, (before - after) / (2 * np.minimum(bend, -1e-12)), 0.0))
    return np.stack([i + found[0], j + found[1]], axis=-1) - n // 2


def correlate(reference: Array, moving: Array) -> Array:
    """`matching.correlation` for images without holes: (K, h, w), (K, h + 2m, w + 2m) -> (N, n, n)."""
    reference = reference - reference.mean((1, 2), keepdims=True)
    moving = moving - moving.mean((1, 2), keepdims=True)
    covariance = band_sums(reference, moving)
    starts = np.arange(0, reference.shape[1] - SIDE + 1, STEP)
    own = box_sums(np.square(reference).sum(0), SIDE)[np.ix_(starts, starts)].reshape(-1, 1, 1)
    n = 2 * MARGIN + 1
    boxes = np.lib.stride_tricks.sliding_window_view(box_sums(np.square(moving).sum(0), SIDE), (n, n))
    norm = np.sqrt(np.maximum(own * boxes[np.ix_(starts, starts)].reshape(-1, n, n), 1e-12))
    return np.asarray(covariance / (norm + 1e-3 * norm.mean() + 1e-9))


def box_sums(values: Array, side: int) -> Array:
    """Sums of (h, w) over all squares, (h - side + 1, w - side + 1)."""
    total = np.pad(values.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return np.asarray(total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side])


def band_sums(reference: Array, moving: Array) -> Array:
    """`matching.bands.band_sums` word for word, of one pair."""
    channels, height, width = reference.shape
    tall, wide = moving.shape[1:]
    n, reach = 2 * MARGIN + 1, BLOCK + 2 * MARGIN
    blocks = -(-wide // BLOCK)
    cells = np.zeros((height, channels, blocks * BLOCK), np.float32)
    cells[..., :width] = reference.transpose(1, 0, 2)
    area = np.zeros((tall, channels, blocks * BLOCK + 2 * MARGIN), np.float32)
    area[..., :wide] = moving.transpose(1, 0, 2)
    left = cells.reshape(height * channels, blocks, BLOCK).transpose(1, 2, 0)
    views = np.lib.stride_tricks.sliding_window_view(area.reshape(tall * channels, -1), reach, axis=1)
    right = views[:, ::BLOCK].transpose(1, 0, 2)
    starts = np.arange(0, height - SIDE + 1, STEP)
    over_columns = ((np.arange(width) >= starts[:, None]) & (np.arange(width) < starts[:, None] + SIDE)).astype(
        np.float32
    )
    product = np.empty((n, blocks, BLOCK, reach), np.float32)
    sums = np.empty((len(starts), len(starts), n, n), np.float32)
    for row, first in enumerate(starts):
        window = left[..., first * channels : (first + SIDE) * channels]
        for j in range(n):
            np.matmul(window, right[:, (first + j) * channels : (first + j + SIDE) * channels], out=product[j])
        steps = (*product.strides[:2], product.strides[2] + product.strides[3], product.strides[3])
        diagonals = np.lib.stride_tricks.as_strided(product, (n, blocks, BLOCK, n), steps)
        sums[row] = (over_columns @ diagonals.reshape(n, blocks * BLOCK, n)[:, :width]).transpose(1, 0, 2)
    return sums.reshape(-1, n, n)


def make(folder: Path, model: str, sizes: list[int], repeats: int) -> None:
    """Graphs, images and what PyTorch makes of them."""
    import torch

    import somareg
    from somareg.cli.sample import sample_pair
    from somareg.io import read_raster
    from somareg.lab.train.onnx_graph import encoder_graphs
    from somareg.matching.correlation import correlate_grid
    from somareg.matching.layout import WindowGrid
    from somareg.preprocess.normalise import normalise

    folder.mkdir(parents=True, exist_ok=True)
    network = somareg.load_model(model, device="cpu")
    assert network is not None
    first = network.cfg.glam.stages[0]
    assert (first.stride, first.window.size, first.window.margin, first.window.stride) == (STRIDE, SIDE, MARGIN, STEP)
    torch.set_num_threads(1)
    graphs = {branch: folder / f"encoder-{branch}.onnx" for branch in ROLES.values()}
    if not all(file.is_file() for file in graphs.values()):
        for branch, graph in encoder_graphs(network.encoder).items():
            graphs[branch].write_bytes(graph.SerializeToString())
    told: dict[str, Any] = {}
    for side in sizes:
        images = {}
        for role, path in zip(ROLES, sample_pair(), strict=True):
            raster = read_raster(path, role=role)
            part = slice(40, 40 + side)
            data, mask = raster.data[:, part, part], raster.mask[part, part]
            images[role] = normalise(data, mask, ROLES[role], "auto")[0][None]  # type: ignore[arg-type]
        tensors = {role: torch.from_numpy(image) for role, image in images.items()}
        whole = torch.ones(1, 1, side, side)

        def encode(role: str) -> torch.Tensor:
            found = network.encode(tensors[role], whole, ROLES[role], (STRIDE,))  # noqa: B023
            return found.pyramid[STRIDE].float()

        with torch.inference_mode():
            features = {role: encode(role) for role in ROLES}
            near = slice(MARGIN, -MARGIN)
            reference, moving = features["reference"][..., near, near], features["moving"]
            valid = [torch.ones_like(each[:, :1]) for each in (reference, moving)]
            starts = tuple(range(0, reference.shape[-1] - SIDE + 1, STEP))
            grid = WindowGrid(starts, starts, (SIDE, SIDE), MARGIN)

            def match() -> torch.Tensor:
                return correlate_grid(reference, valid[0], moving, valid[1], grid)[0]  # noqa: B023

            surfaces = match()[0].numpy()
            cpu = {
                "encode": least(lambda: [encode(role) for role in ROLES], repeats),
                "correlate": least(match, repeats),
                "peaks": least(lambda: peaks(surfaces), repeats),  # noqa: B023
            }
        kept = {f"features_{role}": each[0].numpy() for role, each in features.items()}
        np.savez(folder / f"step-{side}.npz", surfaces=surfaces, peaks=peaks(surfaces), **images, **kept)
        told[str(side)] = cpu
    (folder / "torch.json").write_text(json.dumps(told, indent=1) + "\n")


def run(folder: Path, repeats: int) -> None:
    """The same step without PyTorch."""
    begin = time.process_time()
    import onnxruntime  # type: ignore[import-not-found,unused-ignore]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = {
        role: onnxruntime.InferenceSession(str(folder / f"encoder-{branch}.onnx"), options)
        for role, branch in ROLES.items()
    }
    print(f"import of ONNX Runtime and both graphs: {time.process_time() - begin:.2f} CPU s\n")
    print(
        "| px | windows | features apart | peaks apart px, median / 99 % / most | encode ms | correlate ms | step ms |"
    )
    print("|---:|---:|---:|---|---:|---:|---:|")
    for side, cpu in json.loads((folder / "torch.json").read_text()).items():
        known = np.load(folder / f"step-{side}.npz")
        mask = np.ones((1, 1, int(side), int(side)), np.float32)
        images = {role: known[role] for role in ROLES}

        def encode(role: str) -> Array:
            given = {"image": images[role], "mask": mask}  # noqa: B023
            return np.asarray(sessions[role].run([f"level_{STRIDE}"], given)[0][0])

        features = {role: encode(role) for role in ROLES}
        near = slice(MARGIN, -MARGIN)
        reference, moving = features["reference"][:, near, near], features["moving"]
        apart = max(float(np.abs(features[role] - known[f"features_{role}"]).max()) for role in ROLES)
        surfaces = correlate(reference, moving)
        px = STRIDE * np.hypot(*(peaks(surfaces) - known["peaks"]).T)
        ours = {
            "encode": least(lambda: [encode(role) for role in ROLES], repeats),
            "correlate": least(lambda: correlate(reference, moving), repeats),  # noqa: B023
            "peaks": least(lambda: peaks(surfaces), repeats),  # noqa: B023
        }
        figures = [f"{cpu[what]:.0f} -> {ours[what]:.0f}" for what in ("encode", "correlate")]
        figures.append(f"{sum(cpu.values()):.0f} -> {sum(ours.values()):.0f}")
        far = f"{np.median(px):.1e} / {np.percentile(px, 99):.1e} / {px.max():.1e}"
        print(f"| {side} | {len(px)} | {apart:.0e} | {far} | {' | '.join(figures)} |", flush=True)


def lines() -> None:
    """Modules and lines that name PyTorch, by room."""
    print("| room | modules | lines | with torch | their lines | lines that name it |\n|---|---:|---:|---:|---:|---:|")
    naming = re.compile(r"torch\.|\bTensor\b|\bF\.|\bnn\.")
    for room in sorted(path for path in (ROOT / "src" / "somareg").iterdir() if path.is_dir()):
        texts = [path.read_text(encoding="utf-8") for path in room.rglob("*.py")]
        with_torch = [text for text in texts if re.search(r"^\s*(import|from) torch\b", text, re.M)]
        count = [len(text.splitlines()) for text in with_torch]
        named = sum(bool(naming.search(line)) for text in with_torch for line in text.splitlines())
        if texts:
            whole = sum(len(text.splitlines()) for text in texts)
            print(f"| {room.name} | {len(texts)} | {whole} | {len(with_torch)} | {sum(count)} | {named} |")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "run", "lines"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--from", dest="source", type=Path)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--sizes", type=int, nargs="+", default=[160, 256, 512])
    parser.add_argument("--repeats", type=int, default=9)
    asked = parser.parse_args()
    if asked.what == "lines":
        lines()
    elif asked.what == "make":
        make(asked.out or parser.error("make needs --out"), asked.model, asked.sizes, asked.repeats)
    else:
        run(asked.source or parser.error("run needs --from"), asked.repeats)


if __name__ == "__main__":
    main()
