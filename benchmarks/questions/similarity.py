"""Does the similarity of two images' features say how well they match? Measured for many kinds of features.

    python benchmarks/questions/similarity.py --samples FILE --data DIR [--model compact NAME=FILE ...] [--picture]

`--samples` is a file that `python -m somareg.lab.data.samples` writes, `--data` a folder with whole pairs
(`DIR/crossmodal`). Both images of a pair are brought to one grid by their true map, so that cell i of one shows the
ground of cell i of the other. For each kind of features (at 1/2 of the resolution) on each set it prints:

    similarity   mean cosine of features at the same place
    control      the same at places half an image apart
    gap, d'      similarity - control; gap / pooled deviation
    windows      share of windows of 20 x 20 cells whose highest correlation, among displacements of at most 4 cells
                 along each axis, lies within one cell of the truth (5 of 81 places, 6 %, by chance)

and then Spearman's rank correlation of similarity, gap and d' with windows.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.errors import InputError, SomaregError
from somareg.features.orientation import OrientationCfg, orientation_channels
from somareg.features.pooling import block_mean
from somareg.lab.data.batch import PairBatch
from somareg.lab.data.stacks import ProtocolSamples
from somareg.lab.data.standardise import standardise
from somareg.lab.evaluate.diagnose_parts import cosine_similarity
from somareg.lab.evaluate.whole import load_whole, read_whole
from somareg.matching.affine import apply_affine_batch
from somareg.matching.correlation import correlate_grid
from somareg.matching.posterior import candidate_displacements
from somareg.matching.warping import pixel_grid, sample
from somareg.matching.windows import MIN_COVERAGE, WindowCfg, coverage, window_grid
from somareg.soma.encoder import detail
from somareg.soma.network import Soma
from somareg.soma.weights import load_network, read_card, resolve
from somareg.types import Modality

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "question-similarity.png"
STRIDE, ROOM = 2, 16  # pixels per cell; pixels around the reference that the moving image shows, too
SHIFT = torch.tensor([[[1.0, 0.0, ROOM], [0.0, 1.0, ROOM]]])  # reference pixels -> moving pixels of aligned pairs
WINDOW = WindowCfg(size=20, margin=4, stride=6)
APART = (2, -1)  # cells from the truth to the middle of the search: "no displacement" must not score
FIGURES = ("similarity", "gap", "d'")
CONSTANT = "orientation + constant"  # shows what similarity cannot see; has no part in the rank correlation

Describe = Callable[[Tensor, Tensor, Modality], dict[str, Tensor]]
"""(B, C, H, W) image, (B, 1, H, W) mask, modality -> name -> (B, K, H / 2, W / 2) features."""


def align(pair: PairBatch) -> PairBatch:
    """One pair on the reference's grid: the moving image has ROOM px more on each side, and the truth is SHIFT."""
    height, width = (length // STRIDE * STRIDE for length in pair.reference.shape[-2:])
    points = apply_affine_batch(pair.truth.double(), pixel_grid(height, width, ROOM, SHIFT.device)[None])
    moving, seen = sample(pair.moving, pair.moving_mask, points)
    reference, valid = (each[..., :height, :width] for each in (pair.reference, pair.reference_mask))
    if not bool((valid * seen[..., ROOM:-ROOM, ROOM:-ROOM]).any()):
        raise InputError("a pair shares no ground under its truth; leave it out of the set")
    return PairBatch(reference, valid, moving, seen, SHIFT, None, pair.modalities)


def sample_pairs(path: Path, level: str, limit: int | None) -> Iterator[tuple[str, PairBatch]]:
    """Pairs of a file of samples, aligned, with the name of their set."""
    stacks = [stack for stack in ProtocolSamples.load(path) if stack.level == level]
    if not stacks:
        raise InputError(f"{path} has no sample of level {level}; name another level with --level")
    for stack in stacks:
        for i in range(len(stack))[:limit]:
            yield stack.set, align(stack.batch(slice(i, i + 1), "cpu"))


def whole_pairs(data: Path, limit: int | None) -> Iterator[tuple[str, PairBatch]]:
    """Whole pairs of `crossmodal`, aligned, with the name of their modality."""
    for listed in read_whole(data, "crossmodal", "val").whole[:limit]:
        loaded = load_whole(data, listed)
        known, parts = loaded.known, list[Tensor]()
        modalities = known.reference_modality, known.moving_modality
        masks = known.reference_mask, known.moving_mask
        for image, mask, modality in zip((loaded.reference, loaded.moving), masks, modalities, strict=True):
            pixels = torch.from_numpy(image.reshape(1, -1, *image.shape[-2:])).float()
            valid = torch.ones_like(pixels[:, :1]) if mask is None else torch.from_numpy(mask).float()[None, None]
            parts += [standardise(pixels, valid, modality), valid]
        truth = torch.tensor(loaded.matrix, dtype=torch.float32)[None]
        reference, reference_mask, moving, moving_mask = parts
        pair = PairBatch(reference, reference_mask, moving, moving_mask, truth, None, modalities)
        yield listed.pair.modality, align(pair)


def without_weights(image: Tensor, mask: Tensor, modality: Modality) -> dict[str, Tensor]:
    """Grey values (the four pixels of a cell), orientation channels, and these with 1 added to each channel."""
    channels, _ = orientation_channels(image, mask, OrientationCfg())
    grey = F.pixel_unshuffle(image.mean(1, keepdim=True), STRIDE)
    return {"grey values": grey, "orientation channels": channels, CONSTANT: channels + 1.0}


def of_network(network: Soma, name: str) -> Describe:
    """Features of a network at 1/2: both sides of its FGE, its output, and this without its smooth part, if it has a
    `detail`: what `register` matches.
    """
    plain, side = copy.deepcopy(network).eval(), network.cfg.encoder.detail
    plain.encoder.cfg = replace(plain.encoder.cfg, detail=None)

    def describe(image: Tensor, mask: Tensor, modality: Modality) -> dict[str, Tensor]:
        encoded = plain.encode(image, mask, modality, (STRIDE,))
        height, width = (length // STRIDE for length in image.shape[-2:])  # FGE has padded sides
        views = {"before FGE": encoded.before, "after FGE": encoded.after, "output": encoded.pyramid}
        features = {f"{name}, {view}": levels[STRIDE][..., :height, :width] for view, levels in views.items() if levels}
        if side is not None:
            features[f"{name}, detail"] = detail(encoded.pyramid[STRIDE], encoded.valid[STRIDE], side)
        return features

    return describe


def networks(models: Sequence[str]) -> Iterator[tuple[dict[str, str], Describe]]:
    """Each model (`NAME=FILE`, a file, or the name of weights) and, first, the first one untrained."""
    for number, text in enumerate(models):
        name, _, source = text.rpartition("=")
        card, network = read_card(resolve(source)), load_network(resolve(source))
        if number == 0:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                bare = replace(network.cfg.encoder, compact=replace(network.cfg.encoder.compact, shortcut=False))
                for label, cfg in (("untrained", network.cfg.encoder), ("untrained, no shortcut", bare)):
                    yield {}, of_network(Soma(replace(network.cfg, encoder=cfg)), label)
        yield {name or card.name: card.sha256}, of_network(network, name or card.name)


def window_share(reference: Tensor, valid: Tensor, moving: Tensor, moving_valid: Tensor) -> float:
    """Share of one pair's windows with content whose highest correlation is within one cell of the truth; NaN without
    any. Features and validity lie on the cells of an aligned pair.
    """
    height, width = reference.shape[-2:]
    x, y = (ROOM // STRIDE - WINDOW.margin + apart for apart in APART)
    area = (..., slice(y, y + height + 2 * WINDOW.margin), slice(x, x + width + 2 * WINDOW.margin))
    grid = window_grid((height, width), WINDOW)
    surfaces, seen = correlate_grid(reference, valid, moving[area], moving_valid[area], grid)
    kept = (seen >= WINDOW.min_seen) & (coverage(valid, grid) > MIN_COVERAGE)
    highest = candidate_displacements(WINDOW.margin, 1.0, surfaces)[surfaces.flatten(-2).argmax(-1)]
    near = (highest + highest.new_tensor(APART)).square().sum(-1) <= 1.0
    return float((near & kept).sum() / kept.sum()) if bool(kept.any()) else math.nan


@torch.no_grad()
def measure(pairs: Iterable[tuple[str, PairBatch]], describers: Sequence[Describe]) -> list[dict[str, Any]]:
    """One row of figures for each kind of features on each set."""
    cosines: dict[tuple[str, str], list[Any]] = defaultdict(list)
    shares: dict[tuple[str, str], list[float]] = defaultdict(list)
    for set_name, pair in pairs:
        masks = pair.reference_mask, pair.moving_mask
        valid, moving_valid = ((block_mean(mask, STRIDE) > 0.5).float() for mask in masks)
        for describe in describers:
            here = describe(pair.reference, pair.reference_mask, pair.modalities[0])
            there = describe(pair.moving, pair.moving_mask, pair.modalities[1])
            for name, features in here.items():
                both = cosine_similarity(
                    *({STRIDE: features}, {STRIDE: there[name]}, pair.truth, STRIDE),
                    reference_mask=pair.reference_mask,
                    moving_mask=pair.moving_mask,
                )
                cosines[set_name, name].append(torch.stack(both).double().numpy())
                shares[set_name, name].append(window_share(features, valid, there[name], moving_valid))
    return [_row(*key, np.concatenate(parts, axis=1), np.array(shares[key])) for key, parts in cosines.items()]


def _row(set_name: str, features: str, cosines: Any, shares: Any) -> dict[str, Any]:
    (same, other), shares = cosines.mean(1), shares[np.isfinite(shares)]
    pooled = max(1e-12, math.sqrt(cosines.var(1).mean()))
    error = float(shares.std() / math.sqrt(max(1, len(shares) - 1)))
    return {"set": set_name, "features": features, "pairs": len(shares), "similarity": float(same)} | {
        "control": float(other), "gap": float(same - other), "d'": float((same - other) / pooled),
        "windows": float(shares.mean()), "windows_error": error,
    }  # fmt: skip


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation of values without ties."""
    first, second = (np.argsort(np.argsort(values)) for values in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def rank_correlations(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """figure -> its rank correlation with `windows`: over all rows, the range when one set is left out, and the mean of
    those within each set.
    """
    rows = [row for row in rows if row["features"] != CONSTANT]
    sets = sorted({row["set"] for row in rows})

    def of(figure: str, part: Sequence[dict[str, Any]]) -> float:
        return spearman([row[figure] for row in part], [row["windows"] for row in part])

    table = {}
    for figure in FIGURES:
        without = [of(figure, [row for row in rows if row["set"] != left]) for left in sets if len(sets) > 1]
        inside = [of(figure, [row for row in rows if row["set"] == name]) for name in sets]
        table[figure] = {"all": of(figure, rows), "within": float(np.mean(inside))}
        table[figure] |= {"least": min(without), "most": max(without)} if without else {}
    return table


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Windows over each figure; a mark is one kind of features on one set, a colour a family of features."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    families = dict.fromkeys(row["features"].split(",")[0] for row in rows if row["features"] != CONSTANT)
    for axis, name in zip(figure.subplots(1, len(FIGURES), sharey=True), FIGURES, strict=True):
        for family in families:
            part = [row for row in rows if row["features"].split(",")[0] == family]
            axis.scatter([r[name] for r in part], [100 * r["windows"] for r in part], s=12, label=family, alpha=0.8)
        axis.set_xlabel(name)
    figure.axes[0].set_ylabel("windows within one cell, %")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=6, fontsize=8)
    figure.savefig(path, dpi=90)


def rounded(figures: Any) -> Any:
    """The same with numbers of four decimals."""
    return json.loads(json.dumps(figures), parse_float=lambda text: round(float(text), 4))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, help="file of SAR-optical samples")
    parser.add_argument("--data", type=Path, help="folder that holds crossmodal/")
    parser.add_argument("--model", nargs="+", default=["compact"], help="weights: NAME=FILE, a file, or a name")
    parser.add_argument("--level", default="m", help="of the samples")
    parser.add_argument("--limit", type=int, help="pairs of each set of samples, and whole pairs in all, at most")
    parser.add_argument("--json", type=Path, help="file that the figures are written to")
    parser.add_argument("--picture", action="store_true", help=f"draw {PICTURE.name} of the documentation")
    asked = parser.parse_args(arguments)
    try:
        models = list(networks(asked.model))
        pairs = list(sample_pairs(asked.samples, asked.level, asked.limit)) if asked.samples else []
        pairs += list(whole_pairs(asked.data, asked.limit)) if asked.data else []
        if not pairs:
            raise InputError("no pairs to measure; give --samples, --data or both")
        rows = measure(pairs, [without_weights, *(describe for _, describe in models)])
    except SomaregError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    columns = ("pairs", "similarity", "control", "gap", "d'", "windows")
    print(f"{'set':22} {'features':34} {'  '.join(f'{name:>10}' for name in columns)}")
    for row in rows:
        print(f"{row['set']:22} {row['features']:34} {'  '.join(f'{row[name]:10.4g}' for name in columns)}")
    correlations = rank_correlations(rows)
    for name, told in correlations.items():
        print(f"rank correlation with windows, {name:10} " + "  ".join(f"{k} {v:+.2f}" for k, v in told.items()))
    if asked.json:
        weights = {name: sha for named, _ in models for name, sha in named.items()}
        whole = {"weights": weights, "level": asked.level, "rank_correlation": correlations, "rows": rows}
        asked.json.write_text(json.dumps(rounded(whole), indent=1) + "\n", encoding="utf-8")
    if asked.picture:
        draw(rows, PICTURE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
