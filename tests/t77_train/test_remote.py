"""A timed run from one pack: what goes home, how it goes on, and what a network scores by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from somareg.config import to_mapping
from somareg.errors import ConfigError, OutputError, ReadError
from somareg.lab.data.bundle import main as bundle
from somareg.lab.data.bundle import write_bundle
from somareg.lab.data.bundle_read import is_bundle, read_bundle_samples, read_bundle_tiles
from somareg.lab.data.stacks import ProtocolSamples, SampleStack
from somareg.lab.data.synthetic.generator import SyntheticSource
from somareg.lab.data.tiles import TileSet
from somareg.lab.train import remote
from somareg.lab.train.config import load_config
from somareg.lab.train.forward import validate_forward
from somareg.lab.train.remote import Trip, join, plan_file, split, travel
from somareg.lab.train.sources import load_tiles
from somareg.soma.network import Soma
from somareg.soma.weights import load_network
from tests.small_network import SMALL

PLANS = Path(__file__).parents[2] / "configs" / "gpu"
CPU = torch.device("cpu")


def scenes(count: int, size: int, seed: int) -> TileSet:
    return SyntheticSource().scenes(count, size, torch.Generator().manual_seed(seed), CPU)


def some_samples(count: int = 3, side: int = 96, shift: int = 4) -> ProtocolSamples:
    """Optical crops whose SAR crop lies `shift` px to the right in the same scene."""
    made = scenes(count, side + 16, 5)
    matrix = torch.eye(2, 3, dtype=torch.float64).repeat(count, 1, 1)
    matrix[:, 0, 2] = -shift
    stack = SampleStack(
        set="mini",
        split="val",
        level="m",
        moving=made.sar[:, 8 : 8 + side, 8 + shift : 8 + shift + side].contiguous(),
        reference=made.optical[:, :, 8 : 8 + side, 8 : 8 + side].contiguous(),
        matrix=matrix,
        index=tuple(range(count)),
        group=tuple(f"place-{i}" for i in range(count)),
        quoted_from=1.0,
    )
    return ProtocolSamples((stack,))


@pytest.fixture(scope="module")
def tiles() -> TileSet:
    """Four tiles of one scene that overlap, and two pairs that share their SAR image; a corner is not valid."""
    whole = scenes(1, 192, 2)
    parts = []
    for x, y in ((0, 0), (64, 0), (0, 64), (64, 64)):
        window = slice(y, y + 128), slice(x, x + 128)
        parts.append(
            replace(
                whole,
                sar=whole.sar[:, *window].contiguous(),
                optical=whole.optical[:, :, *window].contiguous(),
                valid=whole.valid[:, *window].contiguous(),
                name=(f"mini/big.webp@{x},{y}",),
            )
        )
    other = scenes(2, 128, 3)
    cross = replace(other, sar=other.sar[:1].repeat(2, 1, 1), name=("mini/a.webp@0,0", "mini/a+b.webp@0,0"))
    joined = TileSet.concat([*parts, cross])
    joined.valid[0, :30, :50] = False
    joined.label[:, 0, 2] = torch.arange(6) * 0.25
    return joined


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory, tiles: TileSet) -> Path:
    path = tmp_path_factory.mktemp("pack") / "pack.safetensors"
    write_bundle(path, [tiles], some_samples(), max_mb=4.0)
    return path


def test_a_bundle_gives_back_what_went_in(pack: Path, tiles: TileSet) -> None:
    assert is_bundle(pack)
    (back,) = read_bundle_tiles(pack)
    assert (back.name, back.group, back.source) == (tiles.name, tiles.group, tiles.source)
    assert torch.equal(back.label, tiles.label)
    assert torch.equal(back.valid, tiles.valid)
    for key in ("sar", "optical"):
        apart = getattr(back, key).float() - getattr(tiles, key).float()
        assert apart.square().mean().sqrt() < 12  # lossy, but the same picture: bands in order, tiles in place
        assert getattr(tiles, key).float().std() > 30
    for one, other in zip(read_bundle_samples(pack), some_samples(), strict=True):
        assert torch.equal(one.moving, other.moving) and torch.equal(one.reference, other.reference)
        assert torch.equal(one.matrix, other.matrix)
        assert (one.group, one.index, one.level) == (other.group, other.index, other.level)
    assert [len(each) for each in load_tiles([str(pack)])] == [6]


def test_ground_shown_twice_is_stored_once(tiles: TileSet, tmp_path: Path) -> None:
    report = write_bundle(tmp_path / "a.safetensors", [tiles], some_samples(), max_mb=4.0)
    assert report.images == 2 + 3  # the scene's two images; one SAR and two optical ones
    assert report.quality == 95


def test_the_size_decides_the_quality(tiles: TileSet, tmp_path: Path) -> None:
    best = write_bundle(tmp_path / "a.safetensors", [tiles], some_samples(), max_mb=4.0)
    room = best.size * 0.85 + 2**16  # some is kept for the header
    least = write_bundle(tmp_path / "b.safetensors", [tiles], some_samples(), max_mb=room / 1e6)
    assert least.quality < best.quality
    assert least.size < best.size
    with pytest.raises(OutputError, match="do not fit"):
        write_bundle(tmp_path / "c.safetensors", [tiles], some_samples(), max_mb=0.07)
    assert not (tmp_path / "c.safetensors").exists()


def test_a_damaged_bundle_is_told(pack: Path, tmp_path: Path) -> None:
    content = bytearray(pack.read_bytes())
    content[-60_000:] = bytes(60_000)
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(ReadError, match="is damaged"):
        read_bundle_samples(tmp_path / "bad.safetensors")
    assert not is_bundle(tmp_path / "missing.safetensors")


# --- the trip ---------------------------------------------------------------------------------------------------------


def trip(pack: Path, folder: Path, steps: int, **changes: object) -> Trip:
    """A few steps of a plan with a small network."""
    small = json.dumps(to_mapping(SMALL))
    sets = (
        f"network={small}",
        "data.draw.crop=96",
        "data.synthetic_share=0.0",
        "run.batch=2",
        "run.accelerator=cpu",
        f"run.max_steps={steps}",
        "optimiser.schedule=cosine",
        "optimiser.total_steps=4",
        "run.log_every_steps=1",
        "run.val_every_minutes=100",
    )
    made = Trip(pack, "compact", PLANS / "compact.yaml", 5.0, folder / "run", folder / "home", overrides=sets)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_trip_brings_home_what_registers(pack: Path, tmp_path: Path) -> None:
    told: list[str] = []
    result = travel(trip(pack, tmp_path, 2), told.append)
    home = tmp_path / "home"
    assert (result.steps, result.stopped) == (2, "steps")
    assert {"cmr_1", "windows", "mini_m/cmr_3"} <= result.scores.keys()
    names = {path.name for path in home.iterdir()}
    assert names == {*("compact.safetensors", "compact.json", "train.csv", "validation.csv", "curves.png", "last.ckpt")}
    assert (home / "curves.png").read_bytes()[:4] == b"\x89PNG"
    network = load_network(home / "compact.safetensors", CPU)
    assert network.parameter_count == Soma(SMALL).parameter_count
    card = json.loads((home / "compact.json").read_text())
    assert card["steps"] == 2 and card["data"][0]["set"] == "synthetic"
    assert any("stopped by steps" in line for line in told)


def test_a_run_goes_on_from_what_went_home(pack: Path, tmp_path: Path) -> None:
    travel(trip(pack, tmp_path / "one", 4), lambda line: None)
    travel(trip(pack, tmp_path / "two", 2), lambda line: None)
    fresh = trip(pack, tmp_path / "three", 4, earlier=tmp_path / "two" / "home")
    told: list[str] = []
    travel(fresh, told.append)
    assert "going on from" in told[0]
    whole, resumed = (
        torch.load(tmp_path / name / "run" / "last.ckpt", weights_only=True)["state_dict"] for name in ("one", "three")
    )
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    steps = [line.split(",")[0] for line in (tmp_path / "three" / "home" / "train.csv").read_text().splitlines()]
    assert steps == ["step", "1", "2", "3", "4"]


def test_what_is_too_large_stays(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PIECE_BYTES", 200_000)
    monkeypatch.setattr(remote, "MOST_FILES", 8)
    told: list[str] = []
    travel(trip(pack, tmp_path, 1), told.append)
    home = tmp_path / "home"
    pieces = sorted(path.name for path in home.glob("compact.safetensors*"))
    assert len(pieces) > 1 and pieces[0] == "compact.safetensors.part-00"
    assert not list(home.glob("last.ckpt*"))
    assert any("too much to bring home" in line for line in told)
    join(home, "compact.safetensors", tmp_path / "joined" / "compact.safetensors")
    (tmp_path / "joined" / "compact.json").write_bytes((home / "compact.json").read_bytes())
    load_network(tmp_path / "joined" / "compact.safetensors", CPU)
    (home / pieces[0]).unlink()
    with pytest.raises(ReadError, match="holds no whole"):
        join(home, "compact.safetensors", tmp_path / "again.safetensors")


def test_an_earlier_copy_leaves_no_stale_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PIECE_BYTES", 10)
    source, home = tmp_path / "file", tmp_path / "home"
    home.mkdir()
    source.write_bytes(bytes(range(35)))
    assert len(split(source, home)) == 4
    source.write_bytes(b"short")
    assert [path.name for path in split(source, home)] == ["file"]
    assert [path.name for path in home.iterdir()] == ["file"]


def test_mistakes_are_told(pack: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'compact'"):
        plan_file(PLANS, "compacd")
    with pytest.raises(ConfigError, match="leaves no time"):
        travel(trip(pack, tmp_path, 1, minutes=0.1))


@pytest.mark.parametrize("plan", sorted(path.stem for path in PLANS.glob("*.yaml")))
def test_a_plan_is_read_and_its_network_fits(plan: str) -> None:
    cfg = load_config(PLANS / f"{plan}.yaml")
    assert cfg.network.glam.coarse is not None and cfg.run.judge == "forward"
    count = Soma(cfg.network).parameter_count
    if plan != "published":  # whose weights go home in pieces
        assert 2 * count < 16 * 2**20
    draw = cfg.data.draw
    assert draw.aspect == draw.near_aspect == (0.75, 1.33) and draw.smooth_px == 4.0
    assert np.tan(np.deg2rad(draw.near_shear_deg)) == pytest.approx(0.1, abs=0.001)


# --- validation in batches --------------------------------------------------------------------------------------------


def test_the_truth_scores_and_the_identity_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = some_samples(3)
    network = Soma(SMALL).eval()
    scores = validate_forward(network, samples, None, CPU)
    assert {"cmr_0.5", "cmr_5", "median_px", "windows", "mini_m/median_px", "mini_m/windows"} <= scores.keys()
    assert 0 <= scores["windows"] <= 1
    found = {}
    glam = network.glam.forward
    for shift in (0.0, -4.0):

        def answer(*args: object, shift: float = shift, **named: object) -> object:
            output = glam(*args, **named)  # type: ignore[arg-type]
            affine = torch.eye(2, 3, dtype=torch.float64).repeat(len(output.affine), 1, 1)
            affine[:, 0, 2] = shift
            return replace(output, affine=affine)

        monkeypatch.setattr(network.glam, "forward", answer)
        found[shift] = validate_forward(network, samples, None, CPU)
    assert found[-4.0]["median_px"] == pytest.approx(0.0, abs=1e-6) and found[-4.0]["cmr_0.5"] == 1.0
    assert found[0.0]["median_px"] == pytest.approx(4.0, abs=1e-6) and found[0.0]["cmr_3"] == 0.0


def test_places_that_are_scored_are_not_learned(
    tiles: TileSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command leaves tiles of the samples' groups out."""
    scored = replace(tiles, group=("place-1", *tiles.group[1:]))
    scored.save(tmp_path / "tiles" / "tiles-00000.safetensors")
    some_samples().save(tmp_path / "val.safetensors")
    out = tmp_path / "pack.safetensors"
    arguments = ["--tiles", str(tmp_path / "tiles"), "--samples", str(tmp_path / "val.safetensors"), "--out", str(out)]
    assert bundle(arguments) == 0
    assert "5 tiles" in capsys.readouterr().out
    (kept,) = read_bundle_tiles(out)
    assert "place-1" not in kept.group and len(kept) == 5
    assert bundle([*arguments[:-1], str(out), "--max-mb", "0.01"]) == 2
    assert "do not fit" in capsys.readouterr().err
