"""From a configuration to the device, the model, the search radius and the engine settings.

`choose_model` chooses the engine; `Chosen.on` revises the choice once the images' working sizes are known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from somareg.config import Preset, RegisterConfig
from somareg.errors import ConfigError, guarded
from somareg.io import ground_metric
from somareg.matching.engine import EngineCfg, preset
from somareg.matching.pair import Pair
from somareg.matching.search import ALL_AROUND, ANY_SCALE
from somareg.preprocess.prepare import Prepared
from somareg.quality.calibration import Engine, calibrated_weights
from somareg.soma.encoder import MIN_SIDE
from somareg.soma.network import Soma
from somareg.soma.weights import DEFAULT_WEIGHTS, ModelCard, embedded, load_network, read_card, resolve
from somareg.soma.weights.frozen import UNCHECKED, check_unused
from somareg.types import BoolArray, FloatArray, Grid, Modality

AUTO = "auto"
AS_OPTICAL: frozenset[Modality] = frozenset({"optical", "multispectral", "nir"})
"""Modalities that the weights that ship match with SAR as well as those that they were trained on."""
WEIGHT_FREE = "orientation"
LONGEST = {"fast": 1024, "base": 2048, "precise": 4096}
"""Per preset, longer side up to which a pair that is matched whole keeps its resolution, pixels."""
BETWEEN_DEG, BETWEEN_SCALES = 8.0, (0.87, 1.15)  # a little more than the steps of `locate`
HALVED_PX = 400
"""Shorter side from which "fast" halves the resolution; below it windows would become too uncertain."""
LIBRARY_BYTES = 420e6
"""Memory of torch, GDAL, the weights and all else in a process that does not grow with the images."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """The engine that runs, and why.

    Attributes:
        name: "orientation", the name of weights that ship, or the path that was given.
        network: None for the weight-free engine.
        card: of the network's weights.
        by_name: whether the user named this engine; one chosen by "auto" is replaced instead of failing.
        notes: decisions taken, for the result.
        rival: a second engine, which also matches a pair that is matched whole; the likelier result is kept.
    """

    name: str = WEIGHT_FREE
    network: Soma | None = None
    card: ModelCard | None = None
    by_name: bool = False
    notes: tuple[str, ...] = ()
    rival: Chosen | None = None

    @property
    def engine(self) -> Engine:
        """The engine for whose results the verdict is calibrated."""
        return "orientation" if self.network is None else "learned"

    @property
    def settings(self) -> dict[str, str | None]:
        """The fields that a result records, JSON-ready."""
        card = self.card
        frozen = None if self.network is None else self.network.encoder.dinov2
        return {
            "model_used": self.name,
            "model_version": card.name if card else None,
            "model_sha256": card.sha256 if card else None,
            "dinov2_used": frozen.identity.name if frozen else None,
            "dinov2_sha256": frozen.identity.sha256 if frozen else None,
        }

    def on(self, reference: tuple[int, int], moving: tuple[int, int]) -> Chosen:
        """The engine for images of these working sizes (H, W): a network needs `MIN_SIDE` pixels a side.

        Raises:
            ConfigError: the user named a model and an image is too narrow; the message names the sizes and the way out.
        """
        if min(*reference, *moving) >= MIN_SIDE:
            return self
        if self.network is None:
            return self if self.rival is None else replace(self, rival=None)
        sizes = f"{reference[1]} x {reference[0]} (reference) and {moving[1]} x {moving[0]} px (moving)"
        if self.by_name:
            raise ConfigError(
                f"a learned model needs {MIN_SIDE} px a side, but the pair is matched at {sizes}; "
                "use model='orientation'"
            )
        return _without_weights(f"{self.name} needs {MIN_SIDE} px a side, the pair is matched at {sizes}")


def choose_model(cfg: RegisterConfig, device: torch.device) -> Chosen:
    """The engine for a configuration, its network and DINOv2 loaded once per process.

    "auto" takes the weights that ship for the pairs that they were trained on, SAR against optical, near infrared
    included. For other pairs it takes the engine without weights, and the weights as its rival.

    Raises:
        ConfigError, WeightsError, UnsupportedError: see `load_model`.
    """
    if cfg.model == WEIGHT_FREE:
        check_unused(cfg.dinov2, cfg.model)
        return Chosen(by_name=True)
    if cfg.tie_points_use == "replace":
        return _without_weights("the given tie points replace the match")
    path = _weights_of(cfg.model)
    if path is None:
        check_unused(cfg.dinov2, cfg.model)
        return _without_weights("none are in this installation")
    modalities = {cfg.moving_modality, cfg.reference_modality}
    if cfg.model == AUTO and not ("sar" in modalities and modalities & AS_OPTICAL):
        pair = f"{cfg.moving_modality} against {cfg.reference_modality}"
        free = _without_weights(f"{DEFAULT_WEIGHTS} was trained on SAR against optical, the pair is {pair}")
        rival = Chosen(DEFAULT_WEIGHTS, load_network(path, device, dinov2=cfg.dinov2), read_card(path))
        told = (
            f"{DEFAULT_WEIGHTS} explains the images better than the engine without weights, though the pair is {pair}"
        )
        return replace(free, rival=replace(rival, notes=(told,)))
    card = read_card(path)
    name = DEFAULT_WEIGHTS if cfg.model == AUTO else cfg.model
    network = load_network(path, device, dinov2=cfg.dinov2)
    notes: tuple[str, ...] = ()
    if card.sha256 != calibrated_weights("learned"):
        notes = ("the verdict was calibrated for other weights than these; read its probability with care",)
    if network.encoder.dinov2 is not None and card.dinov2 is None:
        notes = (*notes, UNCHECKED)
    return Chosen(name, network, card, cfg.model != AUTO, notes)


def _without_weights(reason: str) -> Chosen:
    return Chosen(notes=(f"matched without weights: {reason}",))


def _weights_of(model: str) -> Path | None:
    """The file behind a `model=` name; None for the weight-free engine, and for "auto" where no weights ship."""
    if model == WEIGHT_FREE:
        return None
    return embedded().get(DEFAULT_WEIGHTS) if model == AUTO else resolve(model)


@guarded
def load_model(model: str = AUTO, *, device: str = "auto", dinov2: str | Path | None = None) -> Soma | None:
    """The network behind a `model=` name, loaded once per process.

    Args:
        model: as for `register`; "auto" is the network that ships.
        device: "auto", "cpu", "cuda" ...
        dinov2: as for `register`.

    Returns:
        A network in eval mode; None for the weight-free engine, and for "auto" in an installation without weights.

    Raises:
        ConfigError: unknown name; the message suggests the nearest. Or `dinov2` is given for a model without DINOv2.
        WeightsError: the file is damaged, unfit or differs from its card; or DINOv2 is missing or not the right one.
        UnsupportedError: the card has a later format, or the network needs an extra that is not installed.
    """
    path = _weights_of(model)
    named = None if dinov2 is None else str(dinov2)
    if path is None:
        check_unused(named, model)
        return None
    return load_network(path, choose_device(device), dinov2=named)


def choose_device(name: str) -> torch.device:
    """The torch device of a name; "auto" takes CUDA, then the CPU.

    Raises:
        ConfigError: unknown or missing device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # fails for "meta", whose tensors have no values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device '{name}' is not available; use cpu, or auto to choose") from error
    return device


