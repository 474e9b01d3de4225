"""Frozen DINOv2 features at 1/16, which the published encoder uses in place of a learned coarse map.

The ViT (Oquab et al., 2023; with registers Darcet et al., 2024) is kept out of the module that
owns it: its hundreds of millions of parameters are neither trained, saved, copied nor counted with the network's.
`somareg.soma.dinov2_files` finds and reads it. The embedded default encoder does not use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from somareg.errors import InputError
from somareg.soma.dinov2_files import Dinov2Files, Dinov2Id, in_cache, in_folder, load_vit
from somareg.soma.pyramid import pad_to_multiple

STRIDE = 16
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Dinov2Cfg:
    """Settings of DINOv2: the encoder, the place of its files, and its input.

    Attributes:
        name: repository of the weights; read from the local cache when `folder` is None.
        folder: folder that holds config.json and model.safetensors. It is valid on one machine only, so a card never
            has it.
        size: longer side, in pixels, to which the image is resized before the ViT; None keeps the image's own size.
            The published encoder resizes 512 pixels to 448, so that one token of 14 pixels falls on each cell.
        channels: channels of the map, the hidden size of the weights: 384 small, 768 base, 1024 large, 1536 giant.
            Stated here so that a network can be built and its checkpoint read without DINOv2's weights.
        bands: 0-based bands used as red, green and blue. None: one band is used as grey; two bands and their mean are
            the three colours; of three or four bands the first three.
    """

    name: str = "facebook/dinov2-with-registers-large"
    folder: str | None = None
    size: int | None = None
    channels: int = 1024
    bands: tuple[int, int, int] | None = None


def as_imagenet(image: Tensor, bands: tuple[int, int, int] | None = None) -> Tensor:
    """Convert z-scored bands to three channels like those that DINOv2 was trained on.

    A band of mean 0 and deviation 1 gets ImageNet's average brightness and contrast (0.449 and 0.226 of full scale,
    clipped to 0-1), the same for all colours, so a grey image stays grey. Then it is normalised by ImageNet's mean and
    deviation per colour, as in the ViT's training.

    Args:
        image: (B, C, H, W) float32, bands of mean 0 and deviation 1.
        bands: see `Dinov2Cfg.bands`.

    Returns:
        (B, 3, H, W) float32 in -2.2 to 2.7.

    Raises:
        InputError: `bands` names a band that the image lacks, or is None for an image of more than four bands.
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
    """Bilinear, with aligned edges; without `antialias` a plane is kept exactly, with it every pixel is used."""
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=antialias)


def _token_grid(height: int, width: int, patch: int, size: int | None) -> tuple[int, int]:
    """Tokens along y and x for an image that is resized to a longer side of `size` pixels."""
    factor = (1.0 if size is None else size / max(height, width)) / patch
    return max(1, round(height * factor)), max(1, round(width * factor))


class _Held:
    """Keeps the ViT out of its owner's parameters, state dict, copies and pickles.

    Attributes:
        files: of the ViT, None until it is first used.
        vits: the ViT on each device, by torch's name of the device.
    """

    def __init__(self) -> None:
        self.files: Dinov2Files | None = None
        self.vits: dict[str, nn.Module] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Held:
        return self  # copies of a network (averaged weights) share the ViT, which never changes

    def __getstate__(self) -> dict[str, Any]:
        return {"files": None, "vits": {}}


class FrozenDinov2(nn.Module):
    """DINOv2 patch features at stride 16, frozen; a module without parameters of its own.

    The weights are read at the first use, once per process, on the device of the image.

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

    @property
    def identity(self) -> Dinov2Id:
        """Name and checksum of the encoder; errors as `load`."""
        return self._files().identity()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever mode the owner is set to."""
        return super().train(False)

    def load(self, device: torch.device | str = "cpu") -> nn.Module:
        """The ViT on a device, read at the first call; errors as `in_folder`, `in_cache` and `load_vit`."""
        name = str(torch.device(device))
        if name not in self._held.vits:
            self._held.vits[name] = load_vit(self._files(), self.cfg.channels, name)
        return self._held.vits[name]

    def use(self, files: Dinov2Files) -> None:
        """Read these files instead of those that the settings name."""
        self._held.files, self._held.vits = files, {}

    def _files(self) -> Dinov2Files:
        if self._held.files is None:
            self._held.files = in_cache(self.cfg.name) if self.cfg.folder is None else in_folder(self.cfg.folder)
        return self._held.files

    @torch.no_grad()
    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Features of an image of any size.

        Args:
            image: (B, C, H, W) float32, bands of mean 0 and deviation 1; H, W of 64 or more.
            mask: (B, 1, H, W), 1 valid, 0 not; invalid pixels are replaced by the bands' mean.

        Returns:
            (B, cfg.channels, H // 16, W // 16) float32 without gradient; cell i is centred on pixel 16 i + 7.5.

        Raises:
            InputError: the bands cannot be converted to three colours.
            UnsupportedError, WeightsError, ConfigError: at the first use, see `load`.
        """
        batch, _, height, width = image.shape
        vit: Any = self.load(image.device)
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
