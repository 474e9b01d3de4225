"""Speed of `somareg.warp`: megapixels per second, wall and CPU, in memory and into a file.

    python benchmarks/warp_speed.py [--side 4096] [--repeat 3]

The raster is smooth noise with grain, so that it compresses like an image; it is warped by an affine of a small turn
and scale, alone and with a displacement of 3 px. One line per kind of pixels, number of bands and map; the best of the
repetitions counts, since a busy machine only ever slows down. Results are printed as JSON lines.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from affine import Affine

import somareg
from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.types import Estimate, Grid

KINDS = (("uint8", 1), ("uint16", 1), ("float32", 1), ("uint8", 4), ("uint16", 4), ("float32", 4))
PLACE = (10.0, 0.0, 400_000.0, 0.0, -10.0, 5_200_000.0)


def picture(side: int, bands: int, dtype: str) -> Any:
    rng = np.random.default_rng(0)
    small = rng.normal(size=(side // 8, side // 8)).astype(np.float32)
    large = cv2.resize(cv2.GaussianBlur(small, (0, 0), 2), (side, side), interpolation=cv2.INTER_CUBIC)
    grain = rng.normal(0, 4, (bands, side, side)).astype(np.float32)  # each band has its own
    scale, top = (1, 250) if dtype == "uint8" else (100, 60_000)
    image = np.clip(scale * (120 + 200 * large + grain), 1, top)
    return (image if dtype == "float32" else np.rint(image)).astype(dtype)


def estimate_of(side: int, *, bent: bool) -> Estimate:
    grid = Grid(side, side, crs="EPSG:32633", transform=PLACE)
    affine = AffineTransform.from_parameters(shift=(6.3, -4.8), rotation_deg=0.15, scale=1.0008)
    correction: Any = affine
    if bent:
        rows, columns = np.mgrid[0 : side + 16 : 16, 0 : side + 16 : 16]
        field = np.stack([3 * np.sin(columns / 300) * np.cos(rows / 400), 2 * np.cos(columns / 350 + rows / 500)])
        correction = compose(affine, FieldTransform(field.astype(float), (7.5, 7.5), (16.0, 16.0)))
    return Estimate(correction, grid, grid)


def used() -> float:
    """CPU seconds of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measured(work: Callable[[], Any], megapixels: float, repeat: int) -> dict[str, float]:
    wall, cpu = [], []
    for _ in range(repeat):
        start, before = time.perf_counter(), used()
        work()
        wall.append(time.perf_counter() - start)
        cpu.append(used() - before)
    return {"mpx_per_s": round(megapixels / min(wall), 1), "mpx_per_cpu_s": round(megapixels / min(cpu), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--kernel", default="cubic", choices=("nearest", "bilinear", "cubic"))
    parser.add_argument("--kinds", nargs="*", default=[f"{dtype}x{bands}" for dtype, bands in KINDS])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for kind in args.kinds:
            dtype, bands = kind.split("x")
            path, out = Path(temporary) / "in.tif", Path(temporary) / "out.tif"
            profile: dict[str, Any] = {"count": int(bands), "dtype": dtype, "crs": "EPSG:32633", "nodata": 0}
            profile |= {"width": args.side, "height": args.side, "transform": Affine(*PLACE), "tiled": True}
            with rasterio.open(path, "w", driver="GTiff", **profile) as file:
                file.write(picture(args.side, int(bands), dtype))
            for bent in (False, True):
                estimate, options = estimate_of(args.side, bent=bent), {"resampling": args.kernel}
                megapixels = args.side**2 * int(bands) / 1e6

                def in_memory(estimate: Estimate = estimate, path: Path = path, options: Any = options) -> None:
                    somareg.warp(path, estimate, **options)

                def into_file(
                    estimate: Estimate = estimate, path: Path = path, out: Path = out, options: Any = options
                ) -> None:
                    somareg.warp(path, estimate, out, overwrite=True, **options)

                print(
                    json.dumps(
                        {
                            "kind": kind,
                            "map": "field" if bent else "affine",
                            "memory": measured(in_memory, megapixels, args.repeat),
                            "file": measured(into_file, megapixels, args.repeat),
                            "file_bytes": out.stat().st_size,
                        }
                    ),
                    flush=True,
                )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"peak_mib": peak}))


if __name__ == "__main__":
    main()
