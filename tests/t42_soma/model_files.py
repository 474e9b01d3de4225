"""A model's card, and what befalls its two files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from somareg.soma.weights.card import card_path

FIELDS: dict[str, Any] = {
    "name": "tiny",
    "network": {"encoder": {"widths": [8, 16]}},
    "data": [{"set": "meadow", "role": "train", "pairs": 12, "licence": "CC-BY-4.0"}],
    "synthetic_share": 0.25,
    "minutes": 5.0,
    "device": "cpu",
    "seed": 7,
    "steps": 300,
    "scores": {"meadow val": {"cmr@1": 0.5, "ce90_px": float("nan")}},
    "licence": "Apache-2.0",
}


def edit_card(path: Path, **changes: Any) -> None:
    """Change fields of the card; the value `...` removes one."""
    beside = card_path(path)
    content = json.loads(beside.read_text()) | changes
    beside.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))
