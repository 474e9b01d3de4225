"""What the report of a pair costs: CPU seconds of saving a result, and of its page alone.

    python benchmarks/report_cost.py [--side 512] [--repeat 5]

Measures the checkout that Python finds; `PYTHONPATH=OTHER/src` compares another one. Each run is a new process on one
thread that has registered the pair that ships, cut to a square, and now saves it for the first time, as a command does.
The figures are medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

RUN = """
import sys, tempfile, time
from pathlib import Path
import rasterio
import somareg
from somareg.cli.sample import sample_pair
side = int(sys.argv[1])
images = []
for path in sample_pair():
    with rasterio.open(path) as file:
        images.append(file.read()[:, :side, :side])
result = somareg.register(*images, moving_modality="sar", reference_modality="optical", preset="fast")
began = time.process_time()
import somareg.report as report
spent = []
whole = report.render_report
def render(*arguments):
    start = time.process_time()
    try:
        return whole(*arguments)
    finally:
        spent.append(time.process_time() - start)
report.render_report = render
with tempfile.TemporaryDirectory() as folder:
    result.save(Path(folder) / "out")
    saved = time.process_time() - began
    size = (Path(folder) / "out" / "report.html").stat().st_size
print(saved, sum(spent), size)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512, help="pixels")
    parser.add_argument("--repeat", type=int, default=5)
    asked = parser.parse_args()
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    rows = []
    for _ in range(asked.repeat):
        command = [sys.executable, "-c", RUN, str(asked.side)]
        done = subprocess.run(command, env={**os.environ, **threads}, check=True, capture_output=True, text=True)
        rows.append([float(word) for word in done.stdout.split()])
    saved, page, size = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"{asked.side} px: save {saved:.3f} s CPU, of that the page {page:.3f} s; report.html {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
