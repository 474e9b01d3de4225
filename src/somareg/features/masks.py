"""Shortcuts that values allow, taken only where asking for a value costs nothing."""

from __future__ import annotations

import torch
from torch import Tensor

READY = ("cpu",)
"""Devices whose values are at hand. On a GPU the program would wait until all work queued there is done."""


def is_readable(values: Tensor) -> bool:
    """Whether a value may decide what runs next; where not, the general way is taken, which gives the same."""
    return values.device.type in READY and not torch.compiler.is_compiling()


def is_whole(mask: Tensor) -> bool:
    """Whether a mask is known to be valid everywhere; False also where it cannot be read without waiting."""
    return is_readable(mask) and bool((mask > 0).all())
