"""The published encoder's trunk: a ResNet pyramid with GroupNorm whose cells obey the half-pixel rule.

Residual blocks as in He et al. (2016), trained from random weights. Two things differ from the usual ResNet. Statistics
come from GroupNorm, because a BatchNorm frozen at its random initialisation normalises nothing. And every downsampling
uses an even kernel: an odd kernel of stride 2 puts cell i on pixel 2i, an even one on 2i + 1/2, and after four steps
the difference is 7.5 pixels. A top-down path (Lin et al., FPN, 2017) gives each stride the context of the coarser ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from somareg.soma.norms import group_norm
from somareg.soma.pyramid import STRIDES, FeaturePyramid, pad_to_multiple

_DEEPEST = 32  # the trunk goes one step below the coarsest map, for context
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


@dataclass(frozen=True)
class ResNetCfg:
    """Settings of the ResNet pyramid.

    Attributes:
        depth: 50 has bottleneck blocks, as published; 34 and 18 have basic blocks, 18 being the small variant.
        channels: channels of the output maps at strides 2, 4, 8 and 16.
        width: channels of the first stage inside a block; 64 is the usual ResNet.
        norm: "group" is the only kind: it does not depend on the batch and has no running state to freeze.
    """

    depth: Literal[18, 34, 50] = 50
    channels: tuple[int, int, int, int] = (64, 128, 256, 256)
    width: int = 64
    norm: Literal["group"] = "group"


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    """Convolution that keeps the size (odd kernel); a normalisation follows, hence no bias."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)


def _halve(inputs: int, outputs: int, kernel: int = 4) -> nn.Conv2d:
    """Convolution to half the size; the even kernel centres output i on input 2i + 1/2."""
    return nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2 - 1, bias=False)


class _Block(nn.Module):
    """Residual block: `relu(shortcut(x) + body(x))`, with half the size where `down`."""

    def __init__(self, inputs: int, width: int, *, bottleneck: bool, down: bool) -> None:
        super().__init__()
        middle = _halve if down else _conv
        if bottleneck:
            outputs = 4 * width
            convolutions = [_conv(inputs, width, 1), middle(width, width), _conv(width, outputs, 1)]
        else:
            outputs = width
            convolutions = [middle(inputs, width), _conv(width, width)]
        layers: list[nn.Module] = []
        for convolution in convolutions:
            layers += [convolution, group_norm(convolution.out_channels), nn.ReLU()]
        self.body = nn.Sequential(*layers[:-1])  # the last ReLU comes after the sum
        self.shortcut = nn.Sequential()
        if down:
            self.shortcut.append(nn.AvgPool2d(2))
        if down or inputs != outputs:
            self.shortcut.extend([_conv(inputs, outputs, 1), group_norm(outputs)])
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = F.relu(self.shortcut(x) + self.body(x))
        return result


class _Trunk(nn.Module):
    """Stem and four stages: maps at strides 2, 4, 8, 16 and 32, finest first."""

    def __init__(self, in_channels: int, cfg: ResNetCfg) -> None:
        super().__init__()
        self.stem = nn.Sequential(_halve(in_channels, cfg.width, kernel=8), group_norm(cfg.width), nn.ReLU())
        self.pool = nn.AvgPool2d(2)
        self.channels = [cfg.width]
        self.stages = nn.ModuleList()
        for level, blocks in enumerate(_BLOCKS[cfg.depth]):
            stage = nn.Sequential()
            channels = self.channels[-1]
            for i in range(blocks):
                down = level > 0 and i == 0  # the pooling already brings the first stage to stride 4
                block = _Block(channels, cfg.width << level, bottleneck=cfg.depth >= 50, down=down)
                channels = block.outputs
                stage.append(block)
            self.stages.append(stage)
            self.channels.append(channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = [self.stem(image)]
        x = self.pool(maps[0])
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class _TopDown(nn.Module):
    """Adds the coarser maps to each map; bilinear upsampling keeps the half-pixel rule."""

    def __init__(self, inputs: list[int], outputs: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        widths = [*outputs, outputs[-1]]  # the deepest map only feeds the next finer one
        self.lateral = nn.ModuleList(_conv(i, o, 1) for i, o in zip(inputs, widths, strict=True))
        self.down = nn.ModuleList(_conv(widths[level + 1], o, 1) for level, o in enumerate(outputs))
        self.smooth = nn.ModuleDict(
            {
                str(stride): nn.Sequential(group_norm(o), nn.ReLU(), _conv(o, o), group_norm(o))
                for stride, o in zip(STRIDES, outputs, strict=True)
                if stride in strides
            }
        )

    def forward(self, maps: list[Tensor]) -> FeaturePyramid:
        result: FeaturePyramid = {}
        context = self.lateral[-1](maps[-1])
        for level, stride in reversed(list(enumerate(STRIDES))):
            coarser = self.down[level](context)
            doubled = F.interpolate(coarser, scale_factor=2.0, mode="bilinear", align_corners=False)
            context = self.lateral[level](maps[level]) + doubled
            if str(stride) in self.smooth:
                result[stride] = self.smooth[str(stride)](context)
        return result


class ResNetPyramid(nn.Module):
    """ResNet with a top-down path: one normalised map per stride (the paper's ResNet-50 pyramid, corrected).

    Args:
        in_channels: bands of the image.
        cfg: settings.
        strides: the maps that are needed; the others get no parameters, because training on several devices requires
            that all parameters learn.
    """

    def __init__(self, in_channels: int, cfg: ResNetCfg, strides: tuple[int, ...] = STRIDES) -> None:
        super().__init__()
        self.cfg = cfg
        self.trunk = _Trunk(in_channels, cfg)
        self.top_down = _TopDown(self.trunk.channels, cfg.channels, strides)
        _initialise(self)

    def forward(self, image: Tensor) -> FeaturePyramid:
        """Maps of an image of any size.

        Args:
            image: (B, C, H, W) float32, bands of mean 0 and deviation 1; H, W of 64 or more.

        Returns:
            stride (2, 4, 8, 16, or the requested ones) -> (B, cfg.channels, H // stride, W // stride), of mean 0 and
            deviation 1 per group of channels at initialisation; cell i is centred on pixel
            `stride * i + (stride - 1) / 2`.
        """
        height, width = image.shape[-2:]
        maps = self.top_down(self.trunk(pad_to_multiple(image, _DEEPEST)))
        return {s: maps[s][..., : height // s, : width // s] for s in sorted(maps)}


def _initialise(pyramid: ResNetPyramid) -> None:
    """He initialisation; every block starts as its shortcut (Goyal et al., 2017), so depth does not amplify."""
    for module in pyramid.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, _Block):
            last = module.body[-1]
            assert isinstance(last, nn.GroupNorm)
            nn.init.zeros_(last.weight)
    for layer in (*pyramid.top_down.lateral, *pyramid.top_down.down):  # no ReLU follows: gain 1
        assert isinstance(layer, nn.Conv2d)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
