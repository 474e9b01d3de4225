"""A data set of image pairs in any layout: entries, their files and corrections."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from somareg.config import did_you_mean
from somareg.errors import ConfigError
from somareg.lab.data.labels import Correction
from somareg.lab.data.pairs import PairEntry, StoredPair, read_pair


@dataclass(frozen=True, slots=True)
class PairFiles:
    """The files of a pair.

    Attributes:
        sar, optical: images.
        mask: above 127 where there is imagery, or None.
    """

    sar: Path
    optical: Path
    mask: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PairDataset:
    """Pairs of one folder.

    Attributes:
        kind: its layout, a key of `somareg.lab.data.datasets.KINDS`.
        root: the folder.
        files: entry -> its files, in the order of the list.
        corrections: set -> file name without extension -> smooth correction, for the sets that have any.
        unpaired: images (paths in the folder) that have no partner.
    """

    kind: str
    root: Path
    files: Mapping[PairEntry, PairFiles]
    corrections: Mapping[str, Mapping[str, Correction]] = field(default_factory=dict)
    unpaired: tuple[str, ...] = ()

    @property
    def entries(self) -> tuple[PairEntry, ...]:
        """All entries in order."""
        return tuple(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def select(self, sets: Collection[str] | None = None, roles: Collection[str] | None = None) -> PairDataset:
        """The pairs of these sets and roles (None: all).

        Raises:
            ConfigError: a set or role that no pair has; the message suggests the nearest.
        """
        for what, requested, available in (
            ("set", sets, {entry.set for entry in self.files}),
            ("role", roles, {entry.role for entry in self.files}),
        ):
            for name in requested or ():
                if name not in available:
                    there = ", ".join(sorted(available))
                    raise ConfigError(
                        f"no pair of {what} '{name}' in {self.root} ({there}).{did_you_mean(name, available)}"
                    )
        selection = {
            entry: files
            for entry, files in self.files.items()
            if (sets is None or entry.set in sets) and (roles is None or entry.role in roles)
        }
        return replace(self, files=selection)

    def correction(self, entry: PairEntry) -> Correction | None:
        """The smooth correction of a pair, if its set has one for it."""
        return self.corrections.get(entry.set, {}).get(Path(entry.name).stem)

    def load(self, entry: PairEntry) -> StoredPair:
        """Read a pair; its entry then states width and height.

        Raises:
            ReadError, InputError: see `somareg.lab.data.pairs.read_pair`.
        """
        files = self.files[entry]
        return read_pair(entry, files.sar, files.optical, files.mask)
