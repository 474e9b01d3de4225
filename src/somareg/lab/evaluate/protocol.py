"""The protocol: levels of difficulty, the sets, and the samples that both a list and an evaluation speak of.

A sample is a crop of the optical image (the reference) and a crop of the same size that was resampled **once** from the
original SAR pixels through a known affine (the moving image). Border-free: every pixel of both crops comes from
imagery, so no frame, no reflected pixel and no mask tells where the moving image was taken from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from somareg.config import did_you_mean
from somareg.errors import ConfigError
from somareg.geometry import AffineTransform
from somareg.geometry.resample import resample
from somareg.lab.data.pairs import ByteImage, PairEntry, StoredPair, load_pair
from somareg.types import FloatArray

PROTOCOL_VERSION = 1
KERNEL_MARGIN_PX = 2.0  # half the support of the cubic kernel

Split = Literal["test", "val"]


@dataclass(frozen=True, slots=True)
class Level:
    """Ranges from which the affine of a sample is drawn, about the crop's centre.

    Attributes:
        rotation_deg: uniform in +-this.
        scale: log-uniform between the two; above 1 the moving image shows the ground larger.
        shift: uniform per axis in +-this share of the crop's side.
        aspect: log-uniform between the two, the x axis stretched against the y axis.
        shear: uniform in +-this, the slope by which the y axis leans.
    """

    rotation_deg: float
    scale: tuple[float, float]
    shift: float
    aspect: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0


LEVELS: dict[str, Level] = {
    "E": Level(2.0, (0.98, 1.02), 0.03),
    "m": Level(5.0, (0.95, 1.05), 0.06),
    "M": Level(5.0, (0.8, 1.2), 0.06),
    "H": Level(20.0, (0.8, 1.25), 0.10),
    "R": Level(180.0, (0.7, 1.4), 0.10),
    "A": Level(5.0, (0.95, 1.05), 0.06, aspect=(0.8, 1.25), shear=0.08),
}


@dataclass(frozen=True, slots=True)
class SetInfo:
    """What the protocol knows about a set of pairs.

    Attributes:
        name: folder in the data folder.
        crop: side of the square crops, pixels.
        residual: the labels' own error, in words.
        quoted_from: the smallest CMR threshold (pixels) that this error allows to quote.
        roles: role in `pairs.csv` that serves each split.
        count: samples per level and split.
    """

    name: str
    crop: int
    residual: str
    quoted_from: float
    roles: dict[str, str]
    count: dict[str, int]


SETS: dict[str, SetInfo] = {
    info.name: info
    for info in (
        SetInfo("sih", 512, "p90 0.5 px", 0.5, {"test": "test", "val": "train"}, {"test": 60, "val": 60}),
        SetInfo("ombria", 160, "0.3-0.5 px", 1.0, {"test": "test", "val": "val"}, {"test": 200, "val": 200}),
        SetInfo("sen12", 160, "p90 0.81 px", 1.0, {"test": "test"}, {"test": 200}),
        SetInfo("vhr", 128, "1.4-2 px", 3.0, {"val": "val-vhr"}, {"val": 200}),
    )
}


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One question of the benchmark.

    Attributes:
        pair: the pair it is cut from (with its offset).
        level: key of `LEVELS`.
        index: place in its list.
        crop: side S of both crops, pixels.
        origin: integer (x, y) of the reference crop in the optical image.
        matrix: (2, 3), reference-crop pixel centres to moving-crop pixel centres: the truth.
    """

    pair: PairEntry
    level: str
    index: int
    crop: int
    origin: tuple[int, int]
    matrix: NDArray[np.float64]

    @property
    def footprint(self) -> float:
        """SAR pixels per moving pixel where the affine shrinks the scene, else 1."""
        return shrinkage(self.matrix)

    def corners_in_sar(self) -> FloatArray:
        """(4, 2) SAR positions of the moving crop's corner pixel centres, in order around the crop."""
        corners: FloatArray = footprint_corners(self.matrix, self.crop, self.pair.offset) + np.asarray(
            self.origin, float
        )
        return corners

    def fits(self) -> bool:
        """Whether both crops lie inside the images, the moving one with the kernel's margin."""
        width, height = self.pair.width, self.pair.height
        x, y = self.origin
        inside = 0 <= x <= width - self.crop and 0 <= y <= height - self.crop
        margin = KERNEL_MARGIN_PX * self.footprint
        low, high = self.corners_in_sar().min(axis=0), self.corners_in_sar().max(axis=0)
        return bool(inside and (low >= margin).all() and (high <= np.array([width, height]) - 1 - margin).all())


