"""How long does it take until something happens?

    python benchmarks/startup.py [--rounds 7] [--json FILE] [--imports 25]

Each row is a command in a process of its own: CPU seconds (user and system, also those of its children), the seconds
that pass, and CPU seconds in starts of a bare interpreter, by which machines compare. Rounds of all rows take turns and
the least of each row counts: whatever else a busy machine does only adds. `--imports N` lists the N modules that take
longest in `import somareg.register.api`, by `python -X importtime`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "src" / "somareg" / "data" / "demo"
PAIR = [str(DEMO / "sar.tif"), str(DEMO / "optical.tif")]
COMMAND = ["-m", "somareg"]
COMPLETION = {"_SOMAREG_COMPLETE": "complete_bash", "COMP_WORDS": "somareg register --moving-sc", "COMP_CWORD": "2"}

ROWS: dict[str, tuple[list[str], dict[str, str]]] = {
    "bare interpreter": (["-c", "pass"], {}),
    "import somareg": (["-c", "import somareg"], {}),
    "somareg --version": ([*COMMAND, "--version"], {}),
    "somareg --help": ([*COMMAND, "--help"], {}),
    "somareg register --help": ([*COMMAND, "register", "--help"], {}),
    "completion of an option": (COMMAND, COMPLETION),
    "import torch": (["-c", "import torch"], {}),
    "import somareg.register.api": (["-c", "import somareg.register.api"], {}),
    "the same, no garbage collection": (
        ["-c", "from somareg.runtime.startup import quick_imports\nwith quick_imports(): import somareg.register.api"],
        {},
    ),
    "somareg register --dry-run, demo pair": ([*COMMAND, "register", *PAIR, "--dry-run", "-q"], {}),
}


def measure(arguments: list[str], extra: dict[str, str]) -> tuple[float, float]:
    """CPU seconds and seconds of one process."""
    paths = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "PYTHONPATH": paths, **extra}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL, check=True)
    after, end = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, end - start


def slowest_imports(count: int) -> str:
    """Lines of `-X importtime`, the longest first: microseconds with and without what a module imports itself."""
    arguments = ["-X", "importtime", "-c", "import somareg.register.api"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=True)
    rows = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines()[1:]]
    timed = sorted(((int(whole), int(own), name.strip()) for own, whole, name in rows), reverse=True)
    return "\n".join(f"{whole / 1e3:9.1f} ms  {own / 1e3:8.1f} ms alone  {name}" for whole, own, name in timed[:count])


def main() -> None:
    """Measure every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--imports", type=int, default=0)
    asked = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ROWS}
    for _ in range(asked.rounds):
        for name, row in ROWS.items():
            found[name].append(measure(*row))
    least = {name: tuple(map(min, zip(*times, strict=True))) for name, times in found.items()}
    bare = least["bare interpreter"][0]
    print(f"{'':40s} {'CPU s':>7s} {'s':>7s} {'bare starts':>12s}")
    for name, (cpu, seconds) in least.items():
        print(f"{name:40s} {cpu:7.3f} {seconds:7.3f} {cpu / bare:12.1f}")
    if asked.json:
        asked.json.write_text(
            json.dumps({name: {"cpu_s": c, "s": s} for name, (c, s) in least.items()}, indent=2) + "\n"
        )
    if asked.imports:
        print("\n" + slowest_imports(asked.imports))


if __name__ == "__main__":
    main()
