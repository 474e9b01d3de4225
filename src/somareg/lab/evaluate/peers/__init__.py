"""Methods of the benchmark by name; each module has one and is imported on demand."""

from __future__ import annotations

import importlib
import re
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
    "orientation": ("somareg_itself", "orientation"),
    "ours-fast": ("somareg_itself", "ours_fast"),
    "ours": ("somareg_itself", "ours"),
    "ours-precise": ("somareg_itself", "ours_precise"),
}
"""Name -> (module in this package, class or function without arguments), in the order of tables."""

_NAME = r"(?:(?P<name>[A-Za-z0-9][\w.-]*)=)?"
_NAMED_FILE = re.compile(_NAME + r"(?P<file>.+\.safetensors)", re.ASCII | re.DOTALL)
_NAMED_FUNCTION = re.compile(_NAME + r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*)", re.ASCII)


def make_method(name: str, dinov2: str | None = None) -> Method:
    """Build the method called `name`, somareg with a file of weights, or a function from elsewhere.

    Args:
        name: of `METHODS`; or `FILE.safetensors`, called as the file without folder and ending; or
            `NAME=FILE.safetensors`, called NAME (letters, digits, `.`, `_`, `-`); or `NAME=package.module:function`,
            see `given.GivenFunction`.
        dinov2: folder or hub name of the DINOv2 of a file of weights that needs one.

    Raises:
        ConfigError: unknown name, and the message suggests the nearest; a file or function with the name of another
            method; or a function that cannot be imported.
        UnsupportedError: the method needs an extra that is not installed; the message names it.
        WeightsError: a file of weights that is missing, damaged or not what its card says.
    """
    if match := _NAMED_FILE.fullmatch(name):
        from somareg.lab.evaluate.peers.somareg_itself import Registered

        method = Registered(match["file"], name=match["name"], dinov2=dinov2)
        if method.name in METHODS:
            raise ConfigError(f"'{method.name}' is another method; call the file otherwise: NAME={match['file']}")
        return method
    if match := _NAMED_FUNCTION.fullmatch(name):
        from somareg.lab.evaluate.peers.given import GivenFunction

        if match["name"] is None or match["name"] in METHODS:
            place = f"{match['module']}:{match['function']}"
            raise ConfigError(f"give the function {place} a name of its own: NAME={place}")
        return GivenFunction(match["name"], match["module"], match["function"])
    if name not in METHODS:
        raise ConfigError(f"unknown method '{name}'.{did_you_mean(name, METHODS)}")
    module, maker = METHODS[name]
    made: Method = getattr(importlib.import_module(f"{__name__}.{module}"), maker)()
    return made


def make_methods(names: Iterable[str], dinov2: str | None = None) -> list[Method]:
    """Build several methods with different names; `dinov2` is for those of them that need one.

    Raises:
        ConfigError, UnsupportedError: as `make_method`, or two methods have the same name, or none needs `dinov2`.
        WeightsError: a file of weights that cannot be used.
    """
    methods: dict[str, Method] = {}
    for name in names:
        method = make_method(name, dinov2)
        if method.name in methods:
            raise ConfigError(
                f"two methods are called '{method.name}'; name each once, a file as NAME=FILE or NAME=MODULE:FUNCTION"
            )
        methods[method.name] = method
    if dinov2 is not None and not any(getattr(method, "dinov2", None) for method in methods.values()):
        raise ConfigError("dinov2 is given, but no method is a file of weights that needs DINOv2; leave it out")
    return list(methods.values())
