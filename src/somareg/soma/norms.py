"""The one normalisation of the encoders: GroupNorm, which is independent of the batch and has no running state."""

from __future__ import annotations

import math

from torch import nn


def group_norm(channels: int, most: int | None = None) -> nn.GroupNorm:
    """GroupNorm for a map of `channels`.

    Trained weights fit one number of groups only, and a state dict does not hold that number: do not change the rules.

    Args:
        channels: of the map.
        most: largest number of groups, of which the largest common divisor with `channels` is taken; None makes groups
            of about eight channels, or one group where the channels cannot be divided evenly.
    """
    if most is not None:
        return nn.GroupNorm(math.gcd(most, channels), channels)
    groups = max(1, channels // 8)
    return nn.GroupNorm(groups if channels % groups == 0 else 1, channels)
