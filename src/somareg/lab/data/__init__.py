"""Image pairs for building and judging: folders described by a `pairs.csv`."""

from somareg.lab.data.pairs import Pair, PairEntry, list_pairs, load_pair

__all__ = ["Pair", "PairEntry", "list_pairs", "load_pair"]
