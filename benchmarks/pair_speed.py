"""What does a pair cost, in CPU seconds of one thread, beside what it cost at another commit?

    python benchmarks/pair_speed.py [--before COMMIT] [--rounds 5] [--sizes 512 256] [--json FILE]

Rows, on crops of the Sentinel-1 / Sentinel-2 pair that ships with somareg: `base`, arrays without a georeference,
rotated and shifted, `relief`, the same as the sample is, with a smooth displacement of some pixels (elsewhere it is
taken out first); `fast`, `base` with that preset; `placed`, GeoTIFFs whose georeference is off by some pixels;
`command`, `somareg register` on these files with everything that it writes, the start of Python included.

The commits take turns, each in a process of its own, and the least of the rounds is told: a computer that does
something else in between only makes a round longer. `apart` is the RMS distance between the maps of the two commits:
how accurate they are is for `somareg eval` to say.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MOVE = {"rotation_deg": 1.5, "scale": 1.02, "shift": (9.0, -7.0)}
OFF_PX = (4.0, 3.0)

CHILD = """
import json, os, resource, sys, time
from pathlib import Path
import numpy as np, rasterio, torch
from affine import Affine
torch.set_num_threads(1)
import somareg
from somareg.geometry import AffineTransform
from somareg.geometry.lattice import pixel_centres
from somareg.geometry.resample import resample

side, move, off, folder = int(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3]), Path(sys.argv[4])
demo = Path(somareg.__file__).parent / "data" / "demo"
with rasterio.open(demo / "optical.tif") as optical, rasterio.open(demo / "sar.tif") as sar:
    whole, radar, place, crs = optical.read(), sar.read(), optical.transform, optical.crs
first = (whole.shape[-1] - side) // 2
window = slice(first, first + side)
reference, given = whole[:, window, window], radar[:, window, window]
# The sample as it is has relief of some pixels, which takes longer to follow; without it most pairs are affine.
every = pixel_centres(0, 0, *whole.shape[:0:-1])
flat = somareg.register(radar, whole).transform(every).reshape(*whole.shape[1:], 2)
radar, _ = resample(radar, np.ones(radar.shape[1:], bool), flat, kernel="cubic")
aligned = radar[:, window, window]
middle = (side - 1) / 2
move = AffineTransform.from_parameters(centre=(middle, middle), **move)
points = pixel_centres(0, 0, side, side)
back = (move.inverse(points) + first).reshape(side, side, 2)
moved, seen = resample(radar, np.ones(radar.shape[1:], bool), back, kernel="cubic")

here = place * Affine.translation(first, first)
there = here * Affine.translation(*off)
profile = dict(driver="GTiff", width=side, height=side, dtype="uint8", crs=crs)
for name, data, transform in (("reference", reference, here), ("moving", aligned, there)):
    with rasterio.open(folder / f"{name}.tif", "w", count=len(data), transform=transform, **profile) as file:
        file.write(data)

def cpu(work):
    start = time.process_time()
    result = work()
    return time.process_time() - start, result

rows = {}
for name, work in (
    ("base", lambda: somareg.register(moved, reference)),
    ("fast", lambda: somareg.register(moved, reference, preset="fast")),
    ("relief", lambda: somareg.register(given, reference)),
    ("placed", lambda: somareg.register(folder / "moving.tif", folder / "reference.tif")),
):
    work()
    seconds, results = zip(*(cpu(work) for _ in range(3)))
    rows[name] = {"cpu_s": min(seconds), "where": results[0].transform(points[::997]).tolist()}
print(json.dumps(rows))
"""


def run_child(checkout: Path, side: int, folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of one checkout at one size."""
    told = _run([sys.executable, "-c", CHILD, str(side), json.dumps(MOVE), json.dumps(OFF_PX), str(folder)], checkout)
    rows: dict[str, dict[str, Any]] = json.loads(told.splitlines()[-1])
    out = folder / "out"
    command = ["-m", "somareg", "register", str(folder / "moving.tif"), str(folder / "reference.tif"), "-o", str(out)]
    before = _children_s()
    _run([sys.executable, *command, "--overwrite"], checkout)
    rows["command"] = {"cpu_s": _children_s() - before, "where": rows["placed"]["where"]}
    return rows


def _run(command: Sequence[str], checkout: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{checkout.name}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def _children_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def measure(checkouts: dict[str, Path], sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """checkout -> "row size" -> least CPU seconds, and where sample points go; the checkouts take turns."""
    best: dict[str, Any] = {name: {} for name in checkouts}
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(rounds):
            for side in sizes:
                for name, checkout in checkouts.items():
                    for row, figures in run_child(checkout, side, Path(scratch)).items():
                        kept = best[name].setdefault(f"{row} {side}", figures)
                        kept["cpu_s"] = min(kept["cpu_s"], figures["cpu_s"])
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="commit to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 256], help="sides of the crops, up to 672 px")
    parser.add_argument("--json", type=Path, help="file that the figures are written to")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        checkouts = {"now": ROOT}
        if asked.before:
            old = Path(scratch) / "before"
            subprocess.run(["git", "-C", ROOT, "worktree", "add", "-q", "--detach", old, asked.before], check=True)
            checkouts = {"before": old, **checkouts}
        try:
            best = measure(checkouts, asked.sizes, asked.rounds)
        finally:
            if asked.before:
                subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", old], check=True)
    for row, now in best["now"].items():
        line = f"{row:14} {now['cpu_s']:6.3f} s"
        if then := best.get("before", {}).get(row):
            apart = sum(math.dist(a, b) ** 2 for a, b in zip(now["where"], then["where"], strict=True))
            apart = (apart / len(now["where"])) ** 0.5
            ratio = now["cpu_s"] / then["cpu_s"]
            line += f"   before {then['cpu_s']:6.3f} s   ratio {ratio:.2f}   apart {apart:.2f} px"
        print(line)
    if asked.json:
        told = {name: {row: figures["cpu_s"] for row, figures in rows.items()} for name, rows in best.items()}
        asked.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
