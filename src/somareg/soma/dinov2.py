"""Frozen DINOv2 features at 1/16: what the published encoder takes in place of a learned coarse map.

The ViT (Oquab et al., 2023; with registers Darcet et al., 2024) is read by `transformers` from a local folder or the
local cache, never from the network unless `FrozenDinov2.load` is told so. It is no part of the module that owns it: its
hundreds of millions of parameters are neither trained, saved, copied nor counted with ours. The embedded default
encoder does not use it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from somareg.errors import ConfigError, InputError, UnsupportedError, WeightsError
from somareg.soma.pyramid import pad_to_multiple

STRIDE = 16
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
_CLASSES = {"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"}
_FILES = ("config.json", "model.safetensors")


@dataclass(frozen=True)
class Dinov2Cfg:
    """Which DINOv2, where its files are and what it is shown.

    Attributes:
        name: repository of the weights; read from the local cache when `folder` is None.
        folder: folder that holds config.json and model.safetensors.
        size: longer side, in pixels, to which the image is resized before the ViT; None keeps the image's own size.
            The published encoder shows 512 pixels at 448, so that one token of 14 pixels falls on each cell.
        channels: channels of the map, the hidden size of the weights: 384 small, 768 base, 1024 large, 1536 giant.
            Stated here so that a network can be built, and its checkpoint read, where the weights are not.
        bands: 0-based bands shown as red, green and blue. None: one band is shown as grey, of two the third colour is
            their mean, of three or four the first three.
    """

    name: str = "facebook/dinov2-with-registers-large"
    folder: str | None = None
    size: int | None = None
    channels: int = 1024
    bands: tuple[int, int, int] | None = None


def as_imagenet(image: Tensor, bands: tuple[int, int, int] | None = None) -> Tensor:
    """Three channels as DINOv2 was trained on, from z-scored bands.

    A band of mean 0 and deviation 1 becomes one of ImageNet's average brightness and contrast (0.449 and 0.226 of full
    scale, clipped to 0-1), the same for all colours: a grey image stays grey. ImageNet's mean and deviation per colour
    then normalise it, as in the ViT's training.

    Args:
        image: (B, C, H, W) float32, bands of mean 0 and deviation 1.
        bands: see `Dinov2Cfg.bands`.

    Returns:
        (B, 3, H, W) float32 in -2.2 to 2.7.

    Raises:
        InputError: a band that the image lacks, or more than four bands and no choice among them.
    """
    mean = image.new_tensor(_IMAGENET_MEAN).view(1, 3, 1, 1)
    deviation = image.new_tensor(_IMAGENET_DEVIATION).view(1, 3, 1, 1)
    brightness = (_three(image, bands) * deviation.mean() + mean.mean()).clamp(0.0, 1.0)
    return (brightness - mean) / deviation


def _three(image: Tensor, bands: tuple[int, int, int] | None) -> Tensor:
    count = image.shape[1]
    if bands is not None:
        if not all(0 <= band < count for band in bands):
            raise InputError(f"Dinov2Cfg.bands is {bands}, but the image has {count} bands (0 to {count - 1})")
        return image[:, list(bands)]
    if count == 1:
        return image.expand(-1, 3, -1, -1)
    if count == 2:
        return torch.cat([image, image.mean(1, keepdim=True)], dim=1)
    if count <= 4:
        return image[:, :3]
    raise InputError(f"the image has {count} bands; choose three for DINOv2 by Dinov2Cfg.bands")


def _resize(image: Tensor, size: tuple[int, int], *, antialias: bool = False) -> Tensor:
    """Bilinear, edge on edge; without `antialias` a plane is kept exactly, with it no pixel is skipped."""
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=antialias)


def _token_grid(height: int, width: int, patch: int, size: int | None) -> tuple[int, int]:
    """Tokens along y and x for an image that is to be shown with its longer side at `size` pixels."""
    factor = (1.0 if size is None else size / max(height, width)) / patch
    return max(1, round(height * factor)), max(1, round(width * factor))


def read_vit(cfg: Dinov2Cfg, *, allow_download: bool = False) -> nn.Module:
    """Read the ViT in evaluation mode, in float32, without gradients.

    Args:
        cfg: settings.
        allow_download: let `transformers` fetch missing files over the network.

    Raises:
        UnsupportedError: `transformers` is not installed, or the files are of a model that is no DINOv2.
        WeightsError: files are missing, damaged or incomplete.
        ConfigError: `cfg.channels` is not the hidden size of the weights.
    """
    try:
        transformers = importlib.import_module("transformers")
        damaged: type[Exception] = importlib.import_module("safetensors").SafetensorError
    except ImportError as error:
        raise UnsupportedError(
            "the DINOv2 encoder needs the package transformers: pip install 'somareg[dinov2]'"
        ) from error
    source = cfg.name if cfg.folder is None else str(Path(cfg.folder).expanduser())
    if cfg.folder is not None and not Path(source).is_dir():
        raise _missing(cfg, source)
    options = {"local_files_only": not allow_download}
    try:
        settings, _ = transformers.PretrainedConfig.get_config_dict(source, **options)
        if not settings:
            raise _missing(cfg, source)
        _check(cfg, source, settings)
        model_class = getattr(transformers, _CLASSES[settings["model_type"]])
        vit, report = model_class.from_pretrained(source, use_safetensors=True, output_loading_info=True, **options)
    except (ConfigError, UnsupportedError, WeightsError):
        raise
    except (OSError, ValueError, RuntimeError, damaged) as error:
        if isinstance(error, OSError) and not _complete(source):
            raise _missing(cfg, source) from error
        raise WeightsError(f"damaged weights in {source}: fetch {' and '.join(_FILES)} again") from error
    # The mask token serves pretraining only. Anything else that is missing would silently stay random.
    absent = sorted(key for key in report["missing_keys"] if not key.endswith("mask_token"))
    if absent:
        raise WeightsError(f"{source} lacks {len(absent)} tensors of {cfg.name}, such as {absent[0]}: fetch it again")
    model: nn.Module = vit.float().eval().requires_grad_(False)
    return model


def _complete(folder: str) -> bool:
    return all((Path(folder) / file).is_file() for file in _FILES)


def _missing(cfg: Dinov2Cfg, source: str) -> WeightsError:
    where = "the local cache" if cfg.folder is None else source
    return WeightsError(
        f"no weights of {cfg.name} in {where}: fetch them once with `hf download {cfg.name} {' '.join(_FILES)}`, "
        f"or put {' and '.join(_FILES)} into a folder and name it by Dinov2Cfg.folder"
    )


def _check(cfg: Dinov2Cfg, source: str, settings: dict[str, Any]) -> None:
    kind, hidden = settings.get("model_type"), settings.get("hidden_size")
    if kind not in _CLASSES:
        raise UnsupportedError(f"{source} is a model of type {kind!r}: choose one of type {' or '.join(_CLASSES)}")
    if hidden != cfg.channels:
        raise ConfigError(
            f"{source} gives {hidden} channels, not the {cfg.channels} of Dinov2Cfg.channels: set it to {hidden}"
        )


class _Held:
    """Keeps the ViT out of its owner's parameters, state dict, copies and pickles."""

    def __init__(self) -> None:
        self.vit: nn.Module | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> _Held:
        return self  # copies of a network (averaged weights) share what never changes

    def __getstate__(self) -> dict[str, None]:
        return {"vit": None}


