"""Methods of the benchmark, by name; each module holds one and is imported when it is asked for."""

from __future__ import annotations

import importlib

from somareg.config import did_you_mean
from somareg.errors import ConfigError
from somareg.lab.evaluate.peers.base import Method, Prediction

__all__ = ["METHODS", "Method", "Prediction", "make_method"]

METHODS: dict[str, tuple[str, str]] = {
    "identity": ("identity", "Identity"),
    "border_only": ("border_only", "BorderOnly"),
    "phase_correlation": ("phase_correlation", "PhaseCorrelation"),
    "sift": ("sift", "Sift"),
    "ecc": ("ecc", "Ecc"),
    "mattes_mi": ("mattes_mi", "MattesMi"),
    "orientation": ("orientation", "Orientation"),
}
"""Name -> (module in this package, class without required arguments)."""


def make_method(name: str) -> Method:
    """Build the method called `name`.

    Raises:
        ConfigError: unknown name; the message suggests the nearest.
        UnsupportedError: the method needs an extra that is not installed; the message names it.
    """
    if name not in METHODS:
        raise ConfigError(f"unknown method '{name}'.{did_you_mean(name, METHODS)}")
    module, class_name = METHODS[name]
    method: Method = getattr(importlib.import_module(f"{__name__}.{module}"), class_name)()
    return method
