"""A tiny DINOv2 with random weights, saved as the hub's are, and a small network that needs it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from somareg.soma.dinov2 import Dinov2Cfg
from somareg.soma.network import Soma
from tests.small_network import SMALL

KINDS = {"dinov2": "Dinov2", "dinov2_with_registers": "Dinov2WithRegisters"}
CHANNELS = 32


def tiny(
    kind: str = "dinov2_with_registers", patch: int = 14, hidden: int = CHANNELS, seed: int = 0, heads: int = 2
) -> nn.Module:
    """The ViT in evaluation mode."""
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, KINDS[kind] + "Config")(
        hidden_size=hidden, num_hidden_layers=2, num_attention_heads=heads, mlp_ratio=2, image_size=8 * patch,
        patch_size=patch, hidden_dropout_prob=0.1, drop_path_rate=0.1,
    )  # fmt: skip
    torch.manual_seed(seed)
    model: nn.Module = getattr(transformers, KINDS[kind] + "Model")(config)
    with torch.no_grad():  # random like trained weights are: biases, tokens and positions that matter
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def saved(folder: Path, *, kind: str = "dinov2_with_registers", patch: int = 14, seed: int = 0, heads: int = 2) -> Path:
    """`tiny` in a folder: config.json and model.safetensors."""
    tiny(kind, patch, seed=seed, heads=heads).save_pretrained(folder)  # type: ignore[operator]
    return folder


def cached(folder: Path, name: str, home: Path) -> None:
    """A folder in the hub's cache under a name; `home` is what HF_HOME says."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    commit = "0123456789" * 4
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)


def network_on(folder: Path, seed: int = 0) -> Soma:
    """A network with random weights whose coarse level comes from the DINOv2 in a folder, in eval mode."""
    dinov2 = Dinov2Cfg(folder=str(folder), channels=CHANNELS)
    encoder = replace(SMALL.encoder, coarse="dinov2", coarse_channels=48, dinov2=dinov2)
    torch.manual_seed(seed)
    return Soma(replace(SMALL, encoder=encoder)).eval()
