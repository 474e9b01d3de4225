"""Classes of a mask: whole numbers, ranges of them, and bits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from somareg.types.kinds import BoolArray

_WORD = re.compile(r"bit(?P<bit>\d{1,2})|(?P<low>-?\d{1,20})(?:-(?P<high>-?\d{1,20}))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Classes:
    """Some of the classes of a mask.

    Attributes:
        ranges: (lowest, highest) of each run of values.
        bits: numbers of bits, 0 the lowest; a value that has one of them set belongs to the classes.
    """

    ranges: tuple[tuple[int, int], ...] = ()
    bits: tuple[int, ...] = ()

    @classmethod
    def parse(cls, value: str | int | Iterable[int | str]) -> Classes:
        """Parse classes from a text such as "3,8-10" or "bit3,bit4", a number or a list.

        Raises:
            ValueError: there are no classes, or a word is no whole number, range of two numbers, or bit from 0 to 63.
        """
        if isinstance(value, str):
            words = re.split(r"[\s,;]+", value.strip())
        else:
            words = [str(value)] if isinstance(value, int | np.integer) else [str(each) for each in value]
        ranges: list[tuple[int, int]] = []
        bits: list[int] = []
        for word in words:
            match = _WORD.fullmatch(word)
            if match is None:
                raise ValueError(f"'{word}' is no class")
            if match["bit"] is not None:
                bits.append(int(match["bit"]))
                continue
            low = int(match["low"])
            ranges.append((low, low if match["high"] is None else int(match["high"])))
        if not words or any(bit > 63 for bit in bits) or any(low > high for low, high in ranges):
            raise ValueError("no classes, a bit above 63, or a range that runs down")
        return cls(tuple(ranges), tuple(bits))

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        runs = [str(low) if low == high else f"{low}-{high}" for low, high in self.ranges]
        return ",".join([*runs, *(f"bit{bit}" for bit in self.bits)])

    def hold(self, values: NDArray[Any]) -> BoolArray:
        """Whether each value is of these classes; NaN and fractions never are."""
        result = np.zeros(values.shape, bool)
        whole = values if values.dtype.kind in "iu" else _whole(values)
        for low, high in self.ranges:
            result |= (whole >= low) & (whole <= high)
        if self.bits:
            pattern = np.uint64(sum(1 << bit for bit in set(self.bits)))
            # A negative number has the bits of its two's complement.
            stored = whole.view(f"u{whole.dtype.itemsize}") if whole.dtype.kind == "i" else whole
            result |= (stored.astype(np.uint64) & pattern) != 0
        # `_whole` replaces values that are not whole numbers by 0, which may be one of the classes.
        return result if whole is values else result & _is_whole(values)


def _is_whole(values: NDArray[Any]) -> BoolArray:
    if values.dtype == bool:
        return np.ones(values.shape, bool)
    return np.asarray((np.abs(values) < 2.0**62) & (np.trunc(values) == values))


def _whole(values: NDArray[Any]) -> NDArray[np.int64]:
    return np.where(_is_whole(values), values, 0).astype(np.int64)
