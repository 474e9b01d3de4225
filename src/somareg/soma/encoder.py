"""SOMA's feature side in one module: modality encoders, FGE on their levels, optional frozen coarse encoder.

`EncoderCfg` describes both the published network and the compact default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from somareg.errors import ConfigError
from somareg.features.pooling import block_mean, box_mean
from somareg.soma.dinov2 import Dinov2Cfg, FrozenDinov2
from somareg.soma.fge import FeatureGradientEnhancer, FgeCfg
from somareg.soma.pyramid import STRIDES, CompactPyramid, FeaturePyramid, PyramidCfg, pad_to_multiple
from somareg.soma.resnet import ResNetCfg, ResNetPyramid
from somareg.types import Modality

MIN_SIDE = 64
LEAST_SEEN = 1e-3  # share of a box from which its mean is taken as it is


@dataclass(frozen=True)
class EncoderCfg:
    """Settings of the encoder.

    Attributes:
        backbone: "compact" (embedded default) or "resnet" (published: a ResNet per modality).
        coarse: source of the features at 1/16: the backbone itself ("pyramid") or a frozen DINOv2 ("dinov2").
        coarse_channels: channels of DINOv2's coarse features after projection.
        compact, resnet, dinov2: settings of these parts.
        fge: settings of the enhancer at 1/2, 1/4 and 1/8; None leaves it out.
        detail: side in cells (odd) of a box mean that is subtracted from the features at 1/2, 1/4 and 1/8 at inference;
            None subtracts nothing. Smooth components hardly change over the few cells that training compares, so
            training does not make them right farther away, where they outweigh the rest. In training they stay in,
            because windows became worse without them.

    Raises:
        ConfigError: `detail` is even or less than 3.
    """

    backbone: Literal["compact", "resnet"] = "compact"
    coarse: Literal["pyramid", "dinov2"] = "pyramid"
    coarse_channels: int = 96
    compact: PyramidCfg = field(default_factory=PyramidCfg)
    resnet: ResNetCfg = field(default_factory=ResNetCfg)
    dinov2: Dinov2Cfg = field(default_factory=Dinov2Cfg)
    fge: FgeCfg | None = field(default_factory=FgeCfg)
    detail: int | None = None

    def __post_init__(self) -> None:
        if self.detail is not None and (self.detail < 3 or self.detail % 2 == 0):
            raise ConfigError(f"encoder.detail is {self.detail}; give an odd number of cells from 3 on, or null")

    @property
    def outputs(self) -> dict[int, int]:
        """Channels of each level, by stride."""
        levels = self.compact.outputs if self.backbone == "compact" else self.resnet.channels
        channels = dict(zip(STRIDES, levels, strict=True))
        if self.coarse == "dinov2":
            channels[16] = self.coarse_channels
        return channels


@dataclass(frozen=True, eq=False)
class Encoded:
    """Features of a batch of images.

    Attributes:
        pyramid: stride (2, 4, 8, 16) -> (B, C, H // stride, W // stride).
        valid: stride -> (B, 1, H // stride, W // stride), 1 where most of the cell is imagery.
        before, after: the levels (2, 4, 8) before and after FGE, for diagnostics; empty without FGE.
        reconstruction: mean L1 reconstruction loss of the enhancers in train mode (a scalar, else 0).
    """

    pyramid: FeaturePyramid
    valid: dict[int, Tensor]
    before: FeaturePyramid
    after: FeaturePyramid
    reconstruction: Tensor


class Encoder(nn.Module):
    """One branch per modality: "sar" has its own, every other modality shares the optical one.

    Args:
        cfg: settings.

    Attributes:
        dinov2: the frozen coarse encoder, None without one.
    """

    def __init__(self, cfg: EncoderCfg) -> None:
        super().__init__()
        self.cfg = cfg
        self.branches = nn.ModuleDict({name: _Branch(cfg) for name in ("sar", "optical")})
        self.dinov2 = FrozenDinov2(cfg.dinov2) if cfg.coarse == "dinov2" else None
        if self.dinov2 is not None:
            self.coarse = nn.Conv2d(self.dinov2.channels, cfg.coarse_channels, 1)

    def forward(self, image: Tensor, mask: Tensor, modality: Modality, strides: tuple[int, ...] = STRIDES) -> Encoded:
        """Features of images of any size of at least 64 px.

        Args:
            image: (B, C, H, W) float32, each band with mean 0 and deviation 1 (see `preprocess`).
            mask: (B, 1, H, W) 1 valid, 0 not.
            modality: "sar" has its own branch, any other goes through that of "optical".
            strides: of the wanted levels.

        Raises:
            ConfigError: an image smaller than 64 px.
        """
        height, width = image.shape[-2:]
        if min(height, width) < MIN_SIDE:
            raise ConfigError(f"the network needs images of at least {MIN_SIDE} px, not {height} x {width}")
        padded, seen = pad_to_multiple(image * mask, 16), pad_to_multiple(mask, 16)
        branch = self.branches["sar" if modality == "sar" else "optical"]
        pyramid, before, after, reconstruction = branch(padded, seen, strides)
        if self.dinov2 is not None and STRIDES[-1] in strides:  # by far the most expensive level
            pyramid[STRIDES[-1]] = self.coarse(self.dinov2(image, mask))
        cut = {
            stride: level[..., : height // stride, : width // stride]
            for stride, level in pyramid.items()
            if stride in strides
        }
        valid = {stride: (block_mean(mask, stride) > 0.5).to(mask.dtype) for stride in cut}
        if self.cfg.detail is not None and not self.training:
            fine = set(cut) - {STRIDES[-1]}
            cut |= {stride: detail(cut[stride], valid[stride], self.cfg.detail) for stride in fine}
        return Encoded(cut, valid, before, after, reconstruction)


def detail(features: Tensor, valid: Tensor, side: int) -> Tensor:
    """Features (B, K, h, w) minus their mean over the valid cells of a `side` x `side` box; 0 where not valid."""
    return (features - box_mean(features * valid, side) / box_mean(valid, side).clamp_min(LEAST_SEEN)) * valid


class _Branch(nn.Module):
    """Backbone and enhancers of one modality."""

    def __init__(self, cfg: EncoderCfg) -> None:
        super().__init__()
        self.backbone: CompactPyramid | ResNetPyramid
        if cfg.backbone == "compact":
            self.backbone = CompactPyramid(cfg.compact)
            enhanced = dict(zip(STRIDES, cfg.compact.widths, strict=True))
        else:
            # With DINOv2 at 1/16 the trunk's own map would have parameters that nothing trains.
            self.backbone = ResNetPyramid(3, cfg.resnet, STRIDES[:-1] if cfg.coarse == "dinov2" else STRIDES)
            enhanced = dict(zip(STRIDES, cfg.resnet.channels, strict=True))
        self.enhancers = nn.ModuleDict()
        if cfg.fge is not None:
            self.enhancers = nn.ModuleDict(
                {str(stride): FeatureGradientEnhancer(enhanced[stride], cfg.fge) for stride in STRIDES[:-1]}
            )

    def forward(
        self, image: Tensor, mask: Tensor, strides: tuple[int, ...]
    ) -> tuple[FeaturePyramid, FeaturePyramid, FeaturePyramid, Tensor]:
        before: FeaturePyramid = {}
        after: FeaturePyramid = {}
        losses: list[Tensor] = []

        def enhance(stride: int, features: Tensor) -> Tensor:
            if str(stride) not in self.enhancers:
                return features
            before[stride] = features
            enhancer = self.enhancers[str(stride)]
            assert isinstance(enhancer, FeatureGradientEnhancer)
            if self.training:
                after[stride], loss = enhancer(features)
                losses.append(loss)
            else:  # only the loss needs the decoder
                after[stride] = enhancer.enhance(features)
            return after[stride]

        if isinstance(self.backbone, CompactPyramid):
            pyramid = self.backbone(image, mask, enhance, strides)
        else:
            pyramid = {stride: enhance(stride, level) for stride, level in self.backbone(three_bands(image)).items()}
        reconstruction = torch.stack(losses).mean() if losses else image.new_zeros(())
        return pyramid, before, after, reconstruction


def three_bands(image: Tensor) -> Tensor:
    """(B, C, H, W) as three bands: the first three, or the last one repeated."""
    if image.shape[1] >= 3:
        return image[:, :3]
    return torch.cat([image, image[:, -1:].expand(-1, 3 - image.shape[1], -1, -1)], dim=1)
