"""Diagnoses of the learned models among the methods of an evaluation, on the same samples."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from somareg.lab.data.batch import PairBatch
from somareg.lab.data.samples import load_stacks
from somareg.lab.data.stacks import batches
from somareg.lab.evaluate.diagnose import diagnose, save_diagnosis
from somareg.lab.evaluate.diagnosis import Diagnosis
from somareg.lab.evaluate.list_file import set_lists
from somareg.lab.evaluate.peers import Method
from somareg.lab.evaluate.protocol import Split, affine_levels
from somareg.lab.evaluate.run import Progress
from somareg.lab.evaluate.sample import SampleList
from somareg.soma.network import Soma


@dataclass(frozen=True, eq=False)
class Inside:
    """The diagnosis of a model.

    Attributes:
        name: of the method.
        file: its numbers, JSON.
        diagnosis: the numbers.
    """

    name: str
    file: Path
    diagnosis: Diagnosis


def learned(methods: Sequence[Method]) -> dict[str, Soma]:
    """Name -> network of the methods that are a learned model."""
    networks = {method.name: getattr(method, "network", None) for method in methods}
    return {name: network for name, network in networks.items() if isinstance(network, Soma)}


def diagnose_methods(
    data_dir: str | Path,
    sets: Collection[str],
    levels: Collection[str],
    methods: Sequence[Method],
    *,
    limit: int | None = None,
    out_dir: str | Path,
    split: Split = "test",
    progress: Progress | None = None,
    lists: Sequence[SampleList] | None = None,
) -> list[Inside]:
    """Diagnose every learned model over all sets and levels together.

    The network gets the normalised crops directly, without the search and refinement of `register`, so its
    errors are not those of the table.

    Args:
        data_dir, sets, levels, limit, split, lists: as for `run.evaluate`.
        methods: others than learned models are skipped.
        out_dir: gets `diagnosis/<name>.json`.
        progress: called with (what, done, total) after each batch.

    Raises:
        ConfigError: unknown set or level, or a level whose truth is no matrix (N, whole).
        ReadError, InputError: the data folder does not hold what the lists name, or the lists hold nothing.
        OutputError: `out_dir` cannot be written.
    """
    levels = affine_levels(levels)
    if lists is None:
        every = [listed for name in sets for listed in set_lists(data_dir, name, split)]
        lists = [listed for listed in every if listed.is_labelled]
    total = sum(len(listed.samples.get(level, [])[:limit]) for listed in lists for level in levels)
    diagnoses = []
    for name, network in learned(methods).items():
        device = next(network.parameters()).device
        stream = batches(load_stacks(lists, data_dir, levels, limit), device)
        diagnosis = diagnose(network, _counted(stream, f"inside {name}", total, progress))
        # Not beside the results, where every JSON is one.
        file = save_diagnosis(diagnosis, Path(out_dir) / "diagnosis" / f"{name}.json")
        diagnoses.append(Inside(name, file, diagnosis))
    return diagnoses


def _counted(stream: Iterator[PairBatch], what: str, total: int, progress: Progress | None) -> Iterator[PairBatch]:
    """Yield the batches and report each when the next one is requested."""
    done = 0
    for batch in stream:
        yield batch
        done += len(batch)
        if progress:
            progress(what, done, total)
