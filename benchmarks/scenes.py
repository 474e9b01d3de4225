"""Time, memory and accuracy of whole scenes of growing size.

    python benchmarks/scenes.py --data FOLDER 3000 6000 12000 24000

A scene of N px is a mosaic of real, aligned SAR-optical patches (blended over 96 px, in both images alike), turned and
mirrored at random. The moving image is that mosaic's SAR side seen through a known affine and a known smooth warp of
3000 px wavelength, written as uint16 GeoTIFFs with georeferences that do not know of either. `register_scene` runs in
a process of its own, whose peak memory is read at its end; it includes the warp to aligned.tif. Errors are measured
against the known warp, on the whole scene and where the reference shows structure (its local contrast is not in the
lowest quarter). The patches carry a residual misregistration of 0.3 to 0.4 px of their own, which is part of the error.

Results are kept per size in benchmarks/results/scenes.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from somareg.io import read_estimate

Array = NDArray[Any]
RESULTS = Path(__file__).parent / "results" / "scenes.json"
SOURCES = (("sen12scenes", "scene_1616_0.webp"), ("sen12scenes", "scene_1569_0.webp"), ("sih", "pair1.webp"))
PATCH, BLEND, COUNT = 768, 96, 40
STEP = PATCH - BLEND
RIM = 128  # pixels of the moving image beyond the reference, each side
BLOCK = 1024
GSD = 10.0

CHILD = """
import json, resource, sys, time
start = time.perf_counter()
import somareg
result = somareg.register_scene(sys.argv[1], sys.argv[2], sys.argv[3], model=sys.argv[4])
used = resource.getrusage(resource.RUSAGE_SELF)
peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({
    "seconds": time.perf_counter() - start, "cpu_seconds": used.ru_utime + used.ru_stime,
    "peak_bytes": peak, "stages_s": dict(result.timings), "notes": result.notes,
    "tiles": len(result.tiles), "tie_points": len(result.tie_points), "verdict": result.verdict.decision,
    "probability": result.verdict.probability, "predicted_rmse_px": result.predicted_rmse_px,
    "model": result.settings["model_used"],
}))
"""


@dataclass(frozen=True)
class Truth:
    """The map from reference pixels to the pixels of the mosaic that the moving image shows there.

    Attributes:
        side: of the reference, pixels.
    """

    side: int

    def __call__(self, xy: Array) -> Array:
        x, y = (xy - self.side / 2).T
        u, v = 2 * np.pi * xy.T / 3000.0
        turn, scale = np.deg2rad(0.15), 1.0008
        dx = scale * (np.cos(turn) * x - np.sin(turn) * y) - x + 14.3
        dy = scale * (np.sin(turn) * x + np.cos(turn) * y) - y - 9.6
        bend_x = 2.0 * np.sin(u + 0.4) * np.cos(v) + 1.2 * np.sin(0.7 * v + 1.0)
        bend_y = 2.0 * np.cos(0.8 * u) * np.sin(v + 0.9) - 1.2 * np.cos(0.6 * u + v)
        return xy + np.stack([dx + bend_x, dy + bend_y], axis=-1)

    def inverse(self, xy: Array) -> Array:
        """By fixed-point iteration."""
        guess = xy.copy()
        for _ in range(12):
            guess = xy - (self(guess) - guess)
        return guess


class Mosaic:
    """An endless ground made of real patches, the same for both sensors.

    Args:
        patches: (K, 2, P, P) uint8, SAR and optical.
        seed: of the arrangement.
    """

    def __init__(self, patches: Array, seed: int = 0) -> None:
        self.patches, self.seed = patches, seed
        ramp = np.minimum(np.arange(PATCH) + 0.5, BLEND) / BLEND
        side = np.minimum(ramp, ramp[::-1]).astype(np.float32)
        self.weight = side[:, None] * side

    def read(self, x: int, y: int, width: int, height: int, sensor: int) -> Array:
        """(height, width) float32 of a rectangle; any coordinates."""
        total, weight = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
        for row in range((y - PATCH) // STEP + 1, (y + height) // STEP + 1):
            for column in range((x - PATCH) // STEP + 1, (x + width) // STEP + 1):
                left, top = column * STEP - x, row * STEP - y
                x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + PATCH, width), min(top + PATCH, height)
                if x0 >= x1 or y0 >= y1:
                    continue
                there, here = (slice(y0, y1), slice(x0, x1)), (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
                total[there] += (self._patch(row, column, sensor) * self.weight)[here]
                weight[there] += self.weight[here]
        return total / np.maximum(weight, 1e-6)

    def _patch(self, row: int, column: int, sensor: int) -> Array:
        rng = np.random.default_rng([self.seed, row + 100_000, column + 100_000])
        patch = np.rot90(self.patches[rng.integers(len(self.patches)), sensor], int(rng.integers(4)))
        return patch[:, ::-1] if rng.integers(2) else patch


def load_patches(data: Path, seed: int = 0) -> Array:
    """`COUNT` aligned patches without holes."""
    shifts = {}
    with (data / "pairs.csv").open(newline="") as stream:
        for line in csv.DictReader(stream):
            shifts[line["set"], line["name"]] = float(line["dx"] or 0), float(line["dy"] or 0)
    images = [_load_pair(data, *source, shifts[source]) for source in SOURCES]
    rng, patches = np.random.default_rng(seed), []
    areas = np.array([image[0].size for image in images], float)
    while len(patches) < COUNT:
        sar, optical, valid = images[rng.choice(len(images), p=areas / areas.sum())]
        y, x = (int(rng.integers(0, n - PATCH + 1)) for n in sar.shape)
        part = slice(y, y + PATCH), slice(x, x + PATCH)
        if valid[part].all():
            patches.append(np.stack([sar[part], optical[part]]))
    return np.stack(patches)


def _load_pair(data: Path, folder: str, name: str, shift: tuple[float, float]) -> tuple[Array, Array, Array]:
    sar, optical = (cv2.imread(str(data / folder / side / name), cv2.IMREAD_GRAYSCALE) for side in ("sar", "optical"))
    height, width = sar.shape
    move = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])
    mask = data / folder / "mask" / Path(name).with_suffix(".png").name
    valid = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) if mask.exists() else np.full(sar.shape, 255, np.uint8)
    valid = cv2.erode(np.pad(valid, 2)[1:-1, 1:-1], np.ones((5, 5), np.uint8))[1:-1, 1:-1] > 0
    return cv2.warpAffine(sar, move, (width, height), flags=cv2.INTER_CUBIC), optical, valid


def build(folder: Path, side: int, mosaic: Mosaic) -> tuple[Path, Path]:
    """Write the pair block by block: moving, reference."""
    truth, paths = Truth(side), (folder / f"sar-{side}.tif", folder / f"optical-{side}.tif")
    with _create(paths[1], side, 0) as file:
        for x, y, w, h in blocks(side):
            file.write(_stored(mosaic.read(x, y, w, h, 1), x, y), 1, window=Window(x, y, w, h))
    with _create(paths[0], side + 2 * RIM, RIM) as file:
        for x, y, w, h in blocks(side + 2 * RIM):
            columns, rows = np.meshgrid(np.arange(x, x + w) - float(RIM), np.arange(y, y + h) - float(RIM))
            where = truth.inverse(np.stack([columns.ravel(), rows.ravel()], axis=-1))
            left, top = np.floor(where.min(0)).astype(int) - 3
            right, bottom = np.ceil(where.max(0)).astype(int) + 4
            ground = mosaic.read(int(left), int(top), int(right - left), int(bottom - top), 0)
            at = (where - (left, top)).T.reshape(2, h, w).astype(np.float32)
            warped = cv2.remap(ground, at[0], at[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            file.write(_stored(warped, x, y), 1, window=Window(x, y, w, h))
    return paths


def _stored(values: Array, x: int, y: int) -> Array:
    """8-bit grey as uint16 with the steps between its values filled by noise."""
    noise = np.random.default_rng([x, y]).uniform(0, 100, values.shape)
    return np.clip(np.rint(values * 100 + noise), 1, 65535).astype(np.uint16)


def _create(path: Path, side: int, beyond: int) -> Any:
    place = Affine(GSD, 0, 400_000 - beyond * GSD, 0, -GSD, 5_200_000 + beyond * GSD)
    profile: dict[str, Any] = {"width": side, "height": side, "count": 1, "dtype": "uint16", "crs": "EPSG:32633"}
    return rasterio.open(
        path,
        "w",
        driver="GTiff",
        tiled=True,
        compress="deflate",
        zlevel=1,
        bigtiff="IF_SAFER",
        transform=place,
        **profile,
    )


def blocks(side: int) -> Iterator[tuple[int, int, int, int]]:
    for y in range(0, side, BLOCK):
        for x in range(0, side, BLOCK):
            yield x, y, min(BLOCK, side - x), min(BLOCK, side - y)


def measure(out: Path, side: int, mosaic: Mosaic) -> dict[str, float]:
    """Errors of displacement.tif against the truth, on points 32 px apart."""
    correction, truth = read_estimate(out).correction, Truth(side)
    errors, contrast = [], []
    for x, y, w, h in blocks(side):
        if w < 64 or h < 64:
            continue
        image = mosaic.read(x, y, w, h, 1)
        mean = cv2.boxFilter(image, -1, (65, 65))
        spread = np.sqrt(np.maximum(cv2.boxFilter(image * image, -1, (65, 65)) - mean**2, 0))
        rows, columns = np.mgrid[16:h:32, 16:w:32]
        points = np.stack([columns.ravel() + x, rows.ravel() + y], axis=-1).astype(float)
        errors.append(np.hypot(*(correction(points) - truth(points)).T))
        contrast.append(spread[rows.ravel(), columns.ravel()])
    error, spread = np.concatenate(errors), np.concatenate(contrast)
    told = error[spread > np.percentile(spread, 25)]
    return {
        "rmse_px": float(np.sqrt((told**2).mean())),
        "rmse_everywhere_px": float(np.sqrt((error**2).mean())),
        "ce90_px": float(np.percentile(told, 90)),
        "max_px": float(error.max()),
    }


def run(side: int, mosaic: Mosaic, folder: Path, model: str) -> dict[str, Any]:
    """Build, register in a process of its own, measure."""
    start = time.perf_counter()
    moving, reference = build(folder, side, mosaic)
    print(f"{side} px built in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    out = folder / f"out-{side}"
    shutil.rmtree(out, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(moving), str(reference), str(out), model], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    told = json.loads(done.stdout.splitlines()[-1])
    sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    return {"side_px": side, **told, **measure(out, side, mosaic), "files_bytes": sizes}


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| side | time | CPU | per Mpx | peak memory | tiles | RMSE | everywhere | CE90 | predicted | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['side_px']} px | {r['seconds']:.0f} s | {r.get('cpu_seconds', math.nan):.0f} s "
        f"| {r.get('cpu_seconds', math.nan) / (r['side_px'] ** 2 / 1e6):.2f} s "
        f"| {r['peak_bytes'] / 2**20:.0f} MiB | {r['tiles']} | {r['rmse_px']:.2f} px "
        f"| {r['rmse_everywhere_px']:.2f} px | {r['ce90_px']:.2f} px | {r['predicted_rmse_px']:.2f} px "
        f"| {r['verdict']} |"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sizes", type=int, nargs="*", default=[3000, 6000, 12000, 24000])
    parser.add_argument("--data", type=Path, required=True, help="folder with pairs.csv and the images")
    parser.add_argument("--work", type=Path, help="where scenes are built (about 15 bytes per pixel); kept when given")
    parser.add_argument("--model", default="auto")
    args = parser.parse_args()
    mosaic = Mosaic(load_patches(args.data))
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for side in args.sizes:
            row = run(side, mosaic, folder, args.model)
            row["threads"] = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
            row["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
            kept = [r for r in record["rows"] if r["side_px"] != side]
            record["rows"] = sorted([*kept, row], key=lambda r: r["side_px"])
            RESULTS.write_text(json.dumps(record, indent=1) + "\n")
            print(table(record["rows"]), flush=True)


if __name__ == "__main__":
    main()
