"""Guesses from keypoints: SIFT, matched directly and with inverted contrast, and a robust affine (MAGSAC).

Where the two images look alike (near infrared, day and night, maps, one sensor) keypoints find any rotation, scale and
shift at once; between SAR and optical they find nothing. So their affine is one guess that is voted on like any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from somareg.geometry import AffineTransform
from somareg.geometry.proportions import STRIP_PX, keep_side
from somareg.matching.pair import Pair
from somareg.matching.refine import rescale
from somareg.matching.vote import Guess
from somareg.types import BoolArray, FloatArray


@dataclass(frozen=True)
class KeypointCfg:
    """Settings.

    Attributes:
        longest_px: longer side of the images in which keypoints are detected; larger ones are reduced.
        narrowest_px: least shorter side of reduced images, which may then be longer.
        count: keypoints per image at most.
        ratio: a match's distance must be below this share of the distance to the second best.
        threshold_px: residual up to which a match supports an affine.
        inliers: least number of matches that must support an affine.
        share: least share of the matches that must support it.
        stretch: largest ratio of the two axes' scales, and largest scale or its inverse.
    """

    longest_px: float = 800.0
    narrowest_px: int = STRIP_PX
    count: int = 4000
    ratio: float = 0.9
    threshold_px: float = 3.0
    inliers: int = 8
    share: float = 0.04
    stretch: float = 4.0


@dataclass(frozen=True, eq=False)
class _Keypoints:
    """Positions (N, 2) and descriptors (N, 128)."""

    points: FloatArray
    descriptors: NDArray[np.float32]


def keypoint_guesses(pair: Pair, cfg: KeypointCfg) -> tuple[Guess, ...]:
    """Affines that keypoints support, reference pixels -> moving pixels: at most one per contrast (as is, inverted).

    Args:
        pair: the images.
        cfg: settings.
    """
    sides = (*pair.shape, *pair.moving.shape[-2:])
    factor = keep_side(math.ceil(max(sides) / cfg.longest_px - 0.2), *sides, least=cfg.narrowest_px)
    small = pair.reduced(factor)
    reference = _detect(small.reference, small.reference_mask, cfg)
    moving = _detect(small.moving, small.moving_mask, cfg)
    guesses = []
    for descriptors in (moving.descriptors, _inverted(moving.descriptors)):
        matrix = _match(reference, _Keypoints(moving.points, descriptors), cfg)
        if matrix is not None:
            guesses.append(Guess(rescale(AffineTransform(matrix), factor, 1)))
    return tuple(guesses)


def _detect(image: Tensor, mask: Tensor, cfg: KeypointCfg) -> _Keypoints:
    """Keypoints of the mean of the bands of a normalised image (1, C, H, W), away from invalid pixels."""
    grey = image[0].mean(0).cpu().numpy()
    valid = np.ascontiguousarray(mask[0, 0].cpu().numpy() > 0.5, np.uint8)
    inner = cv2.erode(valid, np.ones((9, 9), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    spread = grey[valid > 0].std() if valid.any() else 0.0
    if spread == 0:
        return _Keypoints(np.zeros((0, 2)), np.zeros((0, 128), np.float32))
    picture = np.clip(128 + 48 * grey / spread, 0, 255).astype(np.uint8)
    # Without the precise upscale every keypoint lies a quarter of a pixel off; under a rotation the two offsets do
    # not cancel.
    sift = cv2.SIFT.create(cfg.count, contrastThreshold=0.02, enable_precise_upscale=True)
    keypoints, descriptors = sift.detectAndCompute(picture, inner)
    if descriptors is None:
        return _Keypoints(np.zeros((0, 2)), np.zeros((0, 128), np.float32))
    points = np.array([keypoint.pt for keypoint in keypoints], np.float64)
    return _Keypoints(points, np.asarray(descriptors, np.float32))


def _inverted(descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The descriptors in an image of inverted contrast: its keypoints point the other way, so the 4 x 4 fields around
    them change places.
    """
    return np.ascontiguousarray(descriptors.reshape(-1, 4, 4, 8)[:, ::-1, ::-1].reshape(-1, 128))


def _match(reference: _Keypoints, moving: _Keypoints, cfg: KeypointCfg) -> NDArray[np.float64] | None:
    """(2, 3) affine that enough matches support, None without one."""
    if len(reference.points) < cfg.inliers or len(moving.points) < cfg.inliers:
        return None
    nearest = cv2.BFMatcher(cv2.NORM_L2).knnMatch(reference.descriptors, moving.descriptors, k=2)
    kept = [one for one, other in nearest if one.distance < cfg.ratio * other.distance]
    if len(kept) < cfg.inliers:
        return None
    here = reference.points[[match.queryIdx for match in kept]]
    there = moving.points[[match.trainIdx for match in kept]]
    matrix, inlier = cv2.estimateAffine2D(
        here, there, method=cv2.USAC_MAGSAC, ransacReprojThreshold=cfg.threshold_px, maxIters=5000, confidence=0.999
    )
    if matrix is None:
        return None
    supports: BoolArray = inlier.ravel() > 0
    # Keypoints in one place that differ only in direction count once.
    witnesses = len({tuple(point) for point in np.rint(np.hstack([here, there])[supports] / 4)})
    if witnesses < max(cfg.inliers, cfg.share * len(kept)):
        return None
    scales = np.linalg.svd(matrix[:, :2], compute_uv=False)
    is_sane = 1 / cfg.stretch < scales[1] and scales[0] < cfg.stretch and scales[0] < cfg.stretch * scales[1]
    return np.asarray(matrix, np.float64) if is_sane else None
