"""Whether a state dict fits a network: names, shapes and kinds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from somareg.errors import WeightsError


def check_state(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], where: str = "weights") -> None:
    """Compare names, shapes and kinds (floating point or not).

    Args:
        expected: the state dict of the network.
        found: the one to be loaded.
        where: its name in the message.

    Raises:
        WeightsError: tensors are missing, unexpected, or of another shape or kind; the message names a few.
    """
    differing = [
        f"{name!r} ({_describe(found[name])}, not {_describe(tensor)})"
        for name, tensor in expected.items()
        if name in found and _describe(found[name]) != _describe(tensor)
    ]
    problems = [
        f"{title} {_few(names)}"
        for title, names in (
            ("missing", [repr(name) for name in expected if name not in found]),
            ("unexpected", [repr(name) for name in found if name not in expected]),
            ("wrong", differing),
        )
        if names
    ]
    if problems:
        raise WeightsError(f"{where}: does not fit the network: {'; '.join(problems)}; export the checkpoint again")


def _describe(tensor: Tensor) -> str:
    """Shape, and the type unless it is floating point: `3x4`, `1 int64`, `scalar`."""
    shape = "x".join(str(length) for length in tensor.shape) or "scalar"
    return shape if tensor.is_floating_point() else f"{shape} {str(tensor.dtype).removeprefix('torch.')}"


def _few(names: Iterable[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    items = list(names)
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(f"{item:.100}" for item in items[:most]) + rest