def check_demands(cfg: RegisterConfig, reference: Grid) -> None:
    """Check that the verdict can answer what the user demands of it.

    Raises:
        ConfigError: the largest error is given in metres, but without a CRS the length of a pixel is unknown.
    """
    if cfg.max_error_m is not None and ground_metric(reference) is None:
        raise ConfigError("max_error_m needs a georeferenced reference; use max_error, which is in pixels")


def search_radius(
    cfg: RegisterConfig, grid: Grid, longest: float | None = None, places: FloatArray | None = None
) -> float:
    """Search radius in reference pixels.

    The search certainly reaches this far; it is not a bound, because the refinement may go somewhat further.
    Default: 5 % of the longer side, limited to 32 to 200 px, around a georeference; 14 % otherwise.

    Args:
        cfg: settings.
        grid: of the reference.
        longest: longer side of the image that is searched for, reference pixels; that of the reference if not given.
        places: (N, 2) reference pixels where it is searched for: a radius in metres reaches at least that far in every
            direction at each of them. The centre of the reference if not given.

    Raises:
        ConfigError: the radius is in metres, but without a CRS the length of a pixel is unknown.
    """
    longest = max(grid.shape) if longest is None else longest
    if cfg.search_radius_px is not None:
        return cfg.search_radius_px
    if cfg.search_radius_m is not None:
        metric = ground_metric(grid, places)
        if metric is None:
            raise ConfigError("search_radius_m needs a georeferenced reference; use search_radius_px")
        reach = metric.reach_px(cfg.search_radius_m)
        return reach if math.isfinite(reach) else float(max(grid.shape))  # a pole, where degrees have no width
    if grid.is_georeferenced:
        return min(max(0.05 * longest, 32.0), 200.0)
    return 0.14 * longest


