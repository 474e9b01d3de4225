"""Draw the pictures of docs/synthetic.md and, if asked, time the generator.

    python benchmarks/make_synthetic_page.py [--seed N] [--time] [--device cpu]

One picture, docs/images/synthetic.png: pairs as the generator gives them, optical above SAR, in the order of the seed;
none is picked. Grey levels are reduced to 32 in the file, because speckle does not compress.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from somareg.lab.data.synthetic import SyntheticSource
from somareg.lab.data.tiles import TileSet

TARGET = Path(__file__).resolve().parents[1] / "docs" / "images" / "synthetic.png"
COLUMNS, ROWS, SIZE, GAP = 6, 2, 160, 4
TIMED_SIZE = 256


def pair_picture(tiles: TileSet, index: int) -> NDArray[np.uint8]:
    """Optical above SAR, BGR, with a white frame to the right and below."""
    optical = tiles.optical[index].permute(1, 2, 0).flip(-1).numpy()
    sar = tiles.sar[index][..., None].expand(-1, -1, 3).numpy()
    framed = [
        cv2.copyMakeBorder(np.ascontiguousarray(i), 0, 1, 0, GAP, cv2.BORDER_CONSTANT, value=(255,) * 3)
        for i in (optical, sar)
    ]
    return np.vstack([*framed, np.full((GAP, SIZE + GAP, 3), 255, np.uint8)])


def draw_page(seed: int) -> None:
    """Write the picture."""
    tiles = SyntheticSource().scenes(COLUMNS * ROWS, SIZE, torch.Generator().manual_seed(seed))
    pictures = [pair_picture(tiles, i) for i in range(COLUMNS * ROWS)]
    page = np.vstack([np.hstack(pictures[r * COLUMNS : (r + 1) * COLUMNS]) for r in range(ROWS)])
    coarse = np.where(page == 255, 255, page // 8 * 8 + 4).astype(np.uint8)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(TARGET), coarse, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1000:.0f} kB")


def measure(device: str, count: int) -> None:
    """Print scenes per second of 256 px, the first call left out."""
    source, generator = SyntheticSource(), torch.Generator(device).manual_seed(0)
    source.scenes(2, TIMED_SIZE, generator)
    start = time.perf_counter()
    checksum = int(source.scenes(count, TIMED_SIZE, generator).sar.sum())  # waits for the device
    seconds = time.perf_counter() - start
    print(
        f"{count / seconds:.1f} scenes/s of {TIMED_SIZE} px on {device}, {torch.get_num_threads()} threads ({checksum})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--time", action="store_true", help="also time the generator")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    draw_page(args.seed)
    if args.time:
        measure(args.device, 32 if args.device == "cpu" else 1024)


if __name__ == "__main__":
    main()
