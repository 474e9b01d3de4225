"""Trained weights: safetensors with a card, checked before use. The weights that ship lie in this folder."""

from somareg.soma.weights.card import DataUse, ModelCard, read_card
from somareg.soma.weights.fit import check_state
from somareg.soma.weights.store import (
    DEFAULT_WEIGHTS,
    build_network,
    embedded,
    load_network,
    load_weights,
    resolve,
    save_weights,
)

__all__ = [
    "DEFAULT_WEIGHTS",
    "DataUse",
    "ModelCard",
    "build_network",
    "check_state",
    "embedded",
    "load_network",
    "load_weights",
    "read_card",
    "resolve",
    "save_weights",
]