def longest_of(preset: Preset, shape: tuple[int, int]) -> int:
    """Longer side, pixels, at which a common ground of (height, width) is matched."""
    longest = min(LONGEST[preset], max(shape))
    return min(longest, -(-max(shape) // 2)) if preset == "fast" and min(shape) >= HALVED_PX else longest


def engine_settings(cfg: RegisterConfig, grid: Grid, radius_px: float, *, is_looked_for: bool = False) -> EngineCfg:
    """Engine settings from the preset and the search range.

    Args:
        cfg: options.
        grid: of the part of the reference in use.
        radius_px: search radius.
        is_looked_for: whether one image was looked for in the other one before, in all rotations and scales of the
            search; only the steps between those are left to the engine.
    """
    engine = preset(cfg.preset)
    search = replace(engine.search, radius=radius_px / max(grid.shape))
    # Between SAR and another modality keypoints hardly ever match.
    search = replace(search, hints_first=(cfg.moving_modality == "sar") == (cfg.reference_modality == "sar"))
    if is_looked_for:
        search = replace(search, rotation_deg=BETWEEN_DEG, scale=BETWEEN_SCALES)
    elif cfg.search == "full":
        search = replace(search, rotation_deg=ALL_AROUND, scale=ANY_SCALE, keep=2 * search.keep)
    elif cfg.search == "local" or grid.is_georeferenced:
        search = replace(search, rotation_deg=4.0, scale=(0.96, 1.04))
    else:
        search = replace(search, widens=True)
    engine = replace(engine, search=search)
    return engine if engine.flow is None else replace(engine, flow=replace(engine.flow, follow=cfg.local))


def pair_tensors(
    prepared: Prepared, device: torch.device, modalities: tuple[Modality, Modality] = ("other", "other")
) -> Pair:
    """The prepared images as tensors on a device; `modalities` are of reference and moving."""
    p = prepared
    return to_pair(p.reference, p.reference_mask, p.moving, p.moving_mask, device, modalities)


def to_pair(
    reference: NDArray[np.float32],
    reference_mask: BoolArray,
    moving: NDArray[np.float32],
    moving_mask: BoolArray,
    device: torch.device,
    modalities: tuple[Modality, Modality],
) -> Pair:
    """Images (C, H, W) and masks (H, W) as tensors on a device; `modalities` are of reference and moving."""

    def tensor(array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device)[None]

    return Pair(tensor(reference), tensor(reference_mask[None]), tensor(moving), tensor(moving_mask[None]), modalities)
