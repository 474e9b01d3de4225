"""Drawn samples: their description, and how their pixels are made.

A sample is a crop of the optical image (the reference) and a crop of the same size that was resampled **once** from the
original SAR pixels through a known map (the moving image): an affine, at level N after a smooth warp. Border-free:
every pixel of both crops comes from imagery, so no frame, reflected pixel or mask reveals where the moving image
was taken from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from somareg.geometry import AffineTransform
from somareg.geometry.resample import resample
from somareg.lab.data.pairs import ByteImage, PairEntry, StoredPair, load_pair
from somareg.lab.evaluate.metrics import true_displacement
from somareg.lab.evaluate.peers.base import SAR_OPTICAL, Known
from somareg.lab.evaluate.protocol import WHOLE, Split
from somareg.lab.evaluate.warp import SmoothWarp
from somareg.lab.evaluate.whole_pair import WholeSample
from somareg.types import FloatArray

KERNEL_MARGIN_PX = 2.0  # half the support of the cubic kernel
_OUTLINE_STEP_PX = 8.0
_NODE_STEP_PX = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One sample of the benchmark.

    Attributes:
        pair: source of both crops (with its offset).
        level: key of `LEVELS`.
        index: position in its list.
        crop: side S of both crops, pixels.
        origin: integer (x, y) of the reference crop in the optical image.
        matrix: (2, 3), reference-crop pixel centres to moving-crop pixel centres: the truth, without a warp.
        warp: displaces the reference-crop pixels before the matrix; None at levels without.
    """

    pair: PairEntry
    level: str
    index: int
    crop: int
    origin: tuple[int, int]
    matrix: NDArray[np.float64]
    warp: SmoothWarp | None = None

    @property
    def footprint(self) -> float:
        """SAR pixels per moving pixel where the affine shrinks the scene, else 1."""
        return shrinkage(self.matrix)

    def outline_in_sar(self) -> FloatArray:
        """(N, 2) SAR positions around the moving crop; its four corner pixel centres where there is no warp."""
        outline: FloatArray = footprint_outline(self.matrix, self.crop, self.pair.offset, self.warp) + np.asarray(
            self.origin, float
        )
        return outline

    def fits(self) -> bool:
        """Whether both crops lie inside the images, the moving one with the kernel's margin."""
        width, height = self.pair.width, self.pair.height
        x, y = self.origin
        inside = 0 <= x <= width - self.crop and 0 <= y <= height - self.crop
        margin = KERNEL_MARGIN_PX * self.footprint
        outline = self.outline_in_sar()
        low, high = outline.min(axis=0), outline.max(axis=0)
        return bool(inside and (low >= margin).all() and (high <= np.array([width, height]) - 1 - margin).all())


@dataclass(frozen=True, slots=True, eq=False)
class SampleList:
    """The samples of one set and role, as committed, or read from the table of a set of whole pairs.

    Attributes:
        set, role, split: source of the samples.
        crop: side of the crops, pixels; None for whole pairs.
        seed: of the draws.
        samples: level -> drawn samples in order.
        rejected: level -> counts of rejected draws: "size" (the map fits nowhere in the image), "nodata", and at levels
            with a warp "steep".
        residual, quoted_from: see `SetInfo`.
        whole: pairs that are judged without cropping, in order.
        parts: of whole pairs, each modality, which gets a row of its own -> its `quoted_from`.
    """

    set: str
    role: str
    split: Split
    crop: int | None
    seed: int
    samples: dict[str, list[Sample]]
    rejected: dict[str, dict[str, int]]
    residual: str
    quoted_from: float | None
    whole: tuple[WholeSample, ...] = ()
    parts: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def is_labelled(self) -> bool:
        """Whether the samples have a known truth."""
        return any(quoted_from is not None for quoted_from in (self.quoted_from, *self.parts.values()))

    def of(self, level: str) -> Sequence[Sample | WholeSample]:
        """The samples of a level; empty without the level."""
        return self.whole if level == WHOLE else self.samples.get(level, [])


@dataclass(frozen=True, slots=True, eq=False)
class LoadedSample:
    """The pixels of a sample.

    Attributes:
        moving: (H2, W2) or (C, H2, W2) uint8; of a sample that was cut (S, S) SAR.
        reference: (H, W) or (C, H, W) uint8; of a sample that was cut (3, S, S) optical.
        matrix: (2, 3) truth, reference to moving pixel centres; applied after the warp, if any.
        warp: displaces reference pixels before the matrix, or None.
        known: information for every method: modalities and declared nodata.
    """

    moving: ByteImage
    reference: ByteImage
    matrix: NDArray[np.float64]
    warp: SmoothWarp | None = None
    known: Known = SAR_OPTICAL

    def truth(self) -> NDArray[np.float64]:
        """(2, H, W) true displacement (dx, dy) of every reference pixel, pixels."""
        height, width = self.reference.shape[-2:]
        return true_displacement(self.matrix, (height, width), None if self.warp is None else self.warp.on_crop())


