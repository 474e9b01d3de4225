"""How well the local displacement follows a known smooth warp, and what it costs where the truth is affine.

    python benchmarks/local_displacement.py --data DIR [--limit N]

Warps: Gaussian random fields of 3 to 6 px RMS, correlation length 0.12 to 0.25 of the crop, added to the affine of
level m on `sih` val crops (512 px; never the test scene). Affine: the committed val lists, local on against local off.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import somareg
from somareg.lab.evaluate.list_file import committed_list
from somareg.lab.evaluate.protocol import load_sample

WARPS = ((3.0, 0.20), (4.0, 0.12), (4.0, 0.20), (6.0, 0.25))


def smooth_warp(size: int, rms: float, length: float, seed: int) -> NDArray[np.float32]:
    """(2, size, size) Gaussian random field of the given RMS (pixels) and correlation length (share of the size)."""
    rng = np.random.default_rng(seed)
    field = np.stack([cv2.GaussianBlur(rng.standard_normal((size, size)), (0, 0), length * size) for _ in range(2)])
    return (field * rms / np.sqrt((field**2).sum(0).mean())).astype(np.float32)


def residual(moving: NDArray, reference: NDArray, matrix: NDArray, warp: NDArray, *, local: bool) -> float:
    """RMSE over the overlap when the truth is `A(x + w(x)) - x`; the reference is resampled by w."""
    size = reference.shape[-1]
    yy, xx = np.mgrid[0:size, 0:size].astype(np.float32)
    x, y = xx + warp[0], yy + warp[1]
    if warp.any():
        reference = np.stack([cv2.remap(b, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT) for b in reference])
    truth_x = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] - xx
    truth_y = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] - yy
    found = somareg.register(moving, reference, local=local).displacement.array
    inside = (x >= 0) & (y >= 0) & (x <= size - 1) & (y <= size - 1)
    for t, grid in ((truth_x, xx), (truth_y, yy)):
        inside &= (t + grid >= 0) & (t + grid <= size - 1)
    error = (found[0] - truth_x) ** 2 + (found[1] - truth_y) ** 2
    return float(np.sqrt(error[inside].mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=10)
    args = parser.parse_args()
    print("| pairs | warp RMS px | correlation length px | affine only px | with local px | residual / warp |")
    print("|---|---:|---:|---:|---:|---:|")
    samples = [load_sample(args.data, s) for s in committed_list("sih", "val").samples["m"][: args.limit]]
    for rms, length in WARPS:
        rows = []
        for seed, s in enumerate(samples):
            warp = smooth_warp(s.reference.shape[-1], rms, length, seed)
            rows.append([residual(s.moving, s.reference, s.matrix, warp, local=on) for on in (False, True)])
        off, on = np.mean(rows, axis=0)
        size = samples[0].reference.shape[-1]
        print(f"| sih val, n {len(rows)} | {rms:.0f} | {length * size:.0f} | {off:.2f} | {on:.2f} | {on / rms:.0%} |")
    print("\n| pairs with affine truth | n | local off px (median) | local on px (median) | mean added px |")
    print("|---|---:|---:|---:|---:|")
    for name in ("sih", "ombria"):
        rows = []
        for sample in committed_list(name, "val").samples["m"][: 2 * args.limit]:
            s = load_sample(args.data, sample)
            none = np.zeros((2, *s.reference.shape[1:]), np.float32)
            rows.append([residual(s.moving, s.reference, s.matrix, none, local=on) for on in (False, True)])
        off, on = np.median(rows, axis=0)
        added = np.mean([b - a for a, b in rows])
        print(f"| {name} val, level m | {len(rows)} | {off:.2f} | {on:.2f} | {added:+.3f} |")


if __name__ == "__main__":
    main()
