"""Which samples are missed, and why: the search, the images, or the label.

    python benchmarks/error_analysis.py --data DIR --set sen12 --level m --limit 200 --threshold 5

Each sample is registered three times: by the learned model, by the weight-free engine, and by the learned model started
at the label. What a sample beyond the threshold shows is put into words:

* search: started at the label it stays there; from nothing it ended elsewhere.
* label: both engines, and the start at the label, lead to one place (within 1 px, 1.5 px), which the label is not.
* unclear: started at the label it leaves it, but the engines do not agree where to.

Two engines that agree on a wrong place share the images, so "label" can also be ground that moved or a parallax.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from somareg.config import make_config
from somareg.geometry import AffineTransform
from somareg.io import from_array
from somareg.lab.evaluate.list_file import committed_list
from somareg.lab.evaluate.metrics import point_errors, rmse
from somareg.lab.evaluate.protocol import AFFINE_LEVELS
from somareg.lab.evaluate.sample import LoadedSample, load_sample
from somareg.preprocess.prepare import prepare
from somareg.register.choose import choose_model, engine_settings, pair_tensors, search_radius
from somareg.soma.align import align


@dataclass(frozen=True)
class Row:
    """One sample; all figures in pixels.

    Attributes:
        name: of the pair and the sample's place in its list.
        group: place.
        error, free_error, settled_error: of the model, the weight-free engine, and the model started at the label.
        apart: model against weight-free engine.
        drift: model against itself started at the label.
    """

    name: str
    group: str
    error: float
    free_error: float
    settled_error: float
    apart: float
    drift: float

    def verdict(self, threshold: float) -> str:
        """Why the model misses."""
        if self.drift < 1.0 and self.apart < 1.5:
            return "label"
        return "search" if self.settled_error < threshold else "unclear"


def find(loaded: LoadedSample, model: str, start: AffineTransform | None = None) -> AffineTransform:
    """The affine that a model finds, from nothing or from a start."""
    cfg = make_config({"model": model, "local": False})
    device = torch.device("cpu")
    fixed, moved = from_array(loaded.reference, role="reference"), from_array(loaded.moving, role="moving")
    radius = search_radius(cfg, fixed.grid)
    prepared = prepare(moved, fixed, AffineTransform.identity(), cfg, longest=2048, radius_px=radius)
    pair = pair_tensors(prepared, device, (cfg.reference_modality, cfg.moving_modality))
    settings = replace(engine_settings(cfg, fixed.grid, radius), flow=None)
    starts = prepared.starts if start is None else (start,)
    return align(pair, starts, settings, network=choose_model(cfg, device).network).affine


def distance(affine: AffineTransform, truth: AffineTransform, shape: tuple[int, int]) -> float:
    """RMSE over the overlap, as the benchmark measures it."""
    height, width = shape
    yy, xx = np.mgrid[0:height, 0:width].astype(float)
    points = np.stack([xx.ravel(), yy.ravel()], axis=-1)
    displacement = (affine(points) - points).T.reshape(2, height, width).astype(np.float32)
    return rmse(point_errors(displacement, truth.matrix, shape))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", required=True, dest="set_name")
    parser.add_argument("--level", default="m", choices=AFFINE_LEVELS)
    parser.add_argument("--split", default="test", choices=("test", "val"))
    parser.add_argument("--model", default="compact")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--threshold", type=float, default=3.0, help="pixels")
    args = parser.parse_args()
    split = "val" if args.set_name == "vhr" else args.split
    rows = []
    for sample in committed_list(args.set_name, split).samples[args.level][: args.limit]:
        loaded = load_sample(args.data, sample)
        truth, shape = AffineTransform(loaded.matrix), loaded.moving.shape[-2:]
        learned, free = find(loaded, args.model), find(loaded, "orientation")
        settled = find(loaded, args.model, truth)
        figures = [distance(a, truth, shape) for a in (learned, free, settled)]
        apart = distance(free, learned, shape), distance(settled, learned, shape)
        rows.append(Row(f"{sample.pair.name} #{sample.index}", sample.pair.group, *figures, *apart))
    missed = sorted((row for row in rows if not row.error < args.threshold), key=lambda row: row.error)
    print("| sample | place | error | weight-free | from the label | engines apart | drift | why |")
    print("|---|---|---:|---:|---:|---:|---:|---|")
    for row in missed:
        numbers = (row.error, row.free_error, row.settled_error, row.apart, row.drift)
        figures = " | ".join(f"{number:.1f}" for number in numbers)
        print(f"| {row.name} | {row.group} | {figures} | {row.verdict(args.threshold)} |")
    why = Counter(row.verdict(args.threshold) for row in missed)
    print(f"\n{len(missed)} of {len(rows)} beyond {args.threshold:g} px: {dict(why)}")
    sure = [row for row in rows if row.apart < 1.0]
    for limit in (1.0, 2.0, 3.0, 5.0):
        near = np.mean([row.error < limit for row in sure]) if sure else np.nan
        started = np.mean([row.settled_error < limit for row in rows])
        print(
            f"within {limit:g} px of the label: {near:.0%} of the {len(sure)} samples on which the engines agree "
            f"within 1 px; {started:.0%} of all when started at the label"
        )


if __name__ == "__main__":
    main()
