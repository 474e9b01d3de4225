"""What a configuration means for the machine and the engine: device, model, search radius, engine settings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from somareg.config import RegisterConfig
from somareg.errors import ConfigError
from somareg.features.encoder import MIN_SIDE
from somareg.io import metres_per_pixel
from somareg.matching.engine import EngineCfg, preset
from somareg.matching.network import Soma
from somareg.matching.pair import Pair
from somareg.matching.search import SearchCfg
from somareg.matching.weights import load_network, resolve
from somareg.preprocess.prepare import Prepared
from somareg.types import Grid, Modality

WEIGHT_FREE = "orientation"
LONGEST = {"fast": 1024, "base": 2048, "precise": 4096}
SMALL_PX = 300  # longer side up to which one thread is as fast as two


def load_model(model: str = "auto", *, device: str = "auto") -> Soma | None:
    """The network behind a `model=` name, loaded once per process.

    Args:
        model: as for `register`.
        device: "auto", "cpu", "cuda" ...

    Returns:
        A network in eval mode, or None for the weight-free engine.

    Raises:
        ConfigError: unknown name; the message suggests the nearest.
        WeightsError: a file that is damaged, unfit or not what its card says.
    """
    if model in ("auto", WEIGHT_FREE):
        return None
    return load_network(resolve(model), str(choose_device(device)))


def choose_device(name: str) -> torch.device:
    """The torch device of a name; "auto" takes CUDA, then the CPU.

    Raises:
        ConfigError: unknown or absent device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" makes tensors but no numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device '{name}' is not available; use cpu, or auto to choose") from error
    return device


@contextmanager
def few_threads(prepared: Prepared) -> Iterator[None]:
    """One thread for small images, then as before: more gain nothing there, and on a busy computer the threads that
    spin while they wait for each other take many times longer.
    """
    before = torch.get_num_threads()
    if max(prepared.reference_mask.shape) <= SMALL_PX:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def search_radius(cfg: RegisterConfig, grid: Grid) -> float:
    """Search radius in reference pixels.

    It is how far the search certainly reaches, not a bound: the refinement may go somewhat further.
    Without an option: 5 % of the longer side but 32 to 200 px around a georeference, 14 % otherwise.
    """
    longest = max(grid.shape)
    if cfg.search_radius_px is not None:
        return cfg.search_radius_px
    if cfg.search_radius_m is not None:
        metres = metres_per_pixel(grid)
        if metres is None:
            raise ConfigError("search_radius_m needs a georeferenced reference; use search_radius_px")
        return cfg.search_radius_m / metres
    if grid.is_georeferenced:
        return min(max(0.05 * longest, 32.0), 200.0)
    return 0.14 * longest


def engine_settings(cfg: RegisterConfig, grid: Grid, radius_px: float) -> EngineCfg:
    """Preset and search range as engine settings."""
    radius = radius_px / max(grid.shape)
    if cfg.search == "full":
        search = SearchCfg(180.0, 5.0, (0.68, 1.45), 1.08, radius, keep=24)
    elif cfg.search == "local" or grid.is_georeferenced:
        search = SearchCfg(4.0, 4.0, (0.96, 1.04), 1.04, radius)
    else:
        search = SearchCfg(radius=radius)
    engine = replace(preset(cfg.preset), search=search)
    if cfg.local or engine.flow is None:
        return engine
    return replace(engine, flow=replace(engine.flow, gain=math.inf))


def check_sides(pair: Pair) -> None:
    """Refuse a pair that is too narrow, at working resolution, for a network.

    Raises:
        ConfigError: naming the sizes and the way out.
    """
    (height, width), (moving_height, moving_width) = pair.shape, pair.moving.shape[-2:]
    if min(height, width, moving_height, moving_width) < MIN_SIDE:
        raise ConfigError(
            f"a learned model needs {MIN_SIDE} px a side, but the pair is matched at {width} x {height} (reference) "
            f"and {moving_width} x {moving_height} px (moving); use model='orientation'"
        )


def pair_tensors(
    prepared: Prepared, device: torch.device, modalities: tuple[Modality, Modality] = ("other", "other")
) -> Pair:
    """The prepared images as tensors on a device; `modalities` are of reference and moving."""

    def tensor(array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device)[None]

    return Pair(
        tensor(prepared.reference),
        tensor(prepared.reference_mask[None]),
        tensor(prepared.moving),
        tensor(prepared.moving_mask[None]),
        modalities,
    )
