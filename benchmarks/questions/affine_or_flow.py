"""What do the global affine and the local flow each bring, and from which amplitude on does the flow pay?

    python benchmarks/questions/affine_or_flow.py --data DIR [--limit N] [--json FILE] [--picture FILE]

Validation samples of level m, whose truth is affine, and of level N, whose truth is an affine after a smooth warp, from
the committed lists. Five maps of each sample are compared, from the same pixels:

* affine: `Result.affine`, the affine part of a registration, which is all that `register(local=False)` finds.
* both: the registration, affine and then local flow.
* both, unjudged: the same without the judge, the weight-free channels that can veto a flow in a registration.
* flow: the map that the search elects, no affine fit after it, and the local flow, unjudged: it gets every chance.
* flow from nothing: the same from the identity.

`register` has no switch for the last three: they are made here from the engine's own parts, with the same features.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import somareg
from somareg.config import make_config
from somareg.geometry import AffineTransform, compose
from somareg.geometry.lattice import pixel_centres
from somareg.io import from_array
from somareg.lab.evaluate.list_file import committed_list
from somareg.lab.evaluate.metrics import cmr, paired_signs, point_errors, rmse, sign_test
from somareg.lab.evaluate.protocol import WARPED_LEVELS
from somareg.lab.evaluate.sample import LoadedSample, Sample, load_sample
from somareg.matching.describe import Describe, OrientationFeatures
from somareg.matching.flow import estimate_flow
from somareg.matching.matcher import Matcher
from somareg.matching.runoff import RunOff
from somareg.matching.start import find_start, reduction
from somareg.matching.vote import Guess
from somareg.preprocess.prepare import prepare
from somareg.register.choose import choose_model, engine_settings, pair_tensors, search_radius
from somareg.soma.features import LearnedFeatures
from somareg.types import Transform

WAYS = ("affine", "both", "both, unjudged", "flow", "flow from nothing")
BINS: Mapping[str, tuple[float, float]] = {"0": (-1.0, 0.0), "0-1": (0.0, 1.0), "1-2": (1.0, 2.0), "2-4": (2.0, 4.0)}
"""Name -> amplitudes (above, up to) of the true warp, RMS over the crop, pixels."""
PAIRED = (("both", "affine"), ("both", "flow"), ("flow", "affine"))
THRESHOLDS = (1.0, 2.0, 3.0)


@torch.inference_mode()
def flows(loaded: LoadedSample, affine: AffineTransform, model: str) -> tuple[Transform, ...]:
    """The maps of the last three ways, reference pixels -> moving pixels.

    Args:
        loaded: the sample.
        affine: of the registration.
        model: as for `register`.

    Raises:
        EstimationError: no window can be matched.
    """
    cfg = make_config({"model": model})
    fixed, moved = from_array(loaded.reference, role="reference"), from_array(loaded.moving, role="moving")
    radius, device = search_radius(cfg, fixed.grid), torch.device("cpu")
    prepared = prepare(moved, fixed, AffineTransform.identity(), cfg, longest=2048, radius_px=radius)
    pair = pair_tensors(prepared, device, (cfg.reference_modality, cfg.moving_modality))
    settings, network = engine_settings(cfg, fixed.grid, radius), choose_model(cfg, device).network
    features: Describe = OrientationFeatures(settings.features) if network is None else LearnedFeatures(network)
    matcher = Matcher(pair, features, settings.reuse_px if network else 0.0)
    factor = max(1, reduction(pair, settings.search.fine_px, settings.search.strip_px) // 2)
    run_off = RunOff(matcher, factor, settings.steps(features, pair.shape), settings.windows)
    elected = find_start(matcher, tuple(map(Guess, prepared.starts)), settings.search, run_off).affine
    assert settings.flow is not None  # a preset has one
    local = settings.flow if network is None else settings.flow.on(matcher.cells())
    starts = affine, elected, prepared.starts[0]
    return tuple(compose(each, estimate_flow(matcher, each, local).field) for each in starts)


def errors(loaded: LoadedSample, model: str) -> dict[str, float]:
    """Way -> RMSE over the valid overlap, pixels."""
    height, width = shape = loaded.reference.shape[-2:]
    points, truth = pixel_centres(0, 0, width, height), loaded.truth()
    result = somareg.register(loaded.moving, loaded.reference, model=model)
    assert isinstance(result.affine, AffineTransform)
    maps = (result.affine, result.transform, *flows(loaded, result.affine, model))
    moved = [(each(points) - points).T.reshape(2, height, width).astype(np.float32) for each in maps]
    return {way: rmse(point_errors(each, truth, shape)) for way, each in zip(WAYS, moved, strict=True)}


def chosen(name: str, limit: int) -> list[Sample]:
    """The first samples of levels m and N of a set's committed val list; m has as many as two levels of N."""
    levels = committed_list(name, "val").samples
    return [*levels["m"][: 2 * limit], *(sample for level in WARPED_LEVELS for sample in levels[level][:limit])]


