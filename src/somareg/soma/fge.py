"""Feature Gradient Enhancer (FGE): gradient structure of several scales and directions, added to deep features.

SOMA (Wang et al., arXiv 2511.13168, "Feature Gradient Enhancer") embeds multi-scale, multi-directional gradient
filters into the feature space by attention and reconstruction. Here

    whole    = features + gain * reconstruction(features)
    gradient = norm(pool(mix(|oriented derivatives of whole|)))
    enhanced = whole + gain * 4 * channel attention * spatial attention * gradient

and a decoder must recover the incoming features from the enhanced ones (L1). The gradient ignores polarity, its
directions are distinct, and both gains start small, so that an untrained enhancer is nearly the identity. Every part
can be switched off, as in the published ablations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from somareg.errors import ConfigError
from somareg.soma.filter_banks import FilterKind, GaussianPool, make_filters
from somareg.soma.norms import group_norm
from somareg.soma.reconstruction import Decoder, ReconstructionUnit


@dataclass(frozen=True)
class FgeCfg:
    """Settings of one enhancer; lengths in cells of its feature map.

    Attributes:
        filters: "fixed" analytic kernels, "learnable" ones that start from those, "conv" for plain convolutions of the
            same number and size, "off" for none.
        attention: weight the added features by channel and place; if off, all are added.
        reconstruction: the reconstruction unit, the decoder and its loss.
        directions: of the filters, equally spaced over 180 degrees.
        sigmas: scales of the Gaussian derivatives.
        pooling: scale of the Gaussian that pools the responses; 0 for none.
        carriers: derivatives are taken on this many learned mixtures per channel, at least 4 (a quarter keeps the cost
            near that of three 3 x 3 convolutions; the published filters have a half); 1 takes them on the channels.
        gain: initial gain of the added branches.
    """

    filters: Literal["fixed", "learnable", "conv", "off"] = "fixed"
    attention: bool = True
    reconstruction: bool = True
    directions: int = 8
    sigmas: tuple[float, ...] = (0.8, 1.6)
    pooling: float = 0.7
    carriers: float = 0.25
    gain: float = 0.2

    def __post_init__(self) -> None:
        checks = {
            "directions": self.directions >= 1,
            "sigmas": len(self.sigmas) > 0 and all(sigma > 0 for sigma in self.sigmas),
            "pooling": self.pooling >= 0,
            "carriers": 0 < self.carriers <= 1,
            "gain": self.gain > 0,
        }
        for name, good in checks.items():
            if not good:
                raise ConfigError(
                    f"bad value {getattr(self, name)!r} for FGE option '{name}'; see FgeCfg for its range"
                )


class AttentionMaps(NamedTuple):
    """Attention weights, 0-1, about 1/2 before training.

    Attributes:
        channel: (B, C).
        spatial: (B, 1, h, w).
    """

    channel: Tensor
    spatial: Tensor


class Attention(nn.Module):
    """Channel and spatial weights from averages and maxima (after CBAM, Woo et al., ECCV 2018).

    Args:
        channels: of the features.
        reduction: of the channels in the hidden layer.
        size: of the spatial kernel, cells, odd.
    """

    def __init__(self, channels: int, reduction: int = 4, size: int = 7) -> None:
        super().__init__()
        hidden = max(4, channels // reduction)
        last = nn.Linear(hidden, channels)
        self.excite = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), last)
        self.place = nn.Conv2d(2, 1, size, padding=size // 2, padding_mode="replicate", bias=False)
        # Nearly flat at the start, so that every channel and every place gets gradients.
        nn.init.normal_(last.weight, std=0.02)
        nn.init.normal_(self.place.weight, std=0.005)
        nn.init.zeros_(last.bias)

    def forward(self, features: Tensor) -> AttentionMaps:
        """Weights for (B, C, h, w)."""
        channel = torch.sigmoid(self.excite(features.mean((-2, -1))) + self.excite(features.amax((-2, -1))))
        summary = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], dim=1)
        # The input is standardised over the image and the layer has no bias, so that the weights choose among places.
        # On all-positive inputs they would drift towards zero everywhere and switch the branch off.
        summary = summary - summary.mean((-2, -1), keepdim=True)
        summary = summary / (summary.square().mean((-2, -1), keepdim=True) + 1e-5).sqrt()
        return AttentionMaps(channel, torch.sigmoid(self.place(summary)))


class GradientBranch(nn.Module):
    """Oriented responses of the features, mixed back to the number of input channels.

    Args:
        channels: of the features.
        kind: of the filters.
        cfg: settings.
    """

    def __init__(self, channels: int, kind: FilterKind, cfg: FgeCfg) -> None:
        super().__init__()
        carriers = min(channels, max(4, round(channels * cfg.carriers)))
        self.carry: nn.Module = nn.Identity()
        if carriers < channels:
            carry = nn.Conv2d(channels, carriers, 1, bias=False)
            nn.init.orthogonal_(carry.weight)
            self.carry = carry
        self.filters = make_filters(kind, carriers, cfg.directions, cfg.sigmas)
        responses = carriers * cfg.directions
        self.mix = nn.ModuleList(self._mixer(responses, channels, sigma) for sigma in cfg.sigmas)
        self.pool = GaussianPool(channels, cfg.pooling) if cfg.pooling > 0 else nn.Identity()
        self.norm = group_norm(channels, most=8)

    @staticmethod
    def _mixer(responses: int, channels: int, sigma: float) -> nn.Conv2d:
        """Derivatives of natural texture fall with 1 / sigma: weights proportional to sigma balance the scales."""
        mixer = nn.Conv2d(responses, channels, 1, bias=False)
        nn.init.normal_(mixer.weight, std=sigma / responses**0.5)
        return mixer

    def responses(self, features: Tensor) -> list[Tensor]:
        """Per scale (B, carriers * directions, h, w), all >= 0; see `features.oriented`."""
        oriented: list[Tensor] = self.filters(self.carry(features))
        return oriented

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w), deviation about 1.

        Pooling is linear and the same for all channels, so it commutes with mixing and runs after, on fewer channels.
        """
        mixed = reduce(torch.add, (mix(r) for mix, r in zip(self.mix, self.responses(features), strict=True)))
        normed: Tensor = self.norm(self.pool(mixed))
        return normed