@dataclass(frozen=True, slots=True, eq=False)
class SampleList:
    """The samples of one set and split, as committed.

    Attributes:
        set, role, split: what it is cut from.
        crop: side of the crops, pixels.
        seed: of the draws.
        samples: level -> samples in order.
        rejected: level -> counts of rejected draws: "size" (the affine fits nowhere in the image) and "nodata".
        residual, quoted_from: see `SetInfo`.
    """

    set: str
    role: str
    split: Split
    crop: int
    seed: int
    samples: dict[str, list[Sample]]
    rejected: dict[str, dict[str, int]]
    residual: str
    quoted_from: float


@dataclass(frozen=True, slots=True, eq=False)
class LoadedSample:
    """The pixels of a sample.

    Attributes:
        moving: (S, S) uint8 SAR.
        reference: (3, S, S) uint8 optical.
        matrix: (2, 3) truth, reference to moving pixel centres.
    """

    moving: ByteImage
    reference: ByteImage
    matrix: NDArray[np.float64]


def shrinkage(matrix: NDArray[np.float64]) -> float:
    """Scene pixels per moving pixel where `matrix` shrinks the scene, else 1."""
    return max(1.0, 1.0 / math.sqrt(abs(float(np.linalg.det(matrix[:, :2])))))


def footprint_corners(matrix: NDArray[np.float64], crop: int, offset: tuple[float, float]) -> FloatArray:
    """(4, 2) corner pixel centres of the moving crop in SAR pixels, for a reference crop at origin (0, 0)."""
    last = crop - 1.0
    corners = np.array([[0.0, 0.0], [last, 0.0], [last, last], [0.0, last]])
    scene: FloatArray = AffineTransform(matrix).inverse(corners) - np.asarray(offset)
    return scene


def load_sample(data_dir: str | Path, sample: Sample, pair: StoredPair | None = None) -> LoadedSample:
    """Cut and resample the two images of a sample.

    Args:
        data_dir: the data folder.
        sample: what to cut.
        pair: the sample's pair if it is in memory already.

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
    scene_xy = AffineTransform(sample.matrix).inverse(moving_xy) + np.subtract(sample.origin, sample.pair.offset)
    window, shifted = _window(pair.sar, scene_xy, math.ceil(2 * KERNEL_MARGIN_PX * sample.footprint))
    values, _ = resample(
        window[None].astype(np.float32),
        np.ones(window.shape, bool),
        shifted.reshape(side, side, 2),
        kernel="cubic",
        footprint=(sample.footprint, sample.footprint),
    )
    moving = np.clip(np.rint(values[0]), 0, 255).astype(np.uint8)
    return LoadedSample(moving, reference, sample.matrix)


def _window(image: ByteImage, xy: FloatArray, pad: int) -> tuple[ByteImage, FloatArray]:
    """The part of `image` that holds `xy` (N, 2) and `pad` pixels around, and `xy` in its pixels."""
    low = np.maximum(np.floor(xy.min(axis=0)).astype(int) - pad, 0)
    high = np.ceil(xy.max(axis=0)).astype(int) + pad + 1
    return image[low[1] : high[1], low[0] : high[0]], xy - low


def check_names(names: Iterable[str], known: Iterable[str], what: str) -> list[str]:
    """`names` as a list.

    Raises:
        ConfigError: one of them is not among `known`; the message suggests the nearest.
    """
    known, names = list(known), list(names)
    for name in names:
        if name not in known:
            raise ConfigError(f"unknown {what} '{name}'.{did_you_mean(name, known)}")
    return names
