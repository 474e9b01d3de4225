"""The log of a run: two CSV tables, TensorBoard events if installed, and pictures of validation samples."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.nn import functional as F

from somareg.io.atomic import atomic_path

TABLES = ("train.csv", "validation.csv")
EVENTS = "tensorboard"
PICTURES = "pictures"


class Mean:
    """Means of named scalar tensors since the last `take`, kept on their device so that no step waits for them."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the figures of one step."""
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """Return the means and reset, with one transfer from the device."""
        if not self._sums:
            return {}
        sums = torch.stack(list(self._sums.values())).tolist()
        means = {name: total / self._counts[name] for name, total in zip(self._sums, sums, strict=True)}
        self._sums, self._counts = {}, {}
        return means


class Table:
    """A CSV file with one row per step; a new figure adds a column.

    Args:
        path: the file.
        step: rows of this step and later ones are dropped first: a resumed run writes them again.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.rows = [row for row in _read_rows(path) if int(row["step"]) < step]
        self.columns = list(dict.fromkeys(name for row in self.rows for name in row))
        if path.exists():
            self._rewrite()

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Append a row; it is on the disk when this returns."""
        row = {"step": str(step)} | {name: f"{value:.6g}" for name, value in figures.items()}
        self.rows.append(row)
        new = [name for name in row if name not in self.columns]
        if new:
            self.columns += new
            self._rewrite()
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns, restval="").writerow(row)

    def _rewrite(self) -> None:
        with atomic_path(self.path, overwrite=True) as part, part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)


def _read_rows(path: Path) -> list[dict[str, str]]:
    """The complete rows of a table; a last row cut by a kill is dropped."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{key: value for key, value in row.items() if key and value} for row in csv.DictReader(file)]
    return [row for row in rows if row.get("step", "").isdigit()]


class RunLog:
    """Writes the log of a run.

    Args:
        folder: of the run.
        step: first step that this call will log; later entries of an earlier call are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.train, self.validation = (Table(folder / name, step) for name in TABLES)
        self._writer = _tensorboard(folder / EVENTS, step)
        self._pictures = folder / PICTURES

    def add_train(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of training, mean since the last row."""
        self.train.add(step, figures)
        self._scalars("train", step, figures)

    def add_validation(self, step: int, scores: Mapping[str, float], pictures: Mapping[str, Tensor]) -> None:
        """Scores of a validation and its pictures, (3, H, W) in 0-1; files hold those of the last validation."""
        self.validation.add(step, scores)
        self._scalars("validation", step, scores)
        for name, picture in pictures.items():
            _write_png(self._pictures / f"{name.replace('/', '-')}.png", picture)
            if self._writer is not None:
                self._writer.add_image(name, picture.clamp(0, 1), step)
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._writer is not None:
            self._writer.close()

    def _scalars(self, group: str, step: int, figures: Mapping[str, float]) -> None:
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)


def _tensorboard(folder: Path, step: int) -> Any | None:
    """A writer of TensorBoard events, None when TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        return None
    return SummaryWriter(str(folder), purge_step=step)  # type: ignore[no-untyped-call,unused-ignore]


def _write_png(path: Path, picture: Tensor) -> None:
    """Write (3, H, W) in 0-1; the picture of an earlier validation is replaced."""
    path.parent.mkdir(exist_ok=True)
    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    encoded = cv2.imencode(".png", pixels[..., ::-1])[1]
    path.write_bytes(encoded.tobytes())


def before_after(reference: Tensor, moving: Tensor, affine: Tensor, squares: int = 8) -> Tensor:
    """Two checkerboards side by side: left the pair as it is, right with the moving image aligned.

    Edges continue across the squares where the images agree.

    Args:
        reference: (C, H, W) grey values of any range.
        moving: (C2, H, W) likewise.
        affine: (2, 3) estimate, reference -> moving pixel centres.
        squares: along the width.

    Returns:
        (3, H, 2 W + 4) in 0-1 on the CPU; black where the moving image does not reach.
    """
    reference, moving, affine = (each.detach().float().cpu() for each in (reference, moving, affine))
    height, width = reference.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    side = max(1, width // squares)
    odd = ((y // side + x // side) % 2).bool()
    shown_reference = _shown(reference)
    boards = []
    for matrix in (torch.eye(2, 3), affine):
        points = torch.stack([x, y, torch.ones_like(x)], dim=-1).float() @ matrix.T
        size = torch.tensor([moving.shape[-1], moving.shape[-2]])
        grid = (2 * points + 1) / size - 1
        warped = F.grid_sample(_shown(moving)[None], grid[None], mode="bilinear", align_corners=False)[0]
        boards.append(torch.where(odd, warped, shown_reference))
    return torch.cat([boards[0], torch.ones(3, height, 4), boards[1]], dim=-1)


def _shown(image: Tensor) -> Tensor:
    """(C, H, W) -> (3, H, W) in 0-1, stretched between the 2nd and 98th percentile."""
    rgb = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    low, high = torch.quantile(rgb.flatten()[:: max(1, rgb.numel() // 100_000)], torch.tensor([0.02, 0.98])).tolist()
    stretched: Tensor = (rgb - low) / max(high - low, 1e-6)
    return stretched.clamp(0, 1)
