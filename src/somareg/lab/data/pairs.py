"""A data folder of SAR-optical pairs: `pairs.csv`, `<set>/sar/NAME`, `<set>/optical/NAME`, maybe `<set>/mask/NAME`.

`pairs.csv` has the columns set, name, role, group, width, height, dx, dy, note. `(dx, dy)` is the residual
misregistration of the pair, position in optical minus position in SAR in pixels (empty means 0), so that
`aligned_sar(x, y) = sar(x - dx, y - dy)`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from somareg.errors import InputError, ReadError
from somareg.types import BoolArray

ByteImage = NDArray[np.uint8]

_COLUMNS = ("set", "name", "role", "group", "width", "height", "dx", "dy")
_NODATA_SHARE = 0.002  # smaller flat patches are content
_SOLID = np.ones((5, 5), np.uint8)  # saturated speckle and thin shadows do not survive an opening with this
_GUARD = np.ones((7, 7), np.uint8)  # nodata grows by 3 px: resampling and compression smear its rim


@dataclass(frozen=True, slots=True)
class PairEntry:
    """One row of `pairs.csv`.

    Attributes:
        set, name, role, group: where the pair belongs; pairs of one `group` show the same place.
        width, height: pixels, the same for both images; 0 where a folder layout does not say it.
        offset: (dx, dy) pixels, `aligned_sar(x, y) = sar(x - dx, y - dy)`.
    """

    set: str
    name: str
    role: str
    group: str
    width: int
    height: int
    offset: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class StoredPair:
    """A pair in memory, as stored (the offset is not applied).

    Attributes:
        entry: its row.
        sar: (H, W) uint8.
        optical: (3, H, W) uint8, RGB.
        valid: (H, W) bool, True where both images hold imagery.
    """

    entry: PairEntry
    sar: ByteImage
    optical: ByteImage
    valid: BoolArray


def list_pairs(
    data_dir: str | Path, sets: Collection[str] | None = None, roles: Collection[str] | None = None
) -> list[PairEntry]:
    """Rows of `pairs.csv` in file order, restricted to `sets` and `roles` (None: all).

    Raises:
        ReadError: no `pairs.csv` in the folder, or a column is missing.
        InputError: a row holds a bad number.
    """
    path = Path(data_dir) / "pairs.csv"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ReadError(f"{path} not found; give a data folder that holds a pairs.csv") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(f"{path} cannot be read ({error})") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ReadError(f"{path}: column '{missing[0]}' is missing; it needs {', '.join(_COLUMNS)}")
    rows = [(reader.line_num, row) for row in reader]
    entries = [_entry(row, f"{path}:{line}") for line, row in rows]
    return [e for e in entries if (sets is None or e.set in sets) and (roles is None or e.role in roles)]


def _entry(row: dict[str, str], where: str) -> PairEntry:
    try:
        offset = (float(row["dx"] or 0), float(row["dy"] or 0))
        size = (int(row["width"]), int(row["height"]))
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: bad number ({error}); width, height, dx and dy are numbers") from error
    return PairEntry(row["set"], row["name"], row["role"], row["group"], *size, offset)


def load_pair(data_dir: str | Path, entry: PairEntry) -> StoredPair:
    """Read both images of a pair and determine where they have imagery.

    Raises:
        ReadError: a file is missing or is not an image.
        InputError: the images do not have the size that the row states.
    """
    folder = Path(data_dir) / entry.set
    return read_pair(
        entry, folder / "sar" / entry.name, folder / "optical" / entry.name, find_mask(folder / "mask", entry.name)
    )


def find_mask(folder: Path, name: str) -> Path | None:
    """The mask of image `name`: the same name, or a PNG of that name where the image itself is compressed lossily."""
    return next((path for path in (folder / name, folder / f"{Path(name).stem}.png") if path.exists()), None)


def read_pair(entry: PairEntry, sar_path: Path, optical_path: Path, mask_path: Path | None = None) -> StoredPair:
    """Read the files of a pair and determine where they have imagery.

    Args:
        entry: its row; width and height 0 are taken from the SAR image.
        sar_path, optical_path: the two images; OpenCV turns them into 8 bits, grey and colour.
        mask_path: above 127 where there is imagery; None: everywhere but in no-data corners.

    Raises:
        ReadError: a file is missing or is not an image.
        InputError: the images do not have the size that the row states, or differ in size.
    """
    sar = read_image(sar_path, cv2.IMREAD_GRAYSCALE)
    optical = np.ascontiguousarray(read_image(optical_path, cv2.IMREAD_COLOR)[..., ::-1].transpose(2, 0, 1))
    is_stated = bool(entry.width and entry.height)
    if not is_stated:
        entry = replace(entry, width=sar.shape[1], height=sar.shape[0])
    expected = (entry.height, entry.width)
    says = f"{'pairs.csv says' if is_stated else f'{sar_path.name} is'} {expected} (height, width)"
    for image, path in ((sar, sar_path), (optical[0], optical_path)):
        if image.shape != expected:
            raise InputError(f"{path} is {image.shape}, {says}")
    valid = ~solid_at_edge(sar == 255) & ~solid_at_edge((optical == 0).all(axis=0))
    if mask_path is not None:
        mask = read_image(mask_path, cv2.IMREAD_GRAYSCALE)
        if mask.shape != expected:
            raise InputError(f"{mask_path} is {mask.shape}, {says}")
        valid &= mask > 127
    return StoredPair(entry, sar, optical, valid)


def read_image(path: Path, flags: int) -> ByteImage:
    """8-bit pixels as `cv2.imdecode` gives them with these flags.

    Raises:
        ReadError: the file is missing or is not an image.
    """
    try:
        encoded = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise ReadError(f"{path} not found; the list of pairs names it") from None
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror}") from error
    image = cv2.imdecode(encoded, flags) if encoded.size else None
    if image is None:
        raise ReadError(f"{path} is not an image that OpenCV can decode")
    return np.asarray(image, np.uint8)


def solid_at_edge(flat: BoolArray) -> BoolArray:
    """The large solid parts of `flat` that reach the image's edge, slightly dilated.

    No-data is a filled corner or strip. Saturated speckle (255) and deep shadow (0) are content: they are porous or
    small or lie inside the image.
    """
    height, width = flat.shape
    solid = cv2.morphologyEx(flat.astype(np.uint8), cv2.MORPH_OPEN, _SOLID)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid)
    keep = np.zeros(count, bool)
    for label in range(1, count):
        x, y, w, h, area = (int(v) for v in stats[label])
        at_edge = x == 0 or y == 0 or x + w == width or y + h == height
        keep[label] = at_edge and area > _NODATA_SHARE * flat.size
    grown: BoolArray = cv2.dilate(keep[labels].astype(np.uint8), _GUARD).astype(bool)
    return grown
