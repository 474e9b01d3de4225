"""Run the engine on the network's features, with the global affine of its coarse matches as one more guess."""

from __future__ import annotations

import torch

from somareg.geometry import AffineTransform
from somareg.matching import engine
from somareg.matching.affine import to_transform
from somareg.matching.engine import Alignment, EngineCfg
from somareg.matching.magsac import fit_magsac
from somareg.matching.pair import Pair
from somareg.matching.refine import rescale
from somareg.matching.start import reduction
from somareg.matching.vote import Guess
from somareg.soma.encoder import Encoded
from somareg.soma.features import LearnedFeatures
from somareg.soma.network import Soma
from somareg.types import Progress

COARSE_MATCHING_PX = 320.0  # longer side of the image for the network's coarse matches


def align(
    pair: Pair,
    starts: tuple[AffineTransform, ...],
    cfg: EngineCfg,
    progress: Progress = lambda stage, share: None,
    network: Soma | None = None,
    cores: int | None = None,
) -> Alignment:
    """Align a pair with a network or without one.

    Args:
        pair, starts, cfg, progress, cores: see `somareg.matching.engine.align`.
        network: learned features and coarse matches; None for the weight-free engine.
    """
    if network is None:
        return engine.align(pair, starts, cfg, progress, cores=cores)
    return engine.align(pair, starts, cfg, progress, LearnedFeatures(network), coarse_guesses(pair, network), cores)


@torch.inference_mode()
def coarse_guesses(pair: Pair, network: Soma) -> tuple[Guess, ...]:
    """The global affine of a network's coarse matches; empty without a coarse matcher or without an affine."""
    if network.glam.coarse is None:
        return ()
    small = pair.reduced(factor := reduction(pair, COARSE_MATCHING_PX))
    encoded_reference = network.encode(small.reference, small.reference_mask, small.modalities[0])
    encoded_moving = network.encode(small.moving, small.moving_mask, small.modalities[1])
    affine = coarse_affine(network, encoded_reference, encoded_moving)
    return () if affine is None else (Guess(rescale(affine, factor, 1)),)


def coarse_affine(network: Soma, reference: Encoded, moving: Encoded) -> AffineTransform | None:
    """The global affine (MAGSAC) of a pair's coarse matches, reference pixels -> moving pixels; None without one."""
    matches = network.glam.match_coarse(reference, moving)
    if matches is None:
        return None
    matrix = fit_magsac(matches.points, matches.displacement[0], matches.confidence[0])
    return None if matrix is None else to_transform(matrix)