def record(sample: Sample, found: Mapping[str, float]) -> dict[str, Any]:
    """What is kept of a sample; errors in pixels."""
    warp = sample.warp
    amplitude, length = (warp.rms_px, warp.length_px) if warp else (0.0, None)
    place = {"set": sample.pair.set, "group": sample.pair.group, "amplitude_px": amplitude, "length_px": length}
    return {**place, **{way: round(error, 3) for way, error in found.items()}}


def summarise(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row per set and bin: median RMSE and CMR of each way, and better, worse, z of the pairs of ways."""
    rows = []
    for name in dict.fromkeys(each["set"] for each in records):
        for label, (above, up_to) in BINS.items():
            own = [each for each in records if each["set"] == name and above < each["amplitude_px"] <= up_to]
            if not own:
                continue
            found = {way: np.array([each[way] for each in own]) for way in WAYS}
            row: dict[str, Any] = {"set": name, "bin": label, "n": len(own)}
            row["median_px"] = {way: round(float(np.median(found[way])), 2) for way in WAYS}
            row["cmr"] = {way: [round(100 * cmr(found[way], t)) for t in THRESHOLDS] for way in WAYS}
            places = [each["group"] for each in own]
            for way, other in PAIRED:
                better, worse, z = sign_test(paired_signs(found[way], found[other]), places)
                row[f"{way} against {other}"] = [better, worse, round(z, 1)]
            rows.append(row)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown: median RMSE (CMR@1/2/3) of each way, then better : worse (z)."""
    against = [f"{way} against {other}" for way, other in PAIRED]
    lines = ["| " + " | ".join(("set", "warp px", "n", *WAYS, *against)) + " |", "|---|---|" + "---:|" * 9]
    for row in rows:
        ways = [f"{row['median_px'][way]:.2f} ({'/'.join(map(str, row['cmr'][way]))})" for way in WAYS]
        signs = ["{} : {} ({:+})".format(*row[each]) for each in against]
        lines.append("| " + " | ".join((row["set"], row["bin"], str(row["n"]), *ways, *signs)) + " |")
    return lines


def draw(records: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Median RMSE over the amplitude of the warp, a panel per set."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(each["set"] for each in records))
    figure = Figure(figsize=(3.2 * len(names), 2.9), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        amplitudes = sorted({each["amplitude_px"] for each in records if each["set"] == name})
        for way in ("affine", "both", "flow"):
            own = [[r[way] for r in records if (r["set"], r["amplitude_px"]) == (name, px)] for px in amplitudes]
            axes.plot(amplitudes, [float(np.median(errors)) for errors in own], "o-", label=way)
        axes.plot(amplitudes, amplitudes, "k:", label="what a perfect affine leaves")
        axes.set(title=name, xlabel="true warp, px RMS", ylim=(0, 6))
    figure.axes[0].set_ylabel("median RMSE, px")
    figure.axes[0].legend(fontsize=7)
    figure.savefig(file, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["ombria", "multisensor", "sih"], help="sets with a val list")
    parser.add_argument("--limit", type=int, default=12, help="samples of each strength of level N; twice of level m")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--json", type=Path, help="file that the figures are written to")
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    samples = [sample for name in args.sets for sample in chosen(name, args.limit)]
    records = []
    for sample in samples:
        records.append(record(sample, errors(load_sample(args.data, sample), args.model)))
        print(json.dumps(records[-1]), file=sys.stderr, flush=True)
    rows = summarise(records)
    print("\n".join(table(rows)))
    if args.json:
        lines = ",\n".join(map(json.dumps, records))
        card = choose_model(make_config({"model": args.model}), torch.device("cpu")).card
        weights = json.dumps(card.name if card else None)
        args.json.write_text(f'{{"weights": {weights}, "records": [\n{lines}\n]}}\n')
    if args.picture:
        draw(records, args.picture)


if __name__ == "__main__":
    main()
