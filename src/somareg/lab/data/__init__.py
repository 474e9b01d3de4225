"""Image pairs for building and judging: published data sets, pair folders, `pairs.csv`; packed tiles in `tiles`.

This package imports no torch; `tiles`, `samples` and `pack` do, and are imported by name.
"""

from somareg.lab.data.datasets import KINDS, open_dataset
from somareg.lab.data.pair_dataset import PairDataset, PairFiles
from somareg.lab.data.pairs import PairEntry, StoredPair, list_pairs, load_pair

__all__ = ["KINDS", "PairDataset", "PairEntry", "PairFiles", "StoredPair", "list_pairs", "load_pair", "open_dataset"]
