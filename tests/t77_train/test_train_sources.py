"""Draws that a step number fixes, the synthetic pool, and the log."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from somareg.errors import ConfigError
from somareg.lab.data.batch import PairBatch
from somareg.lab.data.tiles import TileSet
from somareg.lab.train.config import DataCfg
from somareg.lab.train.judge import rank_of
from somareg.lab.train.logs import Mean, RunLog, Table, before_after
from somareg.lab.train.sources import PairSource, SyntheticPool, load_tiles, open_source, seed_of

CPU = torch.device("cpu")


def tiles(count: int, size: int = 96, name: str = "a", seed: int = 0) -> TileSet:
    generator = torch.Generator().manual_seed(seed)
    return TileSet(
        sar=torch.randint(0, 256, (count, size, size), dtype=torch.uint8, generator=generator),
        optical=torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator),
        valid=torch.ones(count, size, size, dtype=torch.bool),
        label=torch.eye(2, 3).repeat(count, 1, 1),
        group=tuple(f"{name}{i // 2}" for i in range(count)),
        source=(name,) * count,
        name=tuple(f"{name}/{i // 2}.png@{i % 2 * 8},0" for i in range(count)),
    )


def cfg(**changes: object) -> DataCfg:
    base = DataCfg()
    return replace(base, draw=replace(base.draw, crop=64), **changes)  # type: ignore[arg-type]


def tensors(batch: PairBatch) -> list[Tensor]:
    flow = [] if batch.flow is None else [batch.flow]
    return [batch.reference, batch.reference_mask, batch.moving, batch.moving_mask, batch.truth, *flow]


def equal(one: PairBatch, other: PairBatch) -> bool:
    pairs = list(zip(tensors(one), tensors(other), strict=False))
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


class Maker:
    """Scenes that say which call made them: every pixel is the next number of the generator."""

    def __init__(self) -> None:
        self.calls = 0

    def scenes(self, count: int, size: int, generator: torch.Generator, device: torch.device) -> TileSet:
        self.calls += 1
        return tiles(count, size, "synthetic", int(torch.randint(2**31, (1,), generator=generator)))


# --- batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_depends_on_seed_step_and_rank_only() -> None:
    def source(seed: int, rank: int) -> PairSource:
        return PairSource([tiles(6), tiles(4, 128)], None, cfg(), batch=3, seed=seed, rank=rank, device=CPU)

    first = source(1, 0)
    torch.manual_seed(5)
    in_order = [first.batch(step) for step in range(4)]
    torch.manual_seed(6)  # the global generator plays no part
    assert all(equal(in_order[step], source(1, 0).batch(step)) for step in (3, 1))  # any order, any instance
    assert len(in_order[0]) == 3
    assert in_order[0].reference.shape[-1] == 64
    others = [source(1, 1).batch(0), source(2, 0).batch(0), *in_order[1:]]
    assert not any(equal(in_order[0], other) for other in others)


def test_seeds_of_neighbours_are_unrelated() -> None:
    seeds = [seed_of(a, b, c) for a in range(6) for b in range(6) for c in range(6)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    bits = np.array([[seed >> i & 1 for i in range(63)] for seed in seeds])
    assert abs(bits.mean() - 0.5) < 0.02  # 13608 coin throws: 4.7 deviations


def test_sizes_are_drawn_in_proportion_and_synthetic_by_its_share() -> None:
    sets = [tiles(30, 96, "a"), tiles(10, 128, "b")]
    wanted = cfg(synthetic_share=0.5, synthetic_pool=4, synthetic_chunk=2, synthetic_refresh_steps=0)
    pool = SyntheticPool(Maker(), wanted, 0, 0, CPU)
    source = PairSource(sets, pool, wanted, batch=1, seed=0, rank=0, device=CPU)
    counts = Counter(source._scenes(step).source[0] for step in range(2000))
    for name, share in {"synthetic": 0.5, "a": 0.375, "b": 0.125}.items():
        assert abs(counts[name] / 2000 - share) < 4.5 * math.sqrt(share * (1 - share) / 2000)


def test_summary_counts_pairs_not_tiles() -> None:
    wanted = cfg(licences={"a": "CC-BY"})
    source = PairSource([tiles(6), tiles(4, 128, "b")], None, wanted, batch=1, seed=0, rank=0, device=CPU)
    assert source.summary() == {
        "data": [
            {"set": "a", "role": "train", "pairs": 3, "licence": "CC-BY"},
            {"set": "b", "role": "train", "pairs": 2, "licence": "not stated"},
        ],
        "tiles": {"96": 6, "128": 4},
        "synthetic_share": 0.0,
    }


# --- the pool ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("chunks", "pace"), [(1, 1), (3, 1), (4, 5)])
def test_generations_count_the_replacements(chunks: int, pace: int) -> None:
    wanted = cfg(synthetic_pool=2 * chunks, synthetic_chunk=2, synthetic_refresh_steps=pace)
    pool = SyntheticPool(Maker(), wanted, 0, 0, CPU)
    replaced, turn = [0] * chunks, 0
    for step in range(60):
        if step > 0 and step % pace == 0:
            replaced[turn % chunks] += 1
            turn += 1
        assert [pool.generation(chunk, step) for chunk in range(chunks)] == replaced


def test_a_pool_made_in_the_middle_is_the_pool_that_lived_through() -> None:
    wanted = cfg(synthetic_pool=6, synthetic_chunk=2, synthetic_refresh_steps=2)
    lived, makers = SyntheticPool(Maker(), wanted, 7, 0, CPU), Maker()
    for step in range(31):
        for chunk in range(3):
            lived.chunk(chunk, step)
    fresh = SyntheticPool(makers, wanted, 7, 0, CPU)
    for chunk in range(3):
        assert torch.equal(fresh.chunk(chunk, 30).sar, lived.chunk(chunk, 30).sar)
        fresh.chunk(chunk, 30)
    assert makers.calls == 3  # made once, kept while its generation lasts
    assert not torch.equal(fresh.chunk(0, 30).sar, lived.chunk(0, 40).sar)
    other = SyntheticPool(Maker(), wanted, 7, 1, CPU)
    assert not torch.equal(other.chunk(0, 30).sar, fresh.chunk(0, 30).sar)


def test_synthetic_scenes_alone_can_train() -> None:
    wanted = cfg(synthetic_share=0.1, synthetic_pool=2, synthetic_chunk=2, synthetic_size=96)
    source = open_source(wanted, batch=2, seed=0, rank=0, device=CPU)
    batch = source.batch(0)
    assert equal(batch, source.batch(0))
    assert source.summary()["synthetic_share"] == 1.0
    assert float(batch.reference.std()) > 0.1


# --- files ------------------------------------------------------------------------------------------------------------


def test_tiles_are_found_by_file_folder_and_pattern(tmp_path: Path) -> None:
    for i, size in enumerate((96, 96, 128)):
        tiles(2, size, f"s{i}", i).save(tmp_path / f"tiles-{i}.safetensors")
    by_pattern = load_tiles([str(tmp_path / "tiles-*.safetensors"), str(tmp_path / "tiles-0.safetensors")])
    assert [(each.size, len(each)) for each in by_pattern] == [(96, 4), (128, 2)]  # no shard twice
    assert by_pattern[0].source == ("s0", "s0", "s1", "s1")
    assert len(load_tiles([str(tmp_path / "tiles-2.safetensors")])) == 1
    with pytest.raises(ConfigError, match="matches no file"):
        load_tiles([str(tmp_path / "nothing-*.safetensors")])
    with pytest.raises(ConfigError, match="nothing to train on"):
        open_source(cfg(), batch=1, seed=0, rank=0, device=CPU)


@pytest.mark.parametrize("name", ["vhr", "multisensor", "vhrcity", "vhrpublished", "crossmodal"])
def test_tiles_of_sets_for_judging_do_not_enter_training(name: str, tmp_path: Path) -> None:
    """However they came to be: packed elsewhere, or by an earlier version."""
    tiles(2, name="ombria").save(tmp_path / "tiles-0.safetensors")
    TileSet.concat([tiles(2, name="ombria"), tiles(1, name=name)]).save(tmp_path / "tiles-1.safetensors")
    assert len(load_tiles([str(tmp_path / "tiles-0.safetensors")])[0]) == 2
    for attempt in (load_tiles, lambda found: open_source(cfg(tiles=found), batch=1, seed=0, rank=0, device=CPU)):
        with pytest.raises(ConfigError, match=rf"tiles-1\.safetensors: set '{name}' is for judging only"):
            attempt((str(tmp_path / "tiles-*.safetensors"),))


# --- the log ----------------------------------------------------------------------------------------------------------


def test_a_resumed_table_drops_what_is_trained_again(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    table = Table(path, 1)
    for step in (2, 4, 6):
        table.add(step, {"loss": step / 3})
    with path.open("a") as file:
        file.write("8,0.2")  # a kill while it was written is a whole row, or a row without a step
    resumed = Table(path, 5)
    resumed.add(6, {"loss": 1.0, "extra": 2.0})
    assert path.read_text().splitlines() == ["step,loss,extra", "2,0.666667,", "4,1.33333,", "6,1,2"]


def test_means_are_over_the_steps_since_the_last_look() -> None:
    mean = Mean()
    mean.add({"loss": torch.tensor(1.0), "rare": torch.tensor(5.0)})
    mean.add({"loss": torch.tensor(2.0)})
    assert mean.take() == {"loss": 1.5, "rare": 5.0}
    assert mean.take() == {}


def test_pictures_are_kept_without_tensorboard_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = RunLog(tmp_path, 1)
    log.add_train(1, {"loss": 1.0})
    log.add_validation(1, {"cmr_1": 0.5}, {"a-m/0": torch.zeros(3, 4, 4)})
    log.close()
    assert (tmp_path / "validation.csv").read_text().splitlines() == ["step,cmr_1", "1,0.5"]
    assert (tmp_path / "pictures" / "a-m-0.png").read_bytes().startswith(b"\x89PNG")


def test_checkerboards_join_where_the_affine_is_right() -> None:
    """The right board of a pair whose moving image is the reference under the affine is the reference itself."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")

    def ground(x: Tensor, y: Tensor) -> Tensor:
        return (torch.sin(x / 7) * torch.cos(y / 9))[None]

    angle = 0.1
    linear = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    affine = torch.cat([linear, torch.tensor([[9.0], [-6.0]])], dim=1)
    back = torch.stack([x - 9.0, y + 6.0], dim=-1) @ linear  # inverse rotation
    board = before_after(ground(x, y), ground(back[..., 0], back[..., 1]), affine, squares=4)
    assert board.shape == (3, 96, 96 * 2 + 4)
    exact = before_after(ground(x, y), ground(x, y), torch.eye(2, 3), squares=4)[:, :, -96:]
    inner = slice(16, 80)
    before, after = board[:, :, :96], board[:, :, -96:]
    assert float((after - exact)[:, inner, inner].abs().max()) < 0.05
    assert float((before - exact)[:, inner, inner].abs().max()) > 0.3


def test_better_is_cmr_first_then_the_median() -> None:
    ordered = [
        {"cmr_1": float("nan"), "cmr_3": 0.1, "median_px": 9.0},
        {"cmr_1": 0.0, "cmr_3": 0.1, "median_px": float("inf")},
        {"cmr_1": 0.0, "cmr_3": 0.1, "median_px": 9.0},
        {"cmr_1": 0.0, "cmr_3": 0.1, "median_px": 8.0},
        {"cmr_1": 0.0, "cmr_3": 0.2, "median_px": 20.0},
        {"cmr_1": 0.1, "cmr_3": 0.1, "median_px": 30.0},
    ]
    ranks = [rank_of(scores) for scores in ordered]
    assert ranks == sorted(ranks)
    assert all(a < b for a, b in itertools.pairwise(ranks))
