"""What an output folder holds, and where the two images are now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from somareg.errors import ReadError, guarded
from somareg.io.displacement import read_estimate
from somareg.io.paths import file_behind
from somareg.report.inputs import InputRecord
from somareg.report.record import Report, load_report
from somareg.types import Estimate

REPORT, DISPLACEMENT, ALIGNED, POINTS = "report.json", "displacement.tif", "aligned.tif", "tie_points.geojson"


@dataclass(frozen=True, eq=False)
class Folder:
    """A result on disk.

    Attributes:
        path: of the folder.
        record: its report.
        estimate: its transform, with both grids.
        reference, moving: the images that were registered, None where they are no longer found or were arrays.
        aligned: None when the verdict forbade it.
        points: None when the file is missing.
        missing: sentences for the reader about what cannot be shown.
    """

    path: Path
    record: Report
    estimate: Estimate
    reference: Path | None
    moving: Path | None
    aligned: Path | None
    points: Path | None
    missing: tuple[str, ...]

    @property
    def displacement(self) -> Path:
        """The file of the estimate, with its certainty."""
        return self.path / DISPLACEMENT


@guarded
def find_folder(path: str | Path, *, moving: str | Path | None = None, reference: str | Path | None = None) -> Folder:
    """Read a result.

    Args:
        path: output folder of `somareg register`, or a file in it.
        moving, reference: where the images are, if no longer where the report says.

    Raises:
        ReadError: there is no result, or an image that was named does not exist.
        InputError, UnsupportedError: the report or the displacement is malformed or newer; see their readers.
    """
    place = Path(path)
    folder = place.parent if place.is_file() else place
    for name in (REPORT, DISPLACEMENT):
        if not (folder / name).is_file():
            raise ReadError(f"{place} holds no result ({name} is missing); {_way_out(folder)}")
    record = load_report(folder / REPORT)
    missing: list[str] = []
    images = {
        "reference": _find_image(record.reference, folder, reference, "reference", missing),
        "moving": _find_image(record.moving, folder, moving, "moving", missing),
    }
    aligned, points = (file if file.is_file() else None for file in (folder / ALIGNED, folder / POINTS))
    if aligned is None and images["moving"] is not None:
        missing.append("aligned.tif was not written; the aligned image is computed from the moving image.")
    elif aligned is None:
        missing.append("aligned.tif was not written, so the aligned image is not shown.")
    return Folder(
        path=folder,
        record=record,
        estimate=read_estimate(folder / DISPLACEMENT),
        aligned=aligned,
        points=points,
        missing=tuple(missing),
        **images,
    )


def _find_image(
    told: InputRecord, folder: Path, given: str | Path | None, role: str, missing: list[str]
) -> Path | None:
    """The file itself: as given, as the report says, relative to the folder, or beside it."""
    if given is not None:
        if not file_behind(given).exists():
            raise ReadError(f"{role} image {given} does not exist; check the path")
        return Path(given)
    if told.path is None:
        missing.append(f"The {role} image was an array, so it is not shown.")
        return None
    path = Path(told.path)
    name = path.name
    moved = [] if told.path_from_report is None else [folder / told.path_from_report]  # with the folder
    for candidate in (path, *moved, folder / path, folder / name, folder.parent / name):
        if file_behind(candidate).exists():
            return candidate
    missing.append(f"The {role} image is no longer at {path}; say where it is with --{role} FILE.")
    return None


def _way_out(folder: Path) -> str:
    """A batch holds results in folders of its own."""
    if not folder.is_dir():
        return "give the folder that somareg register wrote"
    inside = sorted(child.parent.name for child in folder.glob(f"*/{REPORT}"))
    if inside:
        return f"it has {len(inside)} of them inside, give one: {folder / inside[0]}"
    return "give the folder that somareg register wrote"
