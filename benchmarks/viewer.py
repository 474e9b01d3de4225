"""How quick the viewer feels on a large scene: time of a tile, from request to the last byte, after warm-up.

Makes a pair of 12 000 x 12 000 px uint16 COGs, the moving one in another CRS, and a result folder for them, serves it
and asks for tiles of every image, layer and edges at every zoom level, each once, one by one (what a map in view waits
for) and then twelve at a time (what a browser does). On a busy machine look at the processor time per tile too: it
counts client and server and no waiting for others. The pixels are cheap to make and dear to read: noise over fields, so
that nothing compresses away.

    python benchmarks/viewer.py [--size 12000] [--work FOLDER] [--out benchmarks/results/viewer.json]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import resource
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from somareg.geometry import AffineTransform, FieldTransform, compose
from somareg.geometry.lattice import pixel_centres
from somareg.io.displacement import coarser_grid, write_displacement
from somareg.io.source import Block
from somareg.io.writer import GeotiffSpec, write_geotiff_blocks
from somareg.report.record import Report
from somareg.tiepoints.formats import write_tie_points
from somareg.types import Displacement, Estimate, Grid, TiePoints
from somareg.view import Scene, Server, find_folder

STEP = 16  # reference pixels per node, as register_scene writes
LIMIT_MS = 150.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=12_000)
    parser.add_argument("--tiles", type=int, default=12, help="per image and level")
    parser.add_argument("--work", type=Path, help="folder to keep the scene in")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        folder = work / f"result-{asked.size}"
        if not (folder / "report.json").exists():
            make_scene(folder, asked.size)
        record = measure(folder, asked.tiles)
    print(json.dumps(record, indent=2))
    if asked.out:
        asked.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def measure(folder: Path, tiles: int) -> dict[str, Any]:
    started = time.perf_counter()
    with Scene(find_folder(folder)) as scene, Server(scene) as server:
        opened = time.perf_counter() - started
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            started = time.perf_counter()
            scene.warm_up()
            warm = time.perf_counter() - started
            fetch = fetcher(server)
            for name in scene.layers:
                fetch(f"tiles/{name}/0/0/0.png")
            alone: dict[str, dict[str, list[float]]] = {
                name: {} for name in (*scene.images, *scene.layers, *scene.edges)
            }
            together: list[float] = []
            cpu: list[float] = []
            for name, level, addresses in plan(scene, tiles):
                half = len(addresses) // 2 or 1
                spent = time.process_time()
                times = [fetch(address) for address in addresses[:half]]
                cpu += [1000 * (time.process_time() - spent) / len(times)] * len(times)
                alone[name][f"1/{scene.pyramid.steps[level]}"] = times
                with ThreadPoolExecutor(12) as pool:
                    together += pool.map(fetch, addresses[half:])
            other = {
                "arrows": fetch(f"arrows.json?bounds=0,0,{scene.pyramid.width},{scene.pyramid.height}&spacing=600"),
                "points": fetch(f"points.json?bounds=0,0,{scene.pyramid.width},{scene.pyramid.height}"),
            }
        finally:
            server.stop()
            thread.join()
    every = [t for levels in alone.values() for times in levels.values() for t in times]
    return {
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "scene_px": scene.pyramid.width,
        "open_s": round(opened, 2),
        "warm_up_s": round(warm, 2),
        "tiles": len(every) + len(together),
        "tile_ms": figures(every),
        "tile_cpu_ms": figures(cpu),
        "tile_ms_twelve_at_a_time": figures(together),
        "tile_ms_by_image": {
            name: figures([t for ts in levels.values() for t in ts]) for name, levels in alone.items()
        },
        "tile_median_ms_by_zoom": {
            name: {zoom: round(statistics.median(ts), 1) for zoom, ts in levels.items()}
            for name, levels in alone.items()
        },
        "other_ms": {name: round(value, 1) for name, value in other.items()},
        "share_below_150_ms": round(float(np.mean(np.array(every) < LIMIT_MS)), 4),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def figures(times: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(times, [50, 95])
    return {"median": round(float(p50), 1), "p95": round(float(p95), 1), "worst": round(max(times), 1)}


def plan(scene: Scene, count: int) -> Iterator[tuple[str, int, list[str]]]:
    """Addresses of `count` tiles per image and level, spread over the scene, the same for every run."""
    rng = np.random.default_rng(0)
    for level, step in enumerate(scene.pyramid.steps):
        across = -(-scene.pyramid.width // (256 * step)), -(-scene.pyramid.height // (256 * step))
        places = [(x, y) for x in range(across[0]) for y in range(across[1])]
        chosen = rng.permutation(len(places))[:count]
        for name in (*scene.images, *scene.layers, *scene.edges):
            yield name, level, [f"tiles/{name}/{level}/{places[i][0]}/{places[i][1]}.png" for i in chosen]


def fetcher(server: Server) -> Callable[[str], float]:
    """Milliseconds that an address takes; one connection per thread, as a browser keeps them."""
    local = threading.local()

    def fetch(address: str) -> float:
        if not hasattr(local, "line"):
            local.line = http.client.HTTPConnection("127.0.0.1", server.port)
        started = time.perf_counter()
        local.line.request("GET", f"/{server.token}/{address}")
        answer = local.line.getresponse()
        body = answer.read()
        assert answer.status == 200 and body, (address, answer.status, body[:200])
        return 1000 * (time.perf_counter() - started)

    return fetch


# --- a scene that looks like a result of register_scene, made without registering anything


def make_scene(folder: Path, size: int) -> None:
    utm, mercator = (CRS.from_epsg(code).to_wkt() for code in (32633, 3857))
    reference = Grid(size, size, (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_400_000.0), utm)
    # Web Mercator of the same ground, 49 degrees north: its metres are a third shorter there.
    moving = Grid(size, size, (15.3, 0.0, 1_669_000.0, 0.0, -15.3, 6_234_000.0), mercator)
    folder.mkdir(parents=True, exist_ok=True)
    files = {"reference": folder / "reference.tif", "moving": folder / "moving.tif", "aligned": folder / "aligned.tif"}
    write_noise(files["reference"], reference)
    # What the pixels show does not matter: the same file elsewhere is as dear to read.
    for name in ("moving", "aligned"):
        shutil.copyfile(files["reference"], files[name])
    with rasterio.open(files["moving"], "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.crs, dataset.transform = CRS.from_wkt(moving.crs or ""), Affine(*moving.transform)
    estimate, affine = bent(reference, moving)
    nodes = coarser_grid(reference, STEP)
    xy = pixel_centres(0, 0, nodes.width, nodes.height) * STEP + (STEP - 1) / 2
    shifts = (estimate.correction(xy) - xy).T.reshape(2, nodes.height, nodes.width).astype(np.float32)
    certainty = np.clip(0.5 + 0.5 * np.sin(xy[:, 0] / 700), 0, 1).reshape(nodes.shape).astype(np.float32)
    sigma = np.where(certainty > 0.1, 0.6 / np.maximum(certainty, 0.1), np.nan).astype(np.float32)
    write_displacement(
        folder / "displacement.tif", Displacement(shifts, certainty, sigma, nodes), estimate, affine.matrix, step=STEP
    )
    write_tie_points(folder / "tie_points.geojson", some_points(estimate, 20_000), reference=reference)
    (folder / "report.json").write_text(a_record(files, reference, affine).to_json(), encoding="utf-8")


def write_noise(path: Path, grid: Grid) -> None:
    rng = np.random.default_rng(0)
    spec = GeotiffSpec(grid=grid, dtype=np.dtype("uint16"), count=1, averaged_overviews=True, nodata=0.0)
    fields = rng.integers(300, 3000, (64, 64))
    with write_geotiff_blocks(path, spec) as writer:
        for y in range(0, grid.height, 1024):
            for x in range(0, grid.width, 1024):
                block = Block(x, y, min(1024, grid.width - x), min(1024, grid.height - y))
                writer.write(*patch(block, grid, fields, rng))


def patch(block: Block, grid: Grid, fields: NDArray[Any], rng: np.random.Generator) -> tuple[Any, Block, Any]:
    rows = np.arange(block.y, block.y + block.height) * 64 // grid.height
    columns = np.arange(block.x, block.x + block.width) * 64 // grid.width
    noise = rng.integers(1, 600, (block.height, block.width))
    data = (fields[np.ix_(rows, columns)] + noise).astype(np.uint16)
    return data[None], block, np.ones(data.shape, bool)


def bent(reference: Grid, moving: Grid) -> tuple[Estimate, AffineTransform]:
    affine = AffineTransform.from_parameters(shift=(6.0, -4.0))
    nodes = 40
    spacing = reference.width / (nodes - 1)
    y, x = np.mgrid[:nodes, :nodes] * 6.28 / nodes
    field = FieldTransform(2.0 * np.stack([np.sin(x) * np.cos(y), np.cos(2 * x)]), (0.0, 0.0), (spacing, spacing))
    return Estimate(compose(affine, field), reference, moving), affine


def some_points(estimate: Estimate, count: int) -> TiePoints:
    rng = np.random.default_rng(5)
    xy = rng.uniform(0, estimate.reference.width - 1, (count, 2))
    noise = rng.normal(0, 0.7, (count, 2))
    shift = estimate.correction(xy) - xy
    residual = np.hypot(*noise.T)
    ones = np.ones(count)
    return TiePoints(xy, xy + shift + noise, shift + noise, 0.5 * ones, 0.8 * ones, residual < 2, residual)


def a_record(files: dict[str, Path], grid: Grid, affine: AffineTransform) -> Report:
    shared = {"bands": 1, "band_names": [""], "dtype": "uint16", "nodata": 0.0, "valid_share": 1.0, "sha256": None}
    shared |= {"crs": grid.crs, "crs_name": "EPSG:32633", "pixel_size": (10.0, 10.0)}
    shared |= {"width": grid.width, "height": grid.height}
    images = {role: {"name": str(files[role]), "path": str(files[role]), **shared} for role in ("moving", "reference")}
    length = {"px": 1.0, "m": 10.0}
    names = ("misregistration_before", "predicted_rmse", "predicted_ce90", "local_rms", "residual_median")
    names += ("forward_backward", "split_half")
    return Report.model_validate(
        {
            "somareg_version": "0",
            "created": datetime.now(UTC),
            **images,
            "verdict": {"decision": "review", "probability": 0.5, "reasons": ["Made by benchmarks/viewer.py."]},
            "figures": {"metres_per_pixel": 10.0, **dict.fromkeys(names, length)},
            "affine": {
                "matrix": affine.matrix.tolist(),
                "rotation_deg": 0,
                "scale": 1,
                "shear_deg": 0,
                "shift_x": length,
                "shift_y": length,
            },
            "tie_points": {"total": 20_000, "inliers": 19_000},
            "quality": {},
            "settings": {"moving_modality": "sar", "reference_modality": "optical"},
            "notes": [],
            "timings_s": {},
            "outputs": {},
        }
    )


if __name__ == "__main__":
    main()
