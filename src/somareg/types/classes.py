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
    def parse(cls, given: str | int | Iterable[int | str]) -> Classes:
        """The classes that a text such as "3,8-10" or "bit3,bit4", a number or a list means.

        Raises:
            ValueError: none, or a word that is neither a whole number, nor two with a dash, nor a bit from 0 to 63.
        """
        if isinstance(given, str):
            words = re.split(r"[\s,;]+", given.strip())
        else:
            words = [str(given)] if isinstance(given, int | np.integer) else [str(each) for each in given]
        ranges: list[tuple[int, int]] = []
        bits: list[int] = []
        for word in words:
            found = _WORD.fullmatch(word)
            if found is None:
                raise ValueError(f"'{word}' is no class")
            if found["bit"] is not None:
                bits.append(int(found["bit"]))
                continue
            low = int(found["low"])
            ranges.append((low, low if found["high"] is None else int(found["high"])))
        if not words or any(bit > 63 for bit in bits) or any(low > high for low, high in ranges):
            raise ValueError("no classes, a bit above 63, or a range that runs down")
        return cls(tuple(ranges), tuple(bits))

    def __str__(self) -> str:
        """The text that `parse` reads."""
        runs = [str(low) if low == high else f"{low}-{high}" for low, high in self.ranges]
        return ",".join([*runs, *(f"bit{bit}" for bit in self.bits)])

    def hold(self, values: NDArray[Any]) -> BoolArray:
        """Whether each value is of these classes; NaN and fractions never are."""
        held = np.zeros(values.shape, bool)
        whole = values if values.dtype.kind in "iu" else _whole(values)
        for low, high in self.ranges:
            held |= (whole >= low) & (whole <= high)
        if self.bits:
            pattern = np.uint64(sum(1 << bit for bit in set(self.bits)))
            # A negative number has the bits of its two's complement.
            stored = whole.view(f"u{whole.dtype.itemsize}") if whole.dtype.kind == "i" else whole
            held |= (stored.astype(np.uint64) & pattern) != 0
        # What is no whole number stands as the lowest one, which a mask may hold as well.
        return held if whole is values else held & _is_whole(values)


def _is_whole(values: NDArray[Any]) -> BoolArray:
    if values.dtype == bool:
        return np.ones(values.shape, bool)
    return np.asarray((np.abs(values) < 2.0**62) & (np.trunc(values) == values))


def _whole(values: NDArray[Any]) -> NDArray[np.int64]:
    return np.where(_is_whole(values), values, 0).astype(np.int64)
