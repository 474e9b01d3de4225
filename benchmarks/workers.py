"""What a second worker is worth: a batch of pairs and a scene, by one process and by two.

    python benchmarks/workers.py --data FOLDER [--pairs 20] [--scene 4000] [--rounds 1] [--work FOLDER] [--json FILE]

FOLDER is that of `somareg eval` (benchmarks/README.md). The pairs are 256 px of role test, the scene is that of
benchmarks/scenes.py. Rows: one process of one thread, one process as it is by default (a helper thread takes the
second core), and two workers of one thread each. Seconds depend on what else the machine does. CPU seconds are those
of the command itself; workers are no children of it, so their seconds are not seen. Rounds take turns and the least of
each row counts.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scenes import Mosaic, build, load_patches

ROOT = Path(__file__).resolve().parents[1]
SET = "ombria"
WAYS: dict[str, tuple[list[str], dict[str, str]]] = {
    "one process, one thread": ([], {"OMP_NUM_THREADS": "1"}),
    "one process": ([], {}),
    "two workers": (["--workers", "2"], {}),
}


def table_of_pairs(data: Path, folder: Path, count: int) -> Path:
    """A batch's table of `count` pairs of 256 px."""
    with (data / "pairs.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["set"] == SET and row["role"] == "test"]
    step = max(1, len(rows) // count)
    table = folder / "pairs.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["moving", "reference", "name"])
        for i, row in enumerate(rows[: step * count : step]):
            images = [(data / SET / side / row["name"]).resolve() for side in ("sar", "optical")]
            writer.writerow([*images, f"pair{i}"])
    return table


def measure(arguments: list[str], extra: dict[str, str]) -> tuple[float, float]:
    """Seconds, and CPU seconds of the command, without its workers."""
    paths = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "PYTHONPATH": paths, **extra}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "somareg", *arguments], env=environment, check=False)
    if done.returncode not in (0, 3, 4):
        raise SystemExit(f"somareg {' '.join(arguments)} ended with {done.returncode}")
    after, end = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    return end - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=20, help="0: no batch")
    parser.add_argument("--scene", type=int, default=4000, help="side of the scene, pixels; 0: no scene")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--work", type=Path, help="where the scene is built and kept")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        works: dict[str, list[str]] = {}
        if asked.pairs:
            table = table_of_pairs(asked.data, folder, asked.pairs)
            works[f"batch of {asked.pairs} pairs, 256 px"] = ["batch", str(table)]
        if asked.scene:
            work = asked.work or folder
            work.mkdir(parents=True, exist_ok=True)
            images = [work / f"{kind}-{asked.scene}.tif" for kind in ("sar", "optical")]
            if not all(image.is_file() for image in images):
                build(work, asked.scene, Mosaic(load_patches(asked.data)))
            works[f"scene of {asked.scene} px"] = ["register", *map(str, images), "--scene", "always"]
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for _ in range(asked.rounds):
            for name, arguments in works.items():
                for way, (more, extra) in WAYS.items():
                    out = folder / "out"
                    found.setdefault((name, way), []).append(measure([*arguments, *more, "-q", "-o", str(out)], extra))
                    shutil.rmtree(out)
                    print(name, way, found[name, way][-1], file=sys.stderr, flush=True)
    rows = []
    for (name, way), times in found.items():
        seconds, cpu = (min(each) for each in zip(*times, strict=True))
        if way == next(iter(WAYS)):
            one_s = seconds
        rows.append({"work": name, "way": way, "s": seconds, "cpu_s": cpu})
        print(f"{name:30s} {way:24s} {seconds:7.1f} s {cpu:7.1f} CPU s   {one_s / seconds:5.2f} times as fast")
    if asked.json:
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        asked.json.write_text(json.dumps({"load": load, "cores": os.cpu_count(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