def shrinkage(matrix: NDArray[np.float64]) -> float:
    """Scene pixels per moving pixel where `matrix` shrinks the scene, else 1."""
    return max(1.0, 1.0 / math.sqrt(abs(float(np.linalg.det(matrix[:, :2])))))


def footprint_outline(
    matrix: NDArray[np.float64], crop: int, offset: tuple[float, float], warp: SmoothWarp | None = None
) -> FloatArray:
    """(N, 2) points around the moving crop in SAR pixels, for a reference crop at origin (0, 0).

    Its corner pixel centres in order, enough for an affine; with a warp also points every few pixels between them.
    """
    last = crop - 1.0
    corners = np.array([[0.0, 0.0], [last, 0.0], [last, last], [0.0, last]])
    if warp is not None:
        share = np.linspace(0.0, 1.0, math.ceil(last / _OUTLINE_STEP_PX), endpoint=False)[:, None]
        sides = zip(corners, np.roll(corners, -1, axis=0), strict=True)
        corners = np.concatenate([start + share * (end - start) for start, end in sides])
    scene: FloatArray = _to_reference(corners, matrix, warp) - np.asarray(offset)
    return scene


def load_sample(data_dir: str | Path, sample: Sample, pair: StoredPair | None = None) -> LoadedSample:
    """Cut and resample the two images of a sample.

    Args:
        data_dir: the data folder.
        sample: what to cut.
        pair: the sample's pair, if already in memory.

    Returns:
        Images and truth; the moving image was interpolated once (cubic, a = -0.5; averaged against aliasing where the
        affine shrinks the scene enough) and rounded to 8 bits.

    Raises:
        ReadError, InputError: see `load_pair`.
    """
    pair = pair or load_pair(data_dir, sample.pair)
    x, y = sample.origin
    side = sample.crop
    reference = np.ascontiguousarray(pair.optical[:, y : y + side, x : x + side])
    rows, cols = np.mgrid[:side, :side].astype(np.float64)
    moving_xy = np.stack([cols, rows], axis=-1).reshape(-1, 2)
    crop_xy = AffineTransform(sample.matrix).inverse(moving_xy)
    if sample.warp is not None:
        crop_xy = crop_xy + _unwarped(sample.matrix, sample.warp)
    scene_xy = crop_xy + np.subtract(sample.origin, sample.pair.offset)
    window, shifted = _window(pair.sar, scene_xy, math.ceil(2 * KERNEL_MARGIN_PX * sample.footprint))
    values, _ = resample(
        window[None].astype(np.float32),
        np.ones(window.shape, bool),
        shifted.reshape(side, side, 2),
        kernel="cubic",
        footprint=(sample.footprint, sample.footprint),
    )
    moving = np.clip(np.rint(values[0]), 0, 255).astype(np.uint8)
    return LoadedSample(moving, reference, sample.matrix, sample.warp)


def _to_reference(moving_xy: FloatArray, matrix: NDArray[np.float64], warp: SmoothWarp | None) -> FloatArray:
    """Positions on the reference crop of the moving crop's pixels (N, 2)."""
    xy: FloatArray = AffineTransform(matrix).inverse(moving_xy)
    return xy if warp is None else warp.inverse(xy)


def _unwarped(matrix: NDArray[np.float64], warp: SmoothWarp) -> FloatArray:
    """(S * S, 2) correction by the inverse of a warp to the affine positions of the moving crop's pixels.

    It is found on nodes and interpolated by a kernel that is exact on quadratics: within a thousandth of a pixel.
    """
    line = np.arange(-2, math.ceil(warp.crop / _NODE_STEP_PX) + 3, dtype=float)
    nodes = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2) * _NODE_STEP_PX
    change = _to_reference(nodes, matrix, warp) - AffineTransform(matrix).inverse(nodes)
    rows, cols = np.mgrid[: warp.crop, : warp.crop] / _NODE_STEP_PX - line[0]
    values, _ = resample(change.T.reshape(2, len(line), len(line)), None, (cols, rows), kernel="cubic")
    between: FloatArray = values.reshape(2, -1).T
    return between


def _window(image: ByteImage, xy: FloatArray, pad: int) -> tuple[ByteImage, FloatArray]:
    """The part of `image` around `xy` (N, 2) with a margin of `pad` pixels, and `xy` in its pixels."""
    low = np.maximum(np.floor(xy.min(axis=0)).astype(int) - pad, 0)
    high = np.ceil(xy.max(axis=0)).astype(int) + pad + 1
    return image[low[1] : high[1], low[0] : high[0]], xy - low
