"""The compact encoder of one modality: any number of bands in, features at 1/2, 1/4, 1/8 and 1/16 out.

Everything keeps the half-pixel rule: kernels that halve the resolution have an even size, so that cell i of stride s
is centred on pixel `s * i + (s - 1) / 2`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from somareg.errors import ConfigError
from somareg.features.orientation import OrientationCfg, orientation_channels
from somareg.features.pooling import BlockMean, block_mean
from somareg.soma.norms import group_norm

FeaturePyramid = dict[int, Tensor]
STRIDES = (2, 4, 8, 16)
SMALL = 0.1  # size of an untrained head's output, which is added to the shortcut's channels of size 1
Enhance = Callable[[int, Tensor], Tensor]
"""(stride, features) -> features: applied to a level before it is merged and returned (FGE)."""


@dataclass(frozen=True)
class PyramidCfg:
    """Settings of the compact pyramid.

    Attributes:
        band_channels: number of filters that are applied to each band separately.
        widths: channels at strides 2, 4, 8, 16.
        depths: residual blocks at these strides.
        outputs: channels of the maps handed to the matcher, at these strides.
        orientation: weight-free orientation channels (stride 2) that join the first layer; None leaves them out.
        shortcut: whether they are also added to the features handed to the matcher, so that an untrained network
            matches as well as the weight-free engine and training learns what to add.
    """

    band_channels: int = 16
    widths: tuple[int, int, int, int] = (24, 48, 64, 96)
    depths: tuple[int, int, int, int] = (1, 2, 2, 2)
    outputs: tuple[int, int, int, int] = (16, 24, 32, 96)
    orientation: OrientationCfg | None = field(default_factory=OrientationCfg)
    shortcut: bool = False

    def __post_init__(self) -> None:
        if self.orientation is not None and self.orientation.stride != 2:
            raise ConfigError(
                f"pyramid.orientation.stride is {self.orientation.stride}; orientation channels join the first layer, "
                "at stride 2"
            )
        if self.shortcut and (self.orientation is None or min(self.outputs[:-1]) < self.orientation.count):
            raise ConfigError(
                f"pyramid.shortcut needs orientation channels and at least as many outputs at 1/2, 1/4 and 1/8 as "
                f"there are of them; outputs is {self.outputs}"
            )


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut; starts as the identity, so that activations keep their size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            group_norm(channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            group_norm(channels),
        )
        last = self.body[-1]
        assert isinstance(last, nn.GroupNorm)
        nn.init.constant_(last.weight, 0.2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same."""
        return F.gelu(x + self.body(x))


class BandStem(nn.Module):
    """The first layer: the same filters for every band, joined by mean and maximum.

    So one encoder takes grey, RGB or four-band images, and the order of the bands has no effect.
    """

    def __init__(self, cfg: PyramidCfg) -> None:
        super().__init__()
        self.orientation = cfg.orientation
        self.look = nn.Conv2d(1, cfg.band_channels, 4, stride=2, padding=1)
        extra = cfg.orientation.count if cfg.orientation else 0
        self.mix = nn.Sequential(
            nn.Conv2d(2 * cfg.band_channels + extra, cfg.widths[0], 3, padding=1, bias=False),
            group_norm(cfg.widths[0]),
            nn.GELU(),
        )

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """The first layer's features and the orientation channels, if there are any.

        Args:
            image: (B, C, H, W) with even H, W.
            mask: (B, 1, H, W).

        Returns:
            (B, widths[0], H / 2, W / 2) and (B, K, H / 2, W / 2) of about unit size.
        """
        bands = F.gelu(self.look(image.reshape(-1, 1, *image.shape[-2:])))
        bands = bands.reshape(*image.shape[:2], *bands.shape[1:])
        parts = [bands.mean(1), bands.amax(1)]
        oriented: Tensor | None = None
        if self.orientation:
            with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
                channels, _ = orientation_channels(image.float(), mask.float(), self.orientation)
            # Each pixel's vector has length 0-1 over many channels; the factor brings a channel to about 1.
            oriented = 4.0 * channels
            parts.append(oriented)
        return self.mix(torch.cat(parts, dim=1)), oriented


class CompactPyramid(nn.Module):
    """Encoder-decoder with skips at 1/2, 1/4 and 1/8 that pass through `enhance` (the FGE).

    Args:
        cfg: settings.
    """

    def __init__(self, cfg: PyramidCfg) -> None:
        super().__init__()
        self.cfg = cfg
        widths = cfg.widths
        self.stem = BandStem(cfg)
        self.down = nn.ModuleList(
            nn.Sequential(BlockMean(2), nn.Conv2d(a, b, 1, bias=False), group_norm(b)) for a, b in pairwise(widths)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(depth)))
            for width, depth in zip(widths, cfg.depths, strict=True)
        )
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1, bias=False) for a, b in pairwise(widths))
        self.merge = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), group_norm(width), nn.GELU())
            for width in widths[:-1]
        )
        self.head = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, cfg.outputs, strict=True))
        if cfg.shortcut:
            for head in list(self.head)[:-1]:
                assert isinstance(head, nn.Conv2d) and head.bias is not None
                nn.init.normal_(head.weight, std=SMALL / head.in_channels**0.5)
                nn.init.zeros_(head.bias)

    def forward(
        self, image: Tensor, mask: Tensor, enhance: Enhance, strides: tuple[int, ...] = STRIDES
    ) -> FeaturePyramid:
        """Features of an image whose sides are multiples of 16.

        Args:
            image: (B, C, H, W) float32, normalised.
            mask: (B, 1, H, W).
            enhance: applied to the levels 1/2, 1/4 and 1/8 before they are merged with the coarser ones.
            strides: of the wanted levels.

        Returns:
            wanted stride -> (B, outputs, H / stride, W / stride).
        """
        x, oriented = self.stem(image, mask)
        skips: list[Tensor] = []
        for level, block in enumerate(self.blocks):
            x = block(x)
            if level < len(self.down):
                skips.append(enhance(STRIDES[level], x))
                x = self.down[level](x)
        maps = {STRIDES[-1]: self.head[-1](x)} if STRIDES[-1] in strides else {}
        for level in reversed(range(len(self.down))):
            coarse = F.interpolate(self.up[level](x), scale_factor=2, mode="bilinear", align_corners=False)
            x = skips[level] + self.merge[level](skips[level] + coarse)
            if (stride := STRIDES[level]) in strides:
                maps[stride] = self.head[level](x)
                if self.cfg.shortcut:
                    assert oriented is not None
                    maps[stride] = self._add(maps[stride], oriented, stride)
        return dict(sorted(maps.items()))

    @staticmethod
    def _add(features: Tensor, oriented: Tensor, stride: int) -> Tensor:
        """Orientation channels (stride 2), averaged to `stride`, added to the first features."""
        coarse = block_mean(oriented, stride // 2) if stride > 2 else oriented
        return features + F.pad(coarse, (0, 0, 0, 0, 0, features.shape[1] - coarse.shape[1]))


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples; (B, C, H, W)."""
    height, width = image.shape[-2:]
    right, bottom = -width % multiple, -height % multiple
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if right or bottom else image
