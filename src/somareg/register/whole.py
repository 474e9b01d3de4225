"""Match a pair whole: read its common ground, bring it to one grid and run the engine."""

from __future__ import annotations

import numpy as np
import torch

from somareg.config import RegisterConfig
from somareg.geometry import AffineTransform
from somareg.geometry.field import LatticeValues
from somareg.matching.engine import Alignment, EngineCfg
from somareg.matching.pair import Pair
from somareg.matching.posterior import FLOOR_PX2
from somareg.preprocess.ground_only import ground_only
from somareg.preprocess.holes import bridged
from somareg.preprocess.prepare import Prepared, prepare
from somareg.quality import load_calibration, support_of
from somareg.register.choose import Chosen, engine_settings, longest_of, pair_tensors
from somareg.register.findings import Findings, Matches, View
from somareg.register.ground import Ground
from somareg.register.images import Images, all_bands
from somareg.runtime.clock import Clock
from somareg.runtime.threads import few_threads
from somareg.soma.align import align
from somareg.soma.together import at_the_table
from somareg.tiepoints.align import align_given
from somareg.tiepoints.use import Given
from somareg.types import Progress

SAME = 0.05  # probabilities that differ by less are equal


def match_whole(
    images: Images,
    ground: Ground,
    cfg: RegisterConfig,
    engine: tuple[Chosen, torch.device],
    given: Given | None,
    clock: Clock,
    tell: Progress,
) -> Findings:
    """Match the common ground of a pair, in memory.

    Args:
        images, ground: the images and their common ground.
        cfg: settings.
        engine: the chosen engine and its device.
        given: tie points of the user, in pixels of the whole images.
        clock: records the time of each stage.
        tell: called with a stage's name and the share of work done.

    Raises:
        ConfigError, InputError, ReadError, NoDataError, NoOverlapError: see `somareg.errors`.
    """
    chosen, device = engine
    images.moving.check_size(ground.moving, cfg.max_pixels)
    images.reference.check_size(ground.reference, cfg.max_pixels)
    moving, reference = images.moving.read(ground.moving), images.reference.read(ground.reference)
    clock.lap("read")
    every = {"moving_bands": all_bands(moving), "reference_bands": all_bands(reference)}  # only chosen bands were read
    left = ground_only(moving, reference, ground.places, (cfg.moving_modality, cfg.reference_modality))
    moving, reference = left.moving, left.reference
    (away, few), (near, more) = bridged(moving, "moving"), bridged(reference, "reference")
    whole = cfg.model_copy(update=every)
    prepared = prepare(
        away, near, ground.georef, whole, longest=longest_of(cfg.preset, near.grid.shape), radius_px=ground.radius_px
    )
    here = ground.reference[:2]
    starts = prepared.starts
    if given:
        given = given.moved((-here[0], -here[1]), (-ground.there[0], -ground.there[1]))
        starts = (*starts, given.start(prepared))
    clock.lap("prepare")
    pair = pair_tensors(prepared, device, (cfg.reference_modality, cfg.moving_modality))
    chosen = chosen.on(prepared.reference_mask.shape, prepared.moving_mask.shape)
    settings = engine_settings(cfg, reference.grid, ground.radius_px, is_looked_for=ground.is_looked_for)
    with few_threads(max(prepared.reference_mask.shape)) as cores:
        if given and cfg.tie_points_use == "replace":
            found = align_given(pair, starts[0], given.at_work(prepared), settings, tell)
        else:
            chosen, found = _align(pair, starts, settings, chosen, tell, cores)
    clock.lap("match")
    affine, flow = prepared.affine_of(found.affine), found.flow
    field = prepared.field_of(flow.field) if flow is not None and flow.field.array.any() else None
    coverage = spread = None
    if flow is not None:
        lattice = prepared.field_of(flow.field)
        coverage = LatticeValues(flow.coverage, lattice.origin, lattice.step)
        spread = LatticeValues(prepared.factor * flow.sigma_px, lattice.origin, lattice.step)
    told = given.told(cfg, local=field is not None) if given else ()
    findings = Findings(
        affine=affine,
        expected=prepared.affine_of(starts[0]),
        field=field,
        coverage=coverage,
        spread=spread,
        working_px=prepared.factor,
        matches=_matches(found, prepared),
        support=support_of(found, prepared.factor, load_calibration(chosen.engine), (*ground.doubts, *left.doubts)),
        reference=View(reference, ground.reference, 1, reference.valid_share),
        moving=View(moving, ground.moving, 1, moving.valid_share),
        ran=chosen,
        notes=(
            *moving.notes,
            *reference.notes,
            *ground.notes,
            *left.notes,
            *few,
            *more,
            *prepared.notes,
            *chosen.notes,
            *told,
        ),
    )
    return findings.moved(here, ground.there)


def _align(
    pair: Pair,
    starts: tuple[AffineTransform, ...],
    settings: EngineCfg,
    chosen: Chosen,
    tell: Progress,
    cores: int,
) -> tuple[Chosen, Alignment]:
    """Align with the chosen engine and with its rival; the likelier alignment and the engine that made it.

    The rival also starts from the result of the first engine, so agreement costs little. If both are about equally
    probable, the smaller predicted error decides.
    """
    found = align(pair, starts, settings, tell, at_the_table(chosen.network), cores)
    if chosen.rival is None:
        return chosen, found
    rival = chosen.rival
    begun = starts if found.failure else (found.affine, *starts)
    other = align(pair, begun, settings, lambda stage, share: None, at_the_table(rival.network), cores)
    judged = []
    for engine, alignment in ((chosen, found), (rival, other)):
        calibration = load_calibration(engine.engine)
        judged.append((calibration.probability(alignment), calibration.predict_rmse(alignment, 1)))
    (first, first_px), (second, second_px) = judged
    is_better = second_px < first_px if abs(second - first) < SAME else second > first
    return (rival, other) if is_better else (chosen, found)


def _matches(found: Alignment, prepared: Prepared) -> Matches:
    """Each window's own match; inliers lie within 2 feature cells of the estimate."""
    own = found.ties
    if own is None:
        return Matches.none()
    here = prepared.reference_pixels(own.points.double().numpy())
    away = prepared.factor * own.displacement.double().numpy()
    flow = found.flow
    local = prepared.field_of(flow.field) if flow is not None and flow.field.array.any() else None
    moved = here + away
    return Matches(
        points=here,
        target=prepared.affine_of(found.affine)(local(moved) if local else moved),
        sigma_px=prepared.factor * np.sqrt(own.variance.double().numpy() + FLOOR_PX2),
        confidence=np.asarray(1.0 - np.exp(-0.5 * np.square(own.evidence.double().numpy() / 2.0))),
        used=np.ones(len(here), bool),
        near_px=4.0 * prepared.factor,
    )
