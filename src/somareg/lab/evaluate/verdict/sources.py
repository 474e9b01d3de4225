"""Sets, crops and levels for the verdict, without test roles."""

from __future__ import annotations

from dataclasses import dataclass

from somareg.lab.evaluate.protocol import SetInfo


@dataclass(frozen=True)
class Source:
    """Pairs of one set.

    Attributes:
        info: set, crop and role.
        levels: of the protocol.
        related, unrelated: number of pairs per level, and in total.
        apart: least pixels between crop origins of different places in one scene.
        exact: see `Question`.
        drawn_on: pairs per situation, related and unrelated.
    """

    info: SetInfo
    levels: tuple[str, ...]
    related: int
    unrelated: int
    apart: int = 10**9
    exact: bool = True
    drawn_on: int = 0


def _info(name: str, crop: int, role: str) -> SetInfo:
    return SetInfo(name, crop, "", 1.0, {"val": role}, {"val": 1})


_ALL = ("E", "m", "M", "H", "A", "N0.5", "N1", "N2", "N4")

SOURCES = (
    Source(_info("ombria", 160, "val"), _ALL, 20, 400, drawn_on=4),
    Source(_info("ombria", 96, "val"), ("m", "H"), 15, 100),
    Source(_info("sen12patches", 160, "train"), _ALL, 20, 400, drawn_on=4),
    Source(_info("multisensor", 160, "val"), ("E", "m", "H", "A", "N1", "N2"), 25, 200),
    Source(_info("multisensor", 160, "val-3px"), ("m",), 20, 0, exact=False),
    Source(_info("vhrcity", 160, "val"), ("E", "m", "A", "N1", "N4"), 20, 120),
    Source(_info("vhrpublished", 256, "val-3px"), ("m",), 16, 30, exact=False),
    Source(_info("vhr", 128, "val-vhr"), ("E", "m"), 20, 150, exact=False),
    Source(_info("sen12scenes", 256, "train"), ("E", "m", "M", "H", "A", "R", "N1"), 14, 150, apart=900, drawn_on=2),
    Source(_info("sih", 512, "train"), ("E", "m", "H", "A", "N1", "N4"), 10, 60, apart=900),
    Source(
        _info("sih", 224, "train"),
        ("E", "m", "M", "H", "A", "R", "N0.5", "N1", "N2", "N4"),
        12,
        150,
        apart=900,
        drawn_on=3,
    ),
    Source(_info("sih", 96, "train"), ("m", "H"), 12, 60, apart=900),
)
"""Every set and crop."""
