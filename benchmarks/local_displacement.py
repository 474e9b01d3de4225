"""How well the local displacement follows a known smooth warp, and what it costs where the truth is affine.

    python benchmarks/local_displacement.py --data DIR [--limit N] [--crops 512,256] [--pairs SET:ROLE]

Warps: level N of the protocol, 0.5 to 4 px RMS beyond the affine at 60 and 120 px correlation length. At the crop of
the set's committed list its samples are taken, at others samples are drawn by the same rules. Affine: level m, local on
against local off. `sih:train` (the val split of `sih`; never its test scene) unless other pairs are named.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

import somareg
from somareg.lab.evaluate.list_file import committed_list
from somareg.lab.evaluate.metrics import point_errors, rmse
from somareg.lab.evaluate.protocol import SETS, WARP_LENGTHS_PX, WARPED_LEVELS, SetInfo
from somareg.lab.evaluate.sample import LoadedSample, Sample, load_sample
from somareg.lab.evaluate.sampling import make_list

LEVELS = ("m", *WARPED_LEVELS)
_RAN_AWAY_PX = 1.0  # RMS of a local displacement, in the worst pair, that no warp explains


def samples_of(data: Path, name: str, role: str, crop: int, limit: int) -> dict[str, list[Sample]]:
    """Level -> the first samples of the committed list, where it has this role and crop, else newly drawn ones."""
    shipped = SETS.get(name, (None,))[0]
    if shipped and (shipped.roles.get("val"), shipped.crop) == (role, crop):
        committed = committed_list(name, "val").samples
        return {level: committed[level][:limit] for level in LEVELS}
    info = SetInfo(name, crop, "as in pairs.csv", 0.5, {"val": role}, {"val": limit})
    return make_list(data, info, "val", count=limit, levels=LEVELS).samples


def errors(loaded: LoadedSample, model: str) -> tuple[float, float, float]:
    """RMSE with local displacement off and on, and the RMS of the local displacement, pixels."""
    found = [
        somareg.register(loaded.moving, loaded.reference, model=model, local=local).displacement.array
        for local in (False, True)
    ]
    shape = loaded.reference.shape[-2:]
    truth = loaded.truth()
    off, on = (rmse(point_errors(each, truth, shape)) for each in found)
    return off, on, float(np.sqrt(((found[1] - found[0]) ** 2).sum(axis=0).mean()))


def warp_rows(data: Path, label: str, samples: dict[str, list[Sample]], model: str) -> Iterator[str]:
    for level in WARPED_LEVELS:
        for length in WARP_LENGTHS_PX:
            chosen = [sample for sample in samples[level] if sample.warp and sample.warp.length_px == length]
            if chosen:
                off, on, _ = np.median([errors(load_sample(data, sample), model) for sample in chosen], axis=0)
                rms = chosen[0].warp.rms_px
                cells = (label, len(chosen), f"{rms:g}", f"{length:g}", f"{off:.2f}", f"{on:.2f}")
                yield row((*cells, f"{off / rms:.0%}", f"{on / rms:.0%}"))


def affine_row(data: Path, label: str, samples: list[Sample], model: str) -> str:
    off, on, local = np.array([errors(load_sample(data, sample), model) for sample in samples]).T
    figures = f"{np.median(off):.2f}", f"{np.median(on):.2f}", f"{np.mean(on - off):+.3f}", f"{local.max():.2f}"
    return row((f"{label}, level m", len(samples), *figures, int((local > _RAN_AWAY_PX).sum())))


def row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=12, help="samples of each level; half of them at either length")
    parser.add_argument("--crops", default="512,256", help="sides, pixels")
    parser.add_argument("--pairs", default="sih:train", help="SET:ROLE, several with commas")
    parser.add_argument("--model", default="auto")
    args = parser.parse_args()
    drawn = {
        f"{name} {role}, {crop} px": samples_of(args.data, name, role, int(crop), args.limit)
        for name, role in (pairs.split(":") for pairs in args.pairs.split(","))
        for crop in args.crops.split(",")
    }
    print(row(("pairs", "n", "warp RMS px", "length px", "local off px", "local on px", "left off", "left on")))
    print("|---|" + "---:|" * 7)
    for label, samples in drawn.items():
        for line in warp_rows(args.data, label, samples, args.model):
            print(line, flush=True)
    print()
    print(row(("affine truth", "n", "local off px", "local on px", "mean added px", "largest local px", "above 1 px")))
    print("|---|" + "---:|" * 6)
    for label, samples in drawn.items():
        print(affine_row(args.data, label, samples["m"], args.model), flush=True)


if __name__ == "__main__":
    main()
