"""How much coarser may one image of a pair be: 1 m against 10 m, 10 m against 60 m?

    python benchmarks/questions/resolution.py --data DIR [--json FILE] [--picture FILE]

Windows of aligned validation pairs. The SAR or the optical image is averaged over FACTOR x FACTOR pixels; of the other
one a part of 7/8 of the side is cut at its own pixels. So no frame tells where the images meet, and the truth is as
good as the labels. Each pair is registered in three ways:

* placed: SAR moves onto optical, both `Raster`s whose `Grid` holds pixel size and place; one is placed wrongly by OFF
  coarse pixels in a random direction.
* swapped: the same, but optical moves onto SAR.
* bare: SAR moves onto optical as arrays; nothing tells the ratio of the pixels.

Errors are RMSE over the overlap, in fine pixels and, divided by the factor, in coarse ones. A pair is *held* below 2
coarse pixels. A *go* is wrong from 2 pixels of the reference on (what the verdict's probability is about), and badly
wrong where the pair is not held. Factors that make a side shorter than 64 px, which `register` refuses, are left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.crs import CRS

import somareg
from somareg.config import make_config
from somareg.errors import SomaregError
from somareg.geometry import AffineTransform
from somareg.geometry.lattice import pixel_centres
from somareg.io import from_array
from somareg.io.raster import MIN_SIDE
from somareg.lab.data.pairs import StoredPair, list_pairs, load_pair
from somareg.lab.evaluate.metrics import point_errors, rmse
from somareg.register.choose import choose_model
from somareg.types import BoolArray, Grid, Raster

SETS = {"vhrcity": ("val", 256, 4, 4), "ombria": ("val", 256, 4, 4), "sih": ("train", 704, 2, 2)}
"""Set -> role of its validation pairs, side of the windows in pixels, how many, and how many of them bare as well."""
FACTORS = (1, 2, 4, 6, 10)
COARSE = ("sar", "optical")
WAYS = ("placed", "swapped", "bare")
HELD = 2.0  # coarse pixels
UTM = CRS.from_epsg(32643).to_wkt()
CORNER = 500_000.0, 4_000_000.0  # of the window on the ground, metres; a fine pixel is one metre
LEAST_VALID = 0.9


@dataclass(frozen=True, eq=False)
class Case:
    """A pair at two resolutions.

    Attributes:
        sar, optical: both images, and where they are said to be.
        truth: optical pixels -> SAR pixels.
        coarse: which of them is.
        factor: fine pixels per coarse one.
    """

    sar: Raster
    optical: Raster
    truth: AffineTransform
    coarse: str
    factor: int


def windows(pair: StoredPair, side: int) -> Iterator[tuple[int, int]]:
    """Corners (x, y) of windows of a pair that do not overlap and hold imagery."""
    height, width = pair.sar.shape
    for y in np.linspace(0, height - side, height // side, dtype=int):
        for x in np.linspace(0, width - side, width // side, dtype=int):
            if pair.valid[y : y + side, x : x + side].mean() >= LEAST_VALID:
                yield int(x), int(y)


def make_case(
    pair: StoredPair, corner: tuple[int, int], side: int, factor: int, coarse: str, off: float, rng: np.random.Generator
) -> Case | None:
    """One image of a window averaged, a part of the other one; None where a side would be too short.

    Args:
        pair: aligned up to its offset.
        corner, side: the window, pixels.
        factor: of the averaging.
        coarse: "sar" or "optical".
        off: distance by which the SAR image is placed wrongly, coarse pixels.
        rng: for the part and the direction.
    """
    whole, part = side // factor * factor, side * 7 // 8
    if min(whole // factor, part) < MIN_SIDE:
        return None
    inside = rng.integers(0, whole - part + 1, 2)
    angle = rng.uniform(0, 2 * math.pi)
    wrong = off * factor * np.array([math.cos(angle), math.sin(angle)])
    images = {"sar": (pair.sar[None], pair.entry.offset, wrong), "optical": (pair.optical, (0.0, 0.0), np.zeros(2))}
    rasters, to_ground = {}, {}
    for name, (data, offset, slip) in images.items():
        first = np.array(corner) + (0 if name == coarse else inside)
        length, step = (whole, factor) if name == coarse else (part, 1)
        block = (slice(first[1], first[1] + length), slice(first[0], first[0] + length))
        pixels, mask = averaged(data[:, *block], pair.valid[block], step)
        raster = from_array(pixels, mask=mask, role=name)
        left, top = first - np.array(corner) + np.array(offset)  # where the window's first pixel lies on the ground
        place = (float(step), 0.0, CORNER[0] + left + slip[0], 0.0, -float(step), CORNER[1] - top - slip[1])
        rasters[name] = replace(raster, grid=Grid(pixels.shape[2], pixels.shape[1], place, UTM))
        rim = (step - 1) / 2
        to_ground[name] = AffineTransform(np.array([[step, 0, left + rim], [0, step, top + rim]], float))
    truth = to_ground["sar"].inverse.after(to_ground["optical"])
    return Case(rasters["sar"], rasters["optical"], truth, coarse, factor)


def averaged(data: NDArray[np.uint8], mask: BoolArray, factor: int) -> tuple[NDArray[np.uint8], BoolArray]:
    """Means over blocks of bands (C, H, W), and which blocks (h, w) are valid throughout."""
    size = (data.shape[2] // factor, data.shape[1] // factor)
    bands = [cv2.resize(np.ascontiguousarray(band), size, interpolation=cv2.INTER_AREA) for band in data]
    valid: BoolArray = np.logical_and.reduce(mask.reshape(size[1], factor, size[0], factor), axis=(1, 3))
    return np.stack(bands).astype(np.uint8), valid


def run(case: Case, way: str, model: str) -> dict[str, Any]:
    """Register a case: its verdict, and its error in fine pixels (None, with the reason, where refused)."""
    moving, reference, truth = case.sar, case.optical, case.truth
    options: dict[str, Any] = {"model": model}
    if way == "swapped":
        moving, reference, truth = reference, moving, truth.inverse
        options |= {"moving_modality": "optical", "reference_modality": "sar"}
    try:
        if way == "bare":
            options |= {"moving_mask": moving.mask, "reference_mask": reference.mask}
            result = somareg.register(moving.data, reference.data, **options)
        else:
            result = somareg.register(moving, reference, **options)
    except SomaregError as refusal:
        return {"error_px": None, "decision": "refused", "why": str(refusal)}
    height, width = shape = reference.grid.shape
    points = pixel_centres(0, 0, width, height)
    field = (result.transform(points) - points).T.reshape(2, height, width).astype(np.float32)
    masks = {"reference_mask": reference.mask, "moving_mask": moving.mask}
    errors = point_errors(field, truth.matrix, shape, moving_shape=moving.grid.shape, **masks)
    per_moving = case.factor if (way == "swapped") == (case.coarse == "optical") else 1  # fine pixels per moving pixel
    return {"error_px": round(per_moving * rmse(errors), 3), "decision": result.verdict.decision}


def measure(
    data: Path, sets: Sequence[str], factors: Sequence[int], off: float, model: str
) -> Iterator[dict[str, Any]]:
    """A record per case and way; the parts and directions are the same for every model."""
    for name in sets:
        role, side, count, bare = SETS[name]
        stored = (load_pair(data, entry) for entry in list_pairs(data, {name}, {role}))
        places = [(pair, corner) for pair in stored for corner in windows(pair, side)]
        for index in np.unique(np.linspace(0, len(places) - 1, count, dtype=int)).tolist():
            pair, corner = places[index]
            for factor, coarse in itertools.product(factors, COARSE):
                rng = np.random.default_rng([index, factor, COARSE.index(coarse)])
                case = make_case(pair, corner, side, factor, coarse, off, rng)
                for way in WAYS if bare > 0 else WAYS[:2]:
                    if case is not None:
                        place = {"set": name, "pair": pair.entry.name, "window": corner}
                        yield {**place, "factor": factor, "coarse": coarse, "way": way, **run(case, way, model)}
            bare -= 1


def summarise(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row per set, way, coarse image and factor."""
    keys = ("set", "way", "coarse", "factor")
    rows = []
    for key in sorted({tuple(each[name] for name in keys) for each in records}):
        own = [each for each in records if tuple(each[name] for name in keys) == key]
        row = dict(zip(keys, key, strict=True))
        errors = [math.inf if each["error_px"] is None else each["error_px"] for each in own]
        per_reference = row["factor"] if (row["way"] == "swapped") == (row["coarse"] == "sar") else 1
        going = [error for error, each in zip(errors, own, strict=True) if each["decision"] == "go"]
        held = HELD * row["factor"]
        row |= {"n": len(own), "held": sum(error < held for error in errors), "fine_px": float(np.median(errors))}
        row |= {word: [each["decision"] for each in own].count(word) for word in ("go", "review", "no-go", "refused")}
        row |= {"wrong": sum(error >= 2.0 * per_reference for error in going)}
        rows.append({**row, "badly wrong": sum(error >= held for error in going)})
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown, a column per factor: held of all, median error in coarse pixels; go, review, no-go."""
    factors = sorted({row["factor"] for row in rows})
    lines = ["| " + " | ".join(["set", "way", "coarse", *(f"1 : {f}" for f in factors), "wrong go", "badly"]) + " |"]
    lines += ["|---|---|---|" + "---|" * len(factors) + "---:|---:|"]
    for key in dict.fromkeys((row["set"], row["way"], row["coarse"]) for row in rows):
        own = {row["factor"]: row for row in rows if (row["set"], row["way"], row["coarse"]) == key}
        cells = [
            "{held}/{n}, {:.2f} px; {go}/{review}/{no-go}".format(row["fine_px"] / f, **row)
            if (row := own.get(f))
            else "–"
            for f in factors
        ]
        sums = [str(sum(row[word] for row in own.values())) for word in ("wrong", "badly wrong")]
        lines.append("| " + " | ".join((*key, *cells, *sums)) + " |")
    return lines


def draw(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Shares of pairs that are held and that get go over the factor, a panel per way, all sets together."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.9), layout="constrained")
    for axes, way in zip(figure.subplots(1, len(WAYS), sharey=True), WAYS, strict=True):
        for coarse, colour in zip(COARSE, ("C0", "C1"), strict=True):
            for key, style in (("held", "o-"), ("go", "x:")):
                own = [row for row in rows if (row["way"], row["coarse"]) == (way, coarse)]
                factors = sorted({row["factor"] for row in own})
                totals = [[sum(row[k] for row in own if row["factor"] == f) for k in (key, "n")] for f in factors]
                name = f"{coarse} coarse: " + ("held" if key == "held" else "go")
                axes.plot(factors, [100 * part / n for part, n in totals], style, color=colour, label=name)
        axes.set(title=way, xlabel="ratio of the pixels", ylim=(-3, 103))
    figure.axes[0].set_ylabel("% of pairs")
    figure.axes[-1].legend(fontsize=7)
    figure.savefig(file, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--factors", nargs="+", type=int, default=FACTORS)
    parser.add_argument("--off", type=float, default=3.0, help="error of the moving image's place, coarse pixels")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--json", type=Path, help="file that the figures are written to")
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    records = []
    for each in measure(args.data, args.sets, args.factors, args.off, args.model):
        records.append(each)
        print(json.dumps(each), file=sys.stderr, flush=True)
    rows = summarise(records)
    print("\n".join(table(rows)))
    if args.json:
        lines = ",\n".join(map(json.dumps, records))
        card = choose_model(make_config({"model": args.model}), torch.device("cpu")).card
        told = f'"weights": {json.dumps(card.name if card else None)}, "off_coarse_px": {args.off}'
        args.json.write_text(f'{{{told}, "records": [\n{lines}\n]}}\n')
    if args.picture:
        draw(rows, args.picture)


if __name__ == "__main__":
    main()
