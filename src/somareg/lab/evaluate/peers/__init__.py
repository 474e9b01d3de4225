"""Methods of the benchmark, by name; each module holds one and is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from somareg.config import did_you_mean
from somareg.errors import ConfigError
from somareg.lab.evaluate.peers.base import Method, Prediction

__all__ = ["METHODS", "Method", "Prediction", "make_method", "make_methods"]

METHODS: dict[str, tuple[str, str]] = {
    "identity": ("identity", "Identity"),
    "border_only": ("border_only", "BorderOnly"),
    "phase_correlation": ("phase_correlation", "PhaseCorrelation"),
    "sift": ("sift", "Sift"),
    "ecc": ("ecc", "Ecc"),
    "mattes_mi": ("mattes_mi", "MattesMi"),
    "orientation": ("somareg_itself", "Orientation"),
}
"""Name -> (module in this package, class without required arguments)."""


def make_method(name: str) -> Method:
    """Build the method called `name`, or somareg with the weights in a `.safetensors` file of that name.

    Raises:
        ConfigError: unknown name; the message suggests the nearest.
        UnsupportedError: the method needs an extra that is not installed; the message names it.
        WeightsError: a file of weights that is missing, damaged or not what its card says.
    """
    if name.endswith(".safetensors"):
        from somareg.lab.evaluate.peers.somareg_itself import Registered

        return Registered(name)
    if name not in METHODS:
        raise ConfigError(f"unknown method '{name}'.{did_you_mean(name, METHODS)}")
    module, class_name = METHODS[name]
    method: Method = getattr(importlib.import_module(f"{__name__}.{module}"), class_name)()
    return method


def make_methods(names: Iterable[str]) -> list[Method]:
    """Build several methods, whose results can be told apart.

    Raises:
        ConfigError, UnsupportedError: as `make_method`, or two methods have the same name.
        WeightsError: a file of weights that cannot be used.
    """
    methods: dict[str, Method] = {}
    for name in names:
        method = make_method(name)
        if method.name in methods:
            raise ConfigError(f"two methods are called '{method.name}'; name each once, or rename a file of weights")
        methods[method.name] = method
    return list(methods.values())
