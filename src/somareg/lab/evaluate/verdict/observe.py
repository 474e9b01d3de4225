"""One observation: figures of an engine on a pair, with the settings of `register`, and its true error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from somareg.config import make_config
from somareg.errors import SomaregError
from somareg.geometry import AffineTransform, compose
from somareg.geometry.lattice import pixel_centres
from somareg.io import from_array
from somareg.lab.evaluate.local_error import cells
from somareg.lab.evaluate.metrics import point_errors, rmse
from somareg.lab.evaluate.verdict.questions import Images, Question
from somareg.matching.engine import Alignment
from somareg.preprocess.ground_only import ground_only
from somareg.preprocess.holes import bridged
from somareg.preprocess.prepare import prepare
from somareg.quality.signs import figures_of
from somareg.register.choose import LONGEST, Chosen, engine_settings, pair_tensors, search_radius
from somareg.soma.align import align

Row = dict[str, Any]
"""A line of the observations, with the keys of `observe` and `answer`."""


def answer(question: Question, model: Chosen, device: torch.device) -> Row:
    """The observation of a question."""
    images = question.images()
    return {
        "key": question.key,
        "set": question.set,
        "level": question.level,
        "place": question.place,
        "exact": question.exact,
        "placed": question.placed,
        **observe(images, model, device, placed=question.placed),
    }


def observe(images: Images, model: Chosen, device: torch.device, *, placed: bool = False) -> Row:
    """Figures of an engine for one pair and its error, with the settings of `register`.

    Args:
        images: the pair.
        model: the engine.
        device: for the engine.
        placed: see `Question`.
    """
    known, truth = images.known, images.truth
    row: Row = {"weights": model.card.sha256 if model.card else None, "related": truth is not None, "rmse": None}
    modalities = known.moving_modality, known.reference_modality
    options: dict[str, Any] = {"moving_modality": modalities[0], "reference_modality": modalities[1]}
    if placed:  # as `choose.search_radius` for georeferenced images
        options |= {"search": "local", "search_radius_px": max(0.05 * max(images.reference.shape[-2:]), 32.0)}
    cfg = make_config(options)
    here = from_array(images.reference, role="reference", mask=known.reference_mask)
    there = from_array(images.moving, role="moving", mask=known.moving_mask)
    radius = search_radius(cfg, here.grid)
    left = ground_only(there, here, (AffineTransform.identity(),), modalities)
    row["left_out"] = bool(left.notes)
    if left.doubts:  # they forbid "go", whatever the figures say
        return {**row, "failed": True, "figures": {}, "cells": []}
    (away, _), (near, _) = bridged(left.moving, "moving"), bridged(left.reference, "reference")
    identity = AffineTransform.identity()
    try:
        prepared = prepare(away, near, identity, cfg, longest=LONGEST[cfg.preset], radius_px=radius)
    except SomaregError:  # too few valid pixels are left
        return {**row, "failed": True, "figures": {}, "cells": []}
    pair = pair_tensors(prepared, device, (cfg.reference_modality, cfg.moving_modality))
    torch.manual_seed(cfg.seed)
    alignment = align(pair, prepared.starts, engine_settings(cfg, here.grid, radius), network=model.network)
    if truth is not None and not alignment.failure:
        error = _error(alignment, truth, here.grid.shape, images.moving.shape[-2:])
        row["rmse"] = None if math.isinf(error) else error
        row["cells"] = [[round(v, 4) for v in cell] for cell in _cells(alignment, truth, here.grid.shape, images)]
    return {"cells": [], **row, "failed": bool(alignment.failure), "figures": _rounded(figures_of(alignment))}


def _error(alignment: Alignment, truth: Any, shape: tuple[int, int], moving_shape: tuple[int, int]) -> float:
    points = pixel_centres(0, 0, shape[1], shape[0])
    correction = compose(alignment.affine, alignment.flow.field) if alignment.flow else alignment.affine
    displacement = (correction(points) - points).T.reshape(2, *shape).astype(np.float32)
    return rmse(point_errors(displacement, truth, shape, moving_shape=moving_shape))


def _cells(alignment: Alignment, truth: Any, shape: tuple[int, int], images: Images) -> list[list[float]]:
    moving_shape = images.moving.shape[-2], images.moving.shape[-1]
    return cells(alignment, truth, shape, moving_shape=moving_shape)


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    """Round for writing; infinite lengths become very long ones, missing ones stay NaN."""
    return {name: round(min(max(value, -1e6), 1e6), 5) for name, value in figures.items()}
