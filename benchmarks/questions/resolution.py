"""How much coarser may one image of a pair be: 1 m against 10 m, 10 m against 60 m?

    python benchmarks/questions/resolution.py --data DIR [--limit N] [--json FILE] [--picture FILE]

Aligned validation pairs. One image, SAR (moving) or optical (reference), is averaged over blocks of FACTOR x FACTOR
pixels and covers the whole window; of the other one a part of 7/8 of the side is cut at its own pixels. So no frame
tells where the images meet, and the truth is known to the error of the labels. Each such pair is registered twice:

* placed: as `Raster`s in memory, whose `Grid` holds pixel size and place; the moving image's place is wrong by
  OFF coarse pixels in a random direction.
* bare: as arrays; nothing tells the ratio of the pixels.

Errors are RMSE over the overlap, in pixels of the fine image and, divided by the factor, of the coarse one. A *go* is
wrong when the error is 2 pixels of the reference or more, which the verdict promises to be unlikely, and badly wrong
when it is 2 coarse pixels or more. `register` refuses images under 64 px a side; factors that would make such are left
out.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

import somareg
from somareg.errors import SomaregError
from somareg.geometry import AffineTransform
from somareg.geometry.lattice import pixel_centres
from somareg.io import from_array
from somareg.io.raster import MIN_SIDE
from somareg.lab.data.pairs import StoredPair, list_pairs, load_pair
from somareg.lab.evaluate.metrics import point_errors, rmse
from somareg.types import BoolArray, Grid, Raster, Result

SETS = {"vhrcity": ("val", 256), "vhrpublished": ("val-3px", 512), "ombria": ("val", 256), "sih": ("train", 704)}
"""Set -> role of its validation pairs, and side of the windows, pixels."""
FACTORS = (1, 2, 4, 6, 10)
COARSE = ("sar", "optical")
WAYS = ("placed", "bare")
UTM = CRS.from_epsg(32643).to_wkt()
CORNER = 500_000.0, 4_000_000.0  # of the window on the ground, metres; a fine pixel is one metre
LEAST_VALID = 0.9


@dataclass(frozen=True, eq=False)
class Case:
    """A pair at two resolutions.

    Attributes:
        moving, reference: SAR and optical, placed where they are; `mask` True where both showed imagery.
        truth: reference pixels -> moving pixels.
        factor: coarse pixels are this many fine ones.
        fine_scale: fine pixels per moving pixel.
    """

    moving: Raster
    reference: Raster
    truth: AffineTransform
    factor: int
    fine_scale: int


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
        off: distance by which the moving image is placed wrongly, coarse pixels.
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
        raster = from_array(pixels, mask=mask, role="moving" if name == "sar" else "reference")
        left, top = first - np.array(corner) + np.array(offset)  # where the window's first pixel lies on the ground
        place = (float(step), 0.0, CORNER[0] + left + slip[0], 0.0, -float(step), CORNER[1] - top - slip[1])
        rasters[name] = replace(raster, grid=Grid(pixels.shape[2], pixels.shape[1], place, UTM))
        rim = (step - 1) / 2
        to_ground[name] = AffineTransform(np.array([[step, 0, left + rim], [0, step, top + rim]], float))
    truth = to_ground["sar"].inverse.after(to_ground["optical"])
    return Case(rasters["sar"], rasters["optical"], truth, factor, factor if coarse == "sar" else 1)


def averaged(data: NDArray[np.uint8], mask: BoolArray, factor: int) -> tuple[NDArray[np.uint8], BoolArray]:
    """Means over blocks of bands (C, H, W), and which blocks (h, w) are valid throughout."""
    size = (data.shape[2] // factor, data.shape[1] // factor)
    bands = [cv2.resize(np.ascontiguousarray(band), size, interpolation=cv2.INTER_AREA) for band in data]
    valid: BoolArray = np.logical_and.reduce(mask.reshape(size[1], factor, size[0], factor), axis=(1, 3))
    return np.stack(bands).astype(np.uint8), valid


def run(case: Case, way: str, model: str) -> dict[str, Any]:
    """Register a case: its verdict, and its error in fine pixels (infinite, with the reason, where refused)."""
    try:
        if way == "placed":
            result = somareg.register(case.moving, case.reference, model=model)
        else:
            arrays, masks = (case.moving.data, case.reference.data), (case.moving.mask, case.reference.mask)
            result = somareg.register(*arrays, moving_mask=masks[0], reference_mask=masks[1], model=model)
    except SomaregError as refusal:
        return {"error_px": None, "decision": "refused", "why": str(refusal)}
    return {"error_px": round(error_of(result, case), 3), "decision": result.verdict.decision}


def error_of(result: Result, case: Case) -> float:
    """RMSE over the valid overlap, fine pixels."""
    height, width = case.reference.grid.shape
    points = pixel_centres(0, 0, width, height)
    field = (result.transform(points) - points).T.reshape(2, height, width).astype(np.float32)
    moving_shape, masks = (
        case.moving.grid.shape,
        {"reference_mask": case.reference.mask, "moving_mask": case.moving.mask},
    )
    errors = point_errors(field, case.truth.matrix, (height, width), moving_shape=moving_shape, **masks)
    return case.fine_scale * rmse(errors)


def measure(
    data: Path, sets: Mapping[str, tuple[str, int]], factors: Sequence[int], limit: int, off: float, model: str
) -> Iterator[dict[str, Any]]:
    """A record per case and way; the parts and directions are the same for every model."""
    for name, (role, side) in sets.items():
        stored = (load_pair(data, entry) for entry in list_pairs(data, {name}, {role}))
        places = [(pair, corner) for pair in stored for corner in windows(pair, side)]
        for index in np.unique(np.linspace(0, len(places) - 1, limit, dtype=int)):
            for factor in factors:
                for number, coarse in enumerate(COARSE):
                    rng = np.random.default_rng([int(index), factor, number])
                    pair, corner = places[index]
                    case = make_case(pair, corner, side, factor, coarse, off, rng)
                    if case is None:
                        continue
                    for way in WAYS:
                        place = {"set": name, "pair": pair.entry.name, "window": corner}
                        yield {**place, "factor": factor, "coarse": coarse, "way": way, **run(case, way, model)}


def summarise(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row per set, way, coarse side and factor."""
    keys = ("set", "way", "coarse", "factor")
    rows = []
    for key in dict.fromkeys(tuple(each[name] for name in keys) for each in records):
        own = [each for each in records if tuple(each[name] for name in keys) == key]
        factor = int(key[3])
        fine = np.array([math.inf if each["error_px"] is None else each["error_px"] for each in own])
        decisions = [each["decision"] for each in own]
        limit = 2.0 * (factor if key[2] == "optical" else 1)  # two pixels of the reference
        wrong = [decision == "go" and error >= limit for decision, error in zip(decisions, fine, strict=True)]
        badly = [decision == "go" and error >= 2.0 * factor for decision, error in zip(decisions, fine, strict=True)]
        median = float(np.median(fine))
        row = {**dict(zip(keys, key, strict=True)), "n": len(own)}
        row |= {"fine_px": median if math.isfinite(median) else None, "held": int((fine < 2.0 * factor).sum())}
        row |= {word: decisions.count(word) for word in ("go", "review", "no-go", "refused")}
        rows.append({**row, "wrong go": sum(wrong), "badly wrong go": sum(badly)})
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown."""
    heads = ["set", "way", "coarse", "factor", "n", "median fine px", "coarse px", "below 2 coarse px"]
    heads += ["go / review / no-go / refused", "wrong go", "badly wrong go"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|---|" + "---:|" * 8]
    for row in rows:
        median = math.inf if row["fine_px"] is None else row["fine_px"]
        cells = [str(row[key]) for key in ("set", "way", "coarse", "factor", "n")]
        cells += [f"{median:.2f}", f"{median / row['factor']:.2f}", str(row["held"])]
        cells += [" / ".join(str(row[word]) for word in ("go", "review", "no-go", "refused"))]
        lines.append("| " + " | ".join((*cells, str(row["wrong go"]), str(row["badly wrong go"]))) + " |")
    return lines


def draw(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Share of pairs right within 2 coarse pixels, and share of go, over the factor; all sets together."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.9), layout="constrained")
    for axes, way in zip(figure.subplots(1, 2, sharey=True), WAYS, strict=True):
        for coarse, colour in zip(COARSE, ("C0", "C1"), strict=True):
            for key, style in (("held", "o-"), ("go", "x:")):
                own = [row for row in rows if (row["way"], row["coarse"]) == (way, coarse)]
                factors = sorted({row["factor"] for row in own})
                totals = [[sum(row[k] for row in own if row["factor"] == f) for k in (key, "n")] for f in factors]
                name = f"{coarse} coarse: " + ("below 2 coarse px" if key == "held" else "go")
                axes.plot(factors, [100 * part / n for part, n in totals], style, color=colour, label=name)
        axes.set(title=way, xlabel="ratio of the pixels", ylim=(-3, 103))
    figure.axes[0].set_ylabel("% of pairs")
    figure.axes[1].legend(fontsize=7)
    figure.savefig(file, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--factors", nargs="+", type=int, default=FACTORS)
    parser.add_argument("--limit", type=int, default=5, help="windows of each set, spread over its pairs")
    parser.add_argument("--off", type=float, default=3.0, help="error of the moving image's place, coarse pixels")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--json", type=Path, help="file that the figures are written to")
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    sets = {name: SETS[name] for name in args.sets}
    records = list(measure(args.data, sets, args.factors, args.limit, args.off, args.model))
    rows = summarise(records)
    print("\n".join(table(rows)))
    if args.json:
        told = {"model": json.dumps(args.model), "off_coarse_px": args.off}
        parts = [f'"{name}": {value}' for name, value in told.items()]
        parts += [
            f'"{name}": [\n' + ",\n".join(map(json.dumps, every)) + "\n]"
            for name, every in (("rows", rows), ("records", records))
        ]
        args.json.write_text("{" + ",\n".join(parts) + "}\n")
    if args.picture:
        draw(rows, args.picture)


if __name__ == "__main__":
    main()
