"""Find the DINOv2 that a model needs, and check that the one found is the right one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from somareg.errors import ConfigError, WeightsError
from somareg.soma.dinov2_files import NAMED_BY, Dinov2Files, Dinov2Id, find_dinov2, in_cache
from somareg.soma.weights.card import FrozenPart, ModelCard

UNCHECKED: Final = "the card of the model has no checksum of DINOv2: nothing tells whether it learned with this one"
"""Note for a model whose card is older than the field for DINOv2."""


def files_for(card: ModelCard, model: str, dinov2: str | None) -> Dinov2Files | None:
    """The files of the DINOv2 that a model runs with; None for a model without DINOv2.

    The user's choice comes first, then the name in the card, looked up in the local cache. A folder in a card of an
    earlier version is a path on another machine and is ignored.

    Args:
        card: of the model.
        model: its name or file, for messages.
        dinov2: a folder or a name of the hub, None for the card's.

    Raises:
        ConfigError: `dinov2` is given, but the model has none.
        UnsupportedError: `transformers` is not installed.
        WeightsError: it is not found, or the card does not name it.
    """
    settings = card.dinov2_settings
    if settings is None:
        check_unused(dinov2, model)
        return None
    if dinov2 is not None:
        return find_dinov2(dinov2)
    name = card.dinov2.name if card.dinov2 else settings.get("name")
    if settings.get("folder") is not None or not isinstance(name, str):
        raise WeightsError(f"the card of {model} does not say which DINOv2 it needs; name it by {NAMED_BY}")
    return in_cache(name)


def check_unused(dinov2: str | None, model: str) -> None:
    """Refuse a DINOv2 for a model that has none.

    Raises:
        ConfigError: `dinov2` is given.
    """
    if dinov2 is not None:
        raise ConfigError(f"dinov2 is given, but the model '{model}' has no DINOv2; leave it out or give another model")


def check_same(expected: FrozenPart | Dinov2Id | None, found: Dinov2Id, model: str) -> None:
    """Refuse a DINOv2 other than the one that a model was trained with.

    Args:
        expected: the right one; None if unknown.
        found: the one found.
        model: the file that needs it, for messages.

    Raises:
        WeightsError: the two differ; the message names both.
    """
    if expected is None or expected.sha256 == found.sha256:
        return
    right = Dinov2Id(expected.name, expected.sha256)
    raise WeightsError(f"{model} learned with DINOv2 {right}, not with {found}; name the right one by {NAMED_BY}")


def identity_in(record: Mapping[str, Any]) -> Dinov2Id | None:
    """The DINOv2 that a training record names under "dinov2"; None if it names none."""
    found = record.get("dinov2")
    if not isinstance(found, Mapping) or not all(isinstance(found.get(key), str) for key in ("name", "sha256")):
        return None
    return Dinov2Id(found["name"], found["sha256"])
