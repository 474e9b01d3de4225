"""What does speckle do to features, to their derivatives, and to what an FGE adds with and without attention?

    python benchmarks/questions/noise.py [--model compact] [--samples FILE] [--json FILE] [--picture]

A clean scene (synthetic optical, or with `--samples` optical samples smoothed by a Gaussian of 1 px) is taken as mean
backscatter: its grey values, with a deviation of `--contrast` dB, times gamma speckle of L looks, as 8-bit dB. The SAR
branch of the encoder describes it with and without speckle. Rows:

    image               grey values, before the network
    X                   features that enter the FGE ("features without FGE")
    |dX| sigma 1, 2     8 fixed oriented derivatives of every channel of X, absolute, ungated
    FGE                 what leaves the FGE
    FGE, mean gate      the same, the attention weights of each channel replaced by their mean over places
    FGE, ungated        the same without attention
    added, added ungated   what the FGE adds: the gradient branch with and without attention
    added, clean gate   the same, its attention weights computed without speckle

SNR: variance of a channel without speckle over the mean square change that speckle causes, median over channels, dB.
r: correlation of the maps with and without speckle over scenes, places and channels; blind to gain, as matching is.
In both, what is the same in all scenes at a place does not count: it is no signal.
"untrained" rows have an FGE with initial weights of the same settings on the same X. A rim of 32 px does not count, as
the padding of the network shows there.
Gains: sum of squared taps (white noise), the same weighted by a 1/f amplitude spectrum (natural images), and both as
measured on X.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from somareg.errors import ConfigError, InputError, SomaregError
from somareg.features.orientation import gaussian_taps, smooth
from somareg.features.pooling import block_mean
from somareg.lab.data.stacks import ProtocolSamples
from somareg.lab.data.synthetic import SyntheticSource
from somareg.soma.fge import FeatureGradientEnhancer
from somareg.soma.filter_banks import FixedFilters
from somareg.soma.network import Soma
from somareg.soma.weights import load_network, read_card, resolve

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "question-noise.png"
LOOKS = (1, 2, 4, 16, 64)
SIGMAS = (1.0, 2.0)
ROWS = (
    *("image", "X", "|dX| sigma 1", "|dX| sigma 2"),
    *("FGE", "FGE, mean gate", "FGE, ungated", "added", "added ungated", "added, clean gate"),
    *("untrained FGE", "untrained FGE, ungated", "untrained added", "untrained added ungated"),
)
GREY_PER_DB = 8.0  # of the 8-bit image
SIZE, RIM, STRIDES = 160, 32, (2, 4, 8)  # pixels


def synthetic_scenes(count: int, seed: int) -> Tensor:
    """(count, 1, SIZE, SIZE) grey values of optical scenes without noise of a radar."""
    tiles = SyntheticSource().scenes(count, SIZE, torch.Generator().manual_seed(seed))
    return tiles.optical.float().mean(1, keepdim=True)


def real_scenes(path: Path, count: int) -> Iterator[tuple[str, Tensor]]:
    """Set -> smoothed grey values of the optical images of its first samples (level m)."""
    for stack in (stack for stack in ProtocolSamples.load(path) if stack.level == "m"):
        yield stack.set, smooth(stack.reference[:count].float().mean(1, keepdim=True), 1.0)


def radar_image(scenes: Tensor, looks: int | None, contrast: float, generator: torch.Generator) -> Tensor:
    """Speckled scenes (None: without) as 8-bit dB, clipped to their percentiles 1-99, mean 0, deviation 1."""
    level = contrast * _whitened(scenes)
    if looks is not None:
        speckle = torch._standard_gamma(torch.full_like(level, float(looks)), generator=generator) / looks
        level = level + 10 * speckle.clamp_min(1e-5).log10()
    grey = (128 + GREY_PER_DB * level).round().clamp(0, 255)
    low, high = torch.quantile(grey.flatten(1), torch.tensor([0.01, 0.99]), dim=1)[..., None, None, None]
    return _whitened(torch.minimum(torch.maximum(grey, low), high))


def _whitened(images: Tensor) -> Tensor:
    centred = images - images.mean((-2, -1), keepdim=True)
    return centred / centred.square().mean((-2, -1), keepdim=True).sqrt().clamp_min(1e-6)


def enhancer_of(network: Soma, stride: int, name: str) -> FeatureGradientEnhancer:
    """The FGE of the SAR branch at a stride.

    Raises:
        ConfigError: the network has none.
    """
    branch = network.encoder.branches["sar"]
    enhancers = branch.enhancers
    assert isinstance(enhancers, nn.ModuleDict)
    if str(stride) not in enhancers:
        raise ConfigError(f"{name}: these weights hold no FGE (network.encoder.fge is null); give --model others")
    enhancer = enhancers[str(stride)]
    assert isinstance(enhancer, FeatureGradientEnhancer)
    if enhancer.gradient is None or enhancer.attention is None:
        raise ConfigError(f"{name}: its FGE lacks filters or attention; give --model weights with both")
    return enhancer


def fge_maps(fge: FeatureGradientEnhancer, x: Tensor, name: str) -> tuple[dict[str, Tensor], Tensor]:
    """What the FGE makes of features x (B, C, h, w) in several ways; and its gate (B, C, h, w), 1 where neutral."""
    maps = fge.attention_maps(x)
    assert maps is not None and fge.gradient is not None
    gate = 4.0 * maps.channel[:, :, None, None] * maps.spatial
    whole = x if fge.unit is None else x + fge.unit_gain * fge.unit(x)
    added = fge.branch_gain * fge.gradient(whole)
    even = gate.mean((-2, -1), keepdim=True)
    return {
        f"{name}FGE": whole + gate * added, f"{name}FGE, mean gate": whole + even * added,
        f"{name}FGE, ungated": whole + added, f"{name}added": gate * added, f"{name}added ungated": added,
    }, gate  # fmt: skip


def own_part(maps: Tensor) -> Tensor:
    """Maps (N, C, h, w) minus their mean over the N scenes: what is the same in all of them shows the network's
    padding, its biases and the mean of rectified noise, not the ground.
    """
    return maps - maps.mean(0)


def snr_db(clean: Tensor, noisy: Tensor) -> float:
    """Median over channels of the SNR, dB, of maps (N, C, h, w), see `own_part`."""
    signal = clean.square().mean((0, -2, -1))
    noise = (noisy - clean).square().mean((0, -2, -1))
    alive = signal > 1e-8 * signal.max()
    return 10 * math.log10(float((signal / noise.clamp_min(1e-20))[alive].median()))


def likeness(clean: Tensor, noisy: Tensor) -> float:
    """Correlation over scenes, places and channels of maps (N, C, h, w), see `own_part`."""
    return float((clean * noisy).sum() / (clean.square().sum() * noisy.square().sum()).sqrt().clamp_min(1e-20))


def theory(sigma: float, side: int = 128) -> tuple[float, float]:
    """Gain of the power of white noise, and of an image of 1/f amplitude of `side` cells, by one derivative filter."""
    bell, slope = (torch.tensor(taps, dtype=torch.float64) for taps in gaussian_taps(sigma))
    kernel = F.pad(torch.outer(bell, slope), (0, side - len(bell), 0, side - len(bell)))
    response = torch.fft.fft2(kernel).abs().square()
    frequency = torch.fft.fftfreq(side, dtype=torch.float64)
    power = frequency[:, None].square() + frequency.square()
    power[0, 0] = torch.inf
    return float(kernel.square().sum()), float((response / power).sum() / (1 / power).sum())


def gains(clean: Tensor, noisy: Tensor, rim: int) -> dict[str, dict[str, float]]:
    """sigma -> gains of power by the derivatives along x and y: of noise, of clean maps, and what theory says; without
    the outer `rim` cells.
    """
    bank, inner = FixedFilters(clean.shape[1], 2, SIGMAS), (..., slice(rim, -rim), slice(rim, -rim))
    told = {}
    for scale, sigma in enumerate(SIGMAS):
        signal, noise = (
            float(bank.gradient(maps, scale)[inner].var((-2, -1)).mean() / maps[inner].var((-2, -1)).mean())
            for maps in (clean, noisy - clean)
        )
        white, natural = theory(sigma)
        told[f"{sigma:g}"] = {"white": white, "noise": noise, "1/f": natural, "signal": signal}
    return told


@torch.no_grad()
def study(network: Soma, scenes: Tensor, contrast: float, name: str) -> dict[str, Any]:
    """Level -> figures of a network on scenes (N, 1, S, S); `name` is that of its weights, for messages."""
    draws = torch.Generator().manual_seed(0)
    images = {looks: radar_image(scenes, looks, contrast, draws) for looks in (None, *LOOKS)}
    encoded = {looks: network.encode(image, torch.ones_like(image), "sar").before for looks, image in images.items()}
    told: dict[str, Any] = {}
    for stride in STRIDES:
        trained, channels = enhancer_of(network, stride, name), encoded[None][stride].shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            fresh = FeatureGradientEnhancer(channels, trained.cfg).eval()
        bank, inner = FixedFilters(channels, 8, SIGMAS), slice(RIM // stride, -(RIM // stride))
        maps, gates, clean_gate = {}, {}, torch.ones(())
        for looks in (None, *LOOKS):
            x = encoded[looks][stride]
            rows, gate = fge_maps(trained, x, "")
            clean_gate = gate if looks is None else clean_gate
            rows |= {"added, clean gate": clean_gate * rows["added ungated"]} | fge_maps(fresh, x, "untrained ")[0]
            rows |= {f"|dX| sigma {s:g}": one for s, one in zip(SIGMAS, bank(x), strict=True)}
            rows |= {"X": x, "image": block_mean(images[looks], stride)}
            maps[looks] = {key: own_part(rows[key][..., inner, inner]) for key in ROWS}
            gate = gate[..., inner, inner]
            spread = gate.std((-2, -1)) / gate.mean((-2, -1)).clamp_min(1e-6)
            gates[str(looks or "none")] = {"mean": float(gate.mean()), "spread": float(spread.mean())}
        told[f"1/{stride}"] = {
            "rows": {
                key: {
                    str(n): {"snr_db": snr_db(clean, maps[n][key]), "r": likeness(clean, maps[n][key])} for n in LOOKS
                }
                for key, clean in maps[None].items()
            },
            "gate": gates,
            "gains": gains(own_part(encoded[None][stride]), own_part(encoded[4][stride]), max(RIM // stride, 6)),
        }
    return told


def draw(told: dict[str, Any], path: Path) -> None:
    """SNR beside that of X, and r, over looks, at 1/2 of the first set."""
    from matplotlib.figure import Figure

    title, level = next((name, levels["1/2"]["rows"]) for name, levels in told.items())
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    snr, r = figure.subplots(1, 2)
    shown = {
        "image": "k-",
        "X": "C7-",
        "|dX| sigma 1": "C0-",
        "|dX| sigma 2": "C9-",
        "FGE": "C1-",
        "FGE, ungated": "C1:",
    }
    shown |= {"added": "C3-", "added ungated": "C3:"}
    for name, style in shown.items():
        cells = [level[name][str(looks)] for looks in LOOKS]
        start = [level["X"][str(looks)]["snr_db"] for looks in LOOKS]
        snr.plot(LOOKS, [c["snr_db"] - x for c, x in zip(cells, start, strict=True)], style, label=name)
        r.plot(LOOKS, [c["r"] for c in cells], style)
    for axis, words in ((snr, "SNR minus that of X, dB"), (r, "r")):
        axis.set_xscale("log", base=2)
        axis.set_xticks(LOOKS, [str(looks) for looks in LOOKS])
        axis.set_xlabel("looks")
        axis.set_ylabel(words)
    figure.suptitle(f"{title}, 1/2", fontsize=9)
    figure.legend(*snr.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=90)


def rounded(figures: Any) -> Any:
    """The same with numbers of four decimals."""
    return json.loads(json.dumps(figures), parse_float=lambda text: round(float(text), 4))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="compact", help="weights with an FGE: a file or a name")
    parser.add_argument("--samples", type=Path, help="file of SAR-optical samples, for real scenes as well")
    parser.add_argument("--count", type=int, default=16, help="scenes of each set")
    parser.add_argument("--contrast", type=float, default=3.0, help="deviation of the clean scene, dB")
    parser.add_argument("--json", type=Path, help="file that the figures are written to")
    parser.add_argument("--picture", action="store_true", help=f"draw {PICTURE.name} of the documentation")
    asked = parser.parse_args(arguments)
    try:
        path = resolve(asked.model)
        network, card = load_network(path), read_card(path)
        enhancer_of(network, STRIDES[0], asked.model)
        if asked.count < 1:
            raise InputError(f"--count {asked.count} leaves no scene; give at least 1")
        sets = {"synthetic": synthetic_scenes(asked.count, 0)}
        sets |= dict(real_scenes(asked.samples, asked.count)) if asked.samples else {}
        told = {name: study(network, scenes, asked.contrast, asked.model) for name, scenes in sets.items()}
    except SomaregError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, levels in told.items():
        for level, figures in levels.items():
            print(f"\n{name} {level}    SNR dB (r) at looks {', '.join(map(str, LOOKS))}")
            for row, cells in figures["rows"].items():
                print(f"{row:26}" + "  ".join(f"{c['snr_db']:6.1f} ({c['r']:.2f})" for c in cells.values()))
            print("gate " + "  ".join(f"{k}: {g['mean']:.2f} +- {g['spread']:.2f}" for k, g in figures["gate"].items()))
            for sigma, g in figures["gains"].items():
                print(f"gains, sigma {sigma}: " + "  ".join(f"{key} {value:.4f}" for key, value in g.items()))
    if asked.json:
        whole = {
            "weights": {card.name: card.sha256},
            "contrast_db": asked.contrast,
            "scenes": asked.count,
            "sets": told,
        }
        asked.json.write_text(json.dumps(rounded(whole), indent=1) + "\n", encoding="utf-8")
    if asked.picture:
        draw(told, PICTURE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