class FeatureGradientEnhancer(nn.Module):
    """Enhance features by their own gradient structure.

    Args:
        channels: of the features; a multiple of 4 with `cfg.reconstruction`.
        cfg: settings.

    Raises:
        ConfigError: `channels` does not fit `cfg`.
    """

    def __init__(self, channels: int, cfg: FgeCfg) -> None:
        super().__init__()
        self.cfg = cfg
        self.gradient = None if cfg.filters == "off" else GradientBranch(channels, cfg.filters, cfg)
        self.attention = Attention(channels) if cfg.attention else None
        self.unit = ReconstructionUnit(channels) if cfg.reconstruction else None
        self.decoder = Decoder(channels) if cfg.reconstruction else None
        if self.unit is not None:
            self.unit_gain = nn.Parameter(torch.full((channels, 1, 1), cfg.gain))
        if self.gradient is not None or self.attention is not None:
            self.branch_gain = nn.Parameter(torch.full((channels, 1, 1), cfg.gain))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Enhanced features and the loss of the reconstruction.

        Args:
            features: (B, C, h, w), values of order 1.

        Returns:
            enhanced (B, C, h, w); mean absolute error of the decoded features, a scalar, 0 with reconstruction off.
        """
        enhanced = self.enhance(features)
        if self.decoder is None:
            return enhanced, features.new_zeros(())
        return enhanced, self.decoder.loss(enhanced, features)

    def enhance(self, features: Tensor) -> Tensor:
        """The enhanced features alone, (B, C, h, w), without the loss, which only training needs."""
        whole, branch = self._parts(features)
        if branch is None:
            return whole
        if self.attention is not None:
            channel, spatial = self.attention(whole + branch)
            branch = branch * (4.0 * channel[:, :, None, None]) * spatial  # both start at 1/2: 4 makes that neutral
        return whole + self.branch_gain * branch

    def attention_maps(self, features: Tensor) -> AttentionMaps | None:
        """The attention weights on features (B, C, h, w), for diagnostics; None with attention off."""
        whole, branch = self._parts(features)
        if self.attention is None or branch is None:
            return None
        maps: AttentionMaps = self.attention(whole + branch)
        return maps

    def _parts(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """The features plus reconstruction, and the branch to add: their gradient, or themselves with filters off."""
        whole = features if self.unit is None else features + self.unit_gain * self.unit(features)
        if self.gradient is not None:
            return whole, self.gradient(whole)
        return whole, None if self.attention is None else whole
