"""How many pairs a second does this machine register?

    python benchmarks/throughput.py [--model compact] [--device auto] [--sizes 160 256 512] [--seconds 10] [--json FILE]

Four ways are timed on synthetic SAR-optical pairs whose truth is known, each for `--seconds`, after one round that is
not counted: `register`, arrays in and a result out, as the Python call does it; `register_many`, whose pairs share
calls of the network; the engine alone (search, affine, local flow, evidence); and `Soma.forward` in batches, the
network alone, which is what training and validation run. A machine without rasterio has no `register`; its row says so.
`right` is the share of the pairs that end within 3 px.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from somareg.geometry import AffineTransform, compose  # noqa: E402 - the path comes first: not all machines install
from somareg.lab.data.standardise import standardise  # noqa: E402
from somareg.lab.data.synthetic.generator import SyntheticSource  # noqa: E402
from somareg.matching.engine import preset  # noqa: E402
from somareg.matching.pair import Pair  # noqa: E402
from somareg.soma.align import align  # noqa: E402
from somareg.soma.network import Soma  # noqa: E402
from somareg.soma.weights import load_network, resolve  # noqa: E402

DIFFERENT = 8  # pairs of each size
SHIFT = (5, -3)  # (dx, dy): where reference pixels lie in the moving image, minus their own place
BATCHES = (1, 8, 32, 128)
RIGHT_PX = 3.0


class Pairs:
    """`DIFFERENT` pairs of one size: grey values, tensors on the device, and their truth."""

    def __init__(self, side: int, device: torch.device) -> None:
        margin = 2 * max(map(abs, SHIFT))
        scenes = SyntheticSource().scenes(DIFFERENT, side + margin, torch.Generator().manual_seed(side), "cpu")
        half = margin // 2
        x, y = half - SHIFT[0], half - SHIFT[1]
        self.side = side
        self.moving = scenes.sar[:, y : y + side, x : x + side].contiguous()
        self.reference = scenes.optical[:, :, half : half + side, half : half + side].contiguous()
        self.mask = torch.ones(DIFFERENT, 1, side, side, device=device)
        self.seen_moving = standardise(self.moving[:, None].float().to(device), self.mask, "sar")
        self.seen_reference = standardise(self.reference.float().to(device), self.mask, "optical")

    def one(self, i: int) -> Pair:
        """Pair `i` as the engine takes it."""
        row = slice(i, i + 1)
        parts = self.seen_reference[row], self.mask[row], self.seen_moving[row], self.mask[row]
        return Pair(*parts, ("optical", "sar"))

    def error(self, displacement: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> float:
        """RMS error in pixels over the reference of a map of points (N, 2)."""
        line = np.linspace(0, self.side - 1, 9)
        points = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
        return float(np.sqrt(np.square(displacement(points) - points - np.array(SHIFT)).sum(1).mean()))


Round = Callable[[], list[float]]
"""One call of what is timed; gives the error in pixels of every pair of it."""


def registering(pairs: Pairs, device: torch.device, model: str) -> Round:
    import somareg

    turns = _turns()

    def work() -> list[float]:
        i = next(turns)
        moving, reference = pairs.moving[i].numpy(), pairs.reference[i].numpy()
        result = somareg.register(moving, reference, model=model, device=str(device))
        return [pairs.error(result.transform)]

    return work


def many(pairs: Pairs, device: torch.device, model: str) -> Round:
    import somareg

    images = list(zip(pairs.moving.numpy(), pairs.reference.numpy(), strict=True))

    def work() -> list[float]:
        results = somareg.register_many(images, together=DIFFERENT, model=model, device=str(device))
        return [pairs.error(result.transform) for result in results]

    return work


def engine(pairs: Pairs, network: Soma) -> Round:
    settings, turns = preset("base"), _turns()

    def work() -> list[float]:
        found = align(pairs.one(next(turns)), (AffineTransform.identity(),), settings, network=network)
        whole = found.affine if found.flow is None else compose(found.affine, found.flow.field)
        return [float("inf") if found.failure else pairs.error(whole)]

    return work


def batched(pairs: Pairs, network: Soma, batch: int) -> Round:
    rows = torch.arange(batch, device=pairs.mask.device) % DIFFERENT
    images = [each[rows] for each in (pairs.seen_reference, pairs.mask, pairs.seen_moving, pairs.mask)]

    @torch.inference_mode()
    def work() -> list[float]:
        affine: Tensor = network(*images, ("optical", "sar")).affine
        return [pairs.error(AffineTransform(matrix)) for matrix in affine.cpu().double().numpy()]

    return work


def _turns() -> Iterator[int]:
    while True:
        yield from range(DIFFERENT)


def measure(work: Round, seconds: float) -> dict[str, float]:
    """Pairs per second of wall clock, CPU seconds per pair, and the share of pairs that end right."""
    work()
    errors: list[float] = []
    started, used = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        errors += work()  # reads its result: the device has finished
    wall, cpu = time.perf_counter() - started, time.process_time() - used
    right = sum(error <= RIGHT_PX for error in errors) / len(errors)
    return {"pairs_per_second": len(errors) / wall, "cpu_seconds": cpu / len(errors), "right": right}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Pairs per second of this machine.")
    parser.add_argument("--model", default="compact", help="compact, or a .safetensors file with its card")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--sizes", type=int, nargs="+", default=[160, 256, 512])
    parser.add_argument("--seconds", type=float, default=10.0, help="per row")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    asked = parser.parse_args(arguments)
    name = "cuda" if asked.device == "auto" and torch.cuda.is_available() else asked.device.replace("auto", "cpu")
    device = torch.device(name)
    network = load_network(resolve(asked.model), device)
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{hardware}, torch {torch.__version__}, {asked.model}")
    print(f"{'px':>5}  {'way':<24} {'pairs/s':>9} {'CPU s/pair':>11} {'right':>6}", flush=True)
    rows = []
    for side in asked.sizes:
        pairs = Pairs(side, device)
        ways: list[tuple[str, Callable[[], Round]]] = [
            ("register", lambda p=pairs: registering(p, device, asked.model)),  # type: ignore[misc]
            (f"register_many, {DIFFERENT} at once", lambda p=pairs: many(p, device, asked.model)),  # type: ignore[misc]
            ("engine", lambda p=pairs: engine(p, network)),  # type: ignore[misc]
        ]
        ways += [
            (f"Soma.forward, {batch} at once", lambda p=pairs, b=batch: batched(p, network, b))  # type: ignore[misc]
            for batch in (BATCHES if device.type == "cuda" else BATCHES[:2])
        ]
        for way, make in ways:
            try:
                row = measure(make(), asked.seconds)
            except ModuleNotFoundError as error:
                print(f"{side:>5}  {way:<24} not measured: {error}", flush=True)
                continue
            rows.append({"px": side, "way": way, **{key: round(value, 4) for key, value in row.items()}})
            figures = f"{row['pairs_per_second']:>9.2f} {row['cpu_seconds']:>11.3f} {row['right']:>6.0%}"
            print(f"{side:>5}  {way:<24} {figures}", flush=True)
    if asked.json:
        record = {"hardware": hardware, "torch": torch.__version__, "model": asked.model, "rows": rows}
        asked.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
