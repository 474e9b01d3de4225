"""Sets of whole pairs: two images of any two sensors, judged without cropping, with their own affine truth.

Such a set has a table of its own, `<set>/pairs.csv`, with at least the columns modality, pair, reference, moving (paths
in the folder), ref_width, ref_height, mov_width, mov_height, landmark_rms_px, a ... f and black_frame_share. The truth
is `x_ref = a x_mov + b y_mov + c`, `y_ref = d x_mov + e y_mov + f`, pixel centres.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import cv2
import numpy as np

from somareg.errors import InputError, ReadError
from somareg.geometry import AffineTransform
from somareg.lab.data.pairs import ByteImage, read_image, solid_at_edge
from somareg.lab.evaluate.metrics import THRESHOLDS
from somareg.lab.evaluate.peers.base import Known
from somareg.lab.evaluate.protocol import Split
from somareg.lab.evaluate.sample import LoadedSample, SampleList
from somareg.lab.evaluate.whole_pair import WholePair, WholeSample, word
from somareg.types import BoolArray

FRAME_SHARE = 0.05  # a smaller black part is no frame but shadow or dark water
_COLUMNS = (
    *("modality", "pair", "reference", "moving", "ref_width", "ref_height", "mov_width", "mov_height"),
    *("landmark_rms_px", *"abcdef", "black_frame_share"),
)


def read_whole(data_dir: str | Path, name: str, split: Split) -> SampleList:
    """Read the list of a set of whole pairs, with modalities in turn, so that its beginning (`limit`) covers all.

    Raises:
        ReadError: the set's table is missing, or a column of it.
        InputError: a row holds a bad number or a truth that cannot be inverted, or there is none.
    """
    path = Path(data_dir) / name / "pairs.csv"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ReadError(f"{path} not found; --data takes the folder that holds the set '{name}'") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(f"{path} cannot be read ({error})") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise ReadError(f"{path}: column '{missing[0]}' is missing; it needs {', '.join(_COLUMNS)}")
    by_modality: dict[str, list[WholePair]] = defaultdict(list)
    for row in reader:
        pair = _pair(name, row, f"{path}:{reader.line_num}")
        by_modality[pair.modality].append(pair)
    if not by_modality:
        raise InputError(f"{path} holds no pair; give the table of the set '{name}'")
    turns = chain.from_iterable(zip_longest(*by_modality.values()))
    whole = tuple(WholeSample(pair, i) for i, pair in enumerate(pair for pair in turns if pair is not None))
    parts = {modality: _quoted_from(pairs) for modality, pairs in sorted(by_modality.items())}
    floors = [pair.floor_px for pairs in by_modality.values() for pair in pairs]
    residual = f"{min(floors):.1f}-{max(floors):.1f} px (by pair)"
    quoted_from = _quoted_from(chain.from_iterable(by_modality.values()))
    return SampleList(name, "val", split, None, 0, {}, {}, residual, quoted_from, whole, parts)


def load_whole(data_dir: str | Path, sample: WholeSample) -> LoadedSample:
    """The two images of a pair, grey ones (H, W) and others (3, H, W); large black frames are declared as no-data.

    Raises:
        ReadError: a file is missing or is not an image.
        InputError: an image does not have the size that the table states.
    """
    pair = sample.pair
    folder = Path(data_dir) / pair.set
    reference = _image(folder / pair.reference, pair.reference_shape)
    moving = _image(folder / pair.moving, pair.moving_shape)
    reference_mask, moving_mask = (_without_frame(image, pair.black_share) for image in (reference, moving))
    here, there = pair.kinds
    info = Known(word(there), word(here), moving_mask, reference_mask)
    return LoadedSample(moving, reference, pair.matrix, known=info)


def _pair(name: str, row: dict[str, str], where: str) -> WholePair:
    try:
        backwards = np.array([float(row[key]) for key in "abcdef"]).reshape(2, 3)
        shapes = [(int(row[f"{image}_height"]), int(row[f"{image}_width"])) for image in ("ref", "mov")]
        floor, black = float(row["landmark_rms_px"] or 0), float(row["black_frame_share"] or 0)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: bad number ({error}); sizes, a ... f, landmark_rms_px are numbers") from error
    if not (np.isfinite([floor, black]).all() and floor >= 0):
        raise InputError(
            f"{where}: landmark_rms_px and black_frame_share of pair '{row['pair']}' are no finite numbers"
        )
    if not np.isfinite(backwards).all() or abs(np.linalg.det(backwards[:, :2])) < 1e-6:
        raise InputError(f"{where}: a ... f of pair '{row['pair']}' cannot be inverted; give an affine truth")
    matrix = AffineTransform(backwards).inverse.matrix
    images = row["reference"], row["moving"]
    return WholePair(name, row["pair"], row["modality"], *images, shapes[0], shapes[1], matrix, floor, black)


def _quoted_from(pairs: Iterable[WholePair]) -> float | None:
    """The smallest threshold above the error of every truth."""
    floor = max(pair.floor_px for pair in pairs)
    return next((threshold for threshold in THRESHOLDS if threshold >= floor), None)


def _image(path: Path, shape: Sequence[int]) -> ByteImage:
    pixels = read_image(path, cv2.IMREAD_COLOR)
    if pixels.shape[:2] != tuple(shape):
        raise InputError(f"{path} is {pixels.shape[:2]}, its table says {tuple(shape)} (height, width)")
    if (pixels == pixels[..., :1]).all():
        return np.ascontiguousarray(pixels[..., 0])
    return np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1))


def _without_frame(image: ByteImage, black_share: float) -> BoolArray | None:
    """Mask of an image's data, None without a frame; `black_share` is the table's value for the pair."""
    if black_share < FRAME_SHARE:
        return None
    frame = solid_at_edge((image == 0) if image.ndim == 2 else (image == 0).all(axis=0))
    return ~frame if frame.mean() >= FRAME_SHARE else None
