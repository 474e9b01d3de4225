"""Scenes of any size in bounded memory: overview, tiles, one model, block-wise outputs.

Names are imported on first use: a small pair pays nothing for this room.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from somareg.scene.layout import SceneCfg
    from somareg.scene.register import SceneResult, plan_scene, register_scene

_HOME = {"SceneCfg": "layout"} | dict.fromkeys(("SceneResult", "plan_scene", "register_scene"), "register")


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"somareg.scene.{_HOME[name]}"), name)
    raise AttributeError(f"module 'somareg.scene' has no attribute '{name}'")


__all__ = ["SceneCfg", "SceneResult", "plan_scene", "register_scene"]