class FrozenDinov2(nn.Module):
    """DINOv2 patch features at stride 16, frozen; a module without parameters of its own.

    The weights are read at the first use, by each process for itself, and follow the device of the image.

    Args:
        cfg: settings.
    """

    def __init__(self, cfg: Dinov2Cfg) -> None:
        super().__init__()
        self.cfg = cfg
        self._held = _Held()
        self.train(False)

    @property
    def channels(self) -> int:
        """Channels of the map."""
        return self.cfg.channels

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever the owner is switched to."""
        return super().train(False)

    def load(self, *, allow_download: bool = False) -> nn.Module:
        """Read the weights now, if not done yet; see `read_vit` for the errors. Returns the ViT."""
        if self._held.vit is None:
            self._held.vit = read_vit(self.cfg, allow_download=allow_download)
        return self._held.vit

    @torch.no_grad()
    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Features of an image of any size.

        Args:
            image: (B, C, H, W) float32, bands of mean 0 and deviation 1; H, W of 64 or more.
            mask: (B, 1, H, W), 1 valid, 0 not; pixels that are not valid are shown in the bands' mean.

        Returns:
            (B, cfg.channels, H // 16, W // 16) float32 without gradient; cell i is centred on pixel 16 i + 7.5.

        Raises:
            InputError: the bands cannot be shown as three colours.
            UnsupportedError, WeightsError, ConfigError: at the first use, see `read_vit`.
        """
        batch, _, height, width = image.shape
        vit: Any = self.load().to(image.device)
        known = image.float() if mask is None else torch.where(mask > 0, image.float(), 0.0)
        colours = pad_to_multiple(as_imagenet(known, self.cfg.bands), STRIDE)
        rows, columns = colours.shape[-2:]
        patch: int = vit.config.patch_size
        grid = _token_grid(rows, columns, patch, self.cfg.size)
        shown = _resize(colours, (grid[0] * patch, grid[1] * patch), antialias=True)
        tokens = vit(pixel_values=shown).last_hidden_state
        patches = tokens[:, tokens.shape[1] - grid[0] * grid[1] :]  # after the CLS token and the registers, if any
        features = patches.float().transpose(1, 2).reshape(batch, -1, *grid)
        cells = _resize(features, (rows // STRIDE, columns // STRIDE))
        return cells[..., : height // STRIDE, : width // STRIDE].contiguous()
