"""A user's matcher: a function from two arrays to a matrix, a displacement or None."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.errors import ConfigError, InputError
from somareg.lab.evaluate.peers.base import SAR_OPTICAL, ByteImage, Known, Prediction, affine_displacement

_MASKS = ("reference_mask", "moving_mask")


class GivenFunction:
    """`function(reference, moving)` of a module that Python can import.

    It gets uint8 arrays (H, W) or (3, H, W), RGB, and, if it has parameters `reference_mask` and `moving_mask`, also
    those, (H, W) bool, True where there is data. It returns one of

    * a matrix (2, 3) that maps reference pixels to moving pixels, `moving_xy = m[:, :2] @ reference_xy + m[:, 2]`, an
      integer coordinate being a pixel's centre;
    * a displacement (2, H, W) of the reference's size, `moving_xy = reference_xy + (dx, dy)`;
    * None when it gives up.

    Args:
        name: of the method.
        module, function: to import.

    Attributes:
        function: "module:function".

    Raises:
        ConfigError: the module cannot be imported, or has no such function.
    """

    def __init__(self, name: str, module: str, function: str) -> None:
        self.name, self.function = name, f"{module}:{function}"
        try:
            target = getattr(import_module(module), function, None)
        except Exception as error:
            raise ConfigError(
                f"method '{name}': module '{module}' cannot be imported ({_told(error)}); "
                "put the folder that holds it on PYTHONPATH"
            ) from error
        if not callable(target):
            raise ConfigError(f"method '{name}': module '{module}' has no function '{function}'; give one that it has")
        self._function: Callable[..., Any] = target
        self._masks = [key for key in _MASKS if key in _parameters(target)]

    def __call__(
        self, moving: ByteImage, reference: ByteImage, *, level: str, seed: int, known: Known = SAR_OPTICAL
    ) -> Prediction:
        """See `Method`.

        Raises:
            InputError: the function failed, or returned something else.
        """
        sides = {"reference_mask": (known.reference_mask, reference), "moving_mask": (known.moving_mask, moving)}
        masks = {key: _whole_mask(*sides[key]) for key in self._masks}
        try:
            answer = self._function(reference.copy(), moving.copy(), **masks)
        except Exception as error:
            raise InputError(f"{self} failed ({_told(error)}); let it return None where it gives up") from error
        return Prediction(None if answer is None else self._displacement(answer, reference.shape[-2:]))

    def __str__(self) -> str:
        return f"method '{self.name}' ({self.function})"

    def _displacement(self, answer: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
        way_out = f"return a matrix (2, 3), a displacement {(2, *shape)} or None"
        try:
            numbers = np.asarray(answer, np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{self} returned {type(answer).__name__}, no array of numbers; {way_out}") from None
        if numbers.shape == (2, 3):
            return affine_displacement(numbers, shape)
        if numbers.shape == (2, *shape):
            return numbers.astype(np.float32)
        raise InputError(f"{self} returned an array {numbers.shape}; {way_out}")


def _whole_mask(mask: NDArray[np.bool_] | None, image: ByteImage) -> NDArray[np.bool_]:
    return np.ones(image.shape[-2:], bool) if mask is None else mask.copy()


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a function in C has no signature
        return []


def _told(error: Exception) -> str:
    """Format a foreign error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
